"""The engine learns what is there to learn, without looking ahead, and never twice."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.errors import DigestMismatchError, StoreError, TrainingError
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.files import read_json
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.dataset import LearningData, load_learning_data, purge, qlib_dataset
from mlops_tasks.modeling.processors import FittedProcessors, robust_centre_and_scale
from mlops_tasks.modeling.seal import artefact_digest
from mlops_tasks.modeling.trust import Trust
from mlops_tasks.training.engine import UnifiedQlibTrainingEngine
from mlops_tasks.training.events import read_events, runs
from mlops_tasks.training.plan import make_plan
from tests.training.descent import SmallMarket

MODELS = ("lightgbm", "linear")


@pytest.fixture(scope="module")
def plan(market):
    return make_plan(market.settings, market.vintage.data_version, market.vintage.calendar(), {})


@pytest.fixture(scope="module")
def learning_data(market, plan) -> LearningData:
    return load_learning_data(market.settings, plan.learning_spec(market.feature_version))


@pytest.fixture(scope="module")
def trained(market, plan):
    engine = UnifiedQlibTrainingEngine(market.settings)
    return {model: engine.train(plan, market.feature_version, model) for model in MODELS}


def keyed(predictions: pd.DataFrame, segment: str) -> pd.DataFrame:
    return predictions[predictions["segment"] == segment].set_index(["datetime", "instrument"])


@pytest.mark.parametrize("model", MODELS)
def test_a_planted_signal_is_learned(trained, model):
    """Test rank IC is clearly positive where the label's predictable part has correlation 0.3."""
    test = keyed(pd.read_parquet(trained[model] / "predictions.parquet"), "test")
    assert daily_rank_ic(test["score"], test["label"]).mean() > 0.08


@pytest.mark.parametrize("model", MODELS)
def test_the_folder_holds_all_that_later_stages_read(trained, model):
    """Plan, artefact, predictions, curves, importance, metrics; the newest rows have scores and no label."""
    folder = trained[model]
    names = {p.name for p in folder.iterdir()}
    expected = {"plan.json", "model", "predictions.parquet", "curves.json", "importance.json", "metrics.json"}
    assert names == expected | {"columns.json"}
    assert len(read_json(folder / "importance.json")) == 158
    assert read_json(folder / "plan.json")["training_key"] == folder.name
    predictions = pd.read_parquet(folder / "predictions.parquet")
    assert np.isfinite(predictions["score"]).all()
    unlabelled = (
        predictions[predictions["segment"] == "test"].groupby("datetime")["label"].apply(lambda x: x.isna().all())
    )
    assert list(unlabelled[unlabelled].index) == list(unlabelled.index[-2:])


def test_the_curves_show_every_iteration(trained):
    """LightGBM's loss on train and valid, one value an iteration, the best one inside."""
    curves = read_json(trained["lightgbm"] / "curves.json")["loss"]
    best = read_json(trained["lightgbm"] / "metrics.json")["best_iteration"]
    assert len(curves["train"]) == len(curves["valid"]) >= best > 0
    assert int(np.argmin(curves["valid"])) + 1 == best


@pytest.mark.parametrize("model", MODELS)
def test_the_same_problem_is_not_trained_twice_and_gives_the_same_bytes(market, plan, trained, model):
    """A second call returns the folder; a fresh training makes the same files but for the time it took."""
    engine = UnifiedQlibTrainingEngine(market.settings)
    before = (trained[model] / "metrics.json").stat().st_mtime_ns
    other_holdings = plan.model_copy(update={"topk": plan.topk - 1, "n_drop": plan.n_drop + 1})
    assert engine.train(other_holdings, market.feature_version, model) == trained[model]
    assert (trained[model] / "metrics.json").stat().st_mtime_ns == before
    kept = trained[model].with_name("kept")
    trained[model].rename(kept)
    try:
        again = engine.train(plan, market.feature_version, model)
        assert artefact_digest(again / "model") == artefact_digest(kept / "model")
        for name in ("predictions.parquet", "curves.json", "importance.json", "plan.json"):
            assert (again / name).read_bytes() == (kept / name).read_bytes()
    finally:
        shutil.rmtree(kept)


def test_labels_never_reach_into_the_next_segment(market, plan, learning_data):
    """The last horizon + 1 days of train and valid are not learned from; everything before keeps its label."""
    calendar = market.vintage.calendar()
    for horizon in (1, 5):
        changed = plan.model_copy(update={"horizon": horizon})
        label = pd.Series(1.0, index=learning_data.features.index)
        purged = purge(label, changed.learning_spec(market.feature_version), calendar)
        days = label.index.get_level_values("datetime")
        for name in ("train", "valid"):
            first, last = map(pd.Timestamp, plan.segments[name])
            inside = calendar[(calendar >= first) & (calendar <= last)]
            blank = days[purged.isna() & (days >= first) & (days <= last)].unique()
            assert list(blank) == list(inside[-(horizon + 1) :])


def test_what_happens_after_the_training_segment_changes_no_fitted_number(learning_data):
    """Processors are fitted on train rows only: garbage in valid and test moves nothing."""
    rows = learning_data.rows("train")
    before = FittedProcessors.fit(["robust_zscore_fill_zero"], learning_data.features.iloc[rows].to_numpy())
    garbage = learning_data.features.copy()
    garbage.iloc[rows.stop :] = 1e6
    changed = dataclasses.replace(learning_data, features=garbage)
    after = FittedProcessors.fit(["robust_zscore_fill_zero"], changed.features.iloc[changed.rows("train")].to_numpy())
    assert before.to_json() == after.to_json()


def test_the_linear_model_is_qlibs_own(market, plan, learning_data, trained):
    """Qlib's LinearModel behind Qlib's processors, on the same rows, ranks the test segment the same."""
    from qlib.contrib.model.linear import LinearModel
    from qlib.data.dataset import DatasetH
    from qlib.data.dataset.handler import DataHandlerLP
    from qlib.data.dataset.loader import StaticDataLoader

    frame = learning_data.features.copy()
    frame.columns = pd.MultiIndex.from_product([["feature"], frame.columns])
    frame[("label", "LABEL0")] = learning_data.label.astype("float32")
    first, last = (str(day) for day in plan.segments["train"])
    fit = {"fit_start_time": first, "fit_end_time": last, "fields_group": "feature", "clip_outlier": True}
    handler = DataHandlerLP(
        data_loader=StaticDataLoader(frame),
        infer_processors=[
            {"class": "RobustZScoreNorm", "kwargs": fit},
            {"class": "Fillna", "kwargs": {"fields_group": "feature"}},
        ],
        learn_processors=[{"class": "DropnaLabel"}, {"class": "CSRankNorm", "kwargs": {"fields_group": "label"}}],
    )
    dataset = DatasetH(handler, segments={k: tuple(map(str, v)) for k, v in plan.segments.items()})
    model = LinearModel(estimator="ols")
    model.fit(dataset)
    theirs = model.predict(dataset, "test")
    ours = keyed(pd.read_parquet(trained["linear"] / "predictions.parquet"), "test")["score"]
    assert ours.corr(theirs.reindex(ours.index)) > 0.9999


def test_the_lightgbm_model_is_qlibs_own(plan, learning_data, trained):
    """Qlib's LGBModel with the published parameters on the same dataset predicts the same numbers."""
    import lightgbm
    from qlib.contrib.model.gbdt import LGBModel

    from mlops_tasks.modeling.model_zoo.zoo import zoo_entry

    dataset = qlib_dataset(learning_data, FittedProcessors(), "CSZScoreNorm")
    extra = {"seed": plan.seed, "num_threads": 2, "deterministic": True, "force_row_wise": True}
    theirs = LGBModel(**{**zoo_entry("lightgbm").defaults(), **extra})
    (train, _), (valid, _) = theirs._prepare_data(dataset)
    stop = lightgbm.early_stopping(50, verbose=False)
    booster = lightgbm.train(theirs.params, train, 1000, valid_sets=[train, valid], callbacks=[stop])
    rows = learning_data.rows("test")
    expected = booster.predict(learning_data.features.iloc[rows].to_numpy())
    ours = keyed(pd.read_parquet(trained["lightgbm"] / "predictions.parquet"), "test")["score"]
    np.testing.assert_array_equal(ours.to_numpy(), expected)


@pytest.mark.parametrize("model", MODELS)
def test_a_row_scores_the_same_alone_and_in_company(market, trained, learning_data, model):
    """One instrument's score does not depend on who else is asked for: bit for bit."""
    artefact = ModelArtefact.load(trained[model] / "model", Trust.of(market.settings))
    rows = learning_data.features.iloc[-40:]
    together = artefact.predict(rows)
    alone = pd.concat([artefact.predict(rows.iloc[[i]]) for i in range(len(rows))])
    pd.testing.assert_series_equal(together, alone, check_exact=True)


def test_missing_or_textual_features_are_refused(market, trained, learning_data):
    """The error names the columns."""
    artefact = ModelArtefact.load(trained["linear"] / "model", Trust.of(market.settings))
    rows = learning_data.features.iloc[:2]
    with pytest.raises(TrainingError, match="1 feature columns are missing: KMID; give"):
        artefact.predict(rows.drop(columns="KMID"))
    with pytest.raises(TrainingError, match="not numeric"):
        artefact.predict(rows.astype(object).assign(KMID="x"))


def test_an_artefact_with_a_changed_byte_is_not_loaded(market, trained, tmp_path):
    """One digit of one coefficient is enough."""
    folder = tmp_path / "model"
    shutil.copytree(trained["linear"] / "model", folder)
    content = json.loads((folder / "linear.json").read_text())
    content["coefficients"][0] += 1e-9
    (folder / "linear.json").write_text(json.dumps(content))
    with pytest.raises(DigestMismatchError, match=r"linear\.json: content is not what model\.json recorded"):
        ModelArtefact.load(folder, Trust.of(market.settings))


def test_robust_scaling_has_its_closed_form():
    """Median and 1.4826 MAD per column, NaN ignored; an empty column stays NaN and becomes 0."""
    values = np.array([[1, np.nan, 5], [2, np.nan, 5], [4, np.nan, np.nan]], dtype=np.float32)
    centre, scale = robust_centre_and_scale(values)
    np.testing.assert_allclose(centre, [2, np.nan, 5])
    np.testing.assert_allclose(scale[0], 1.4826)
    fitted = FittedProcessors(centre, scale)
    out = fitted.transform(values)
    np.testing.assert_allclose(out[:, 0], [-1 / 1.4826, 0, 2 / 1.4826], rtol=1e-6)
    assert (out[:, 1] == 0).all()
    assert out[2, 2] == 0
    round_trip = FittedProcessors.from_json(json.loads(json.dumps(fitted.to_json())))
    np.testing.assert_array_equal(round_trip.transform(values), out)


def test_a_run_whose_folder_cannot_be_written_has_ended(tmp_path):
    """As on a full disk: the caller is told, and the run is recorded as failed at once, though its caller lives on."""
    market = SmallMarket.make(tmp_path)
    market.settings.training_runs_dir.parent.mkdir(parents=True, exist_ok=True)
    market.settings.training_runs_dir.write_text("a file where the folder belongs")
    with pytest.raises(StoreError, match=r"its folder cannot be written: .*training_runs.*; free space"):
        market.start()
    (run,) = runs(market.settings)
    (ending,) = read_events(market.settings, run.run_id)
    assert (ending.kind, ending.terminal) == ("failed", True)
    assert "training_runs" in ending.payload["reason"]
