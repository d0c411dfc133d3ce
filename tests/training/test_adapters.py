"""Anybody's models: what follows scikit-learn's, Qlib's or torch's interface is trained and served as ours are."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.config import ModelSettings
from mlops_tasks.errors import ConfigError, DigestMismatchError, IsolationError, TrainingError
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.files import read_json, write_json
from mlops_tasks.modeling.artefact import PROCESSORS, ModelArtefact
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.modeling.fitting import Prepared
from mlops_tasks.modeling.model_zoo.family import find_family
from mlops_tasks.modeling.model_zoo.sklearn_family import SklearnFamily
from mlops_tasks.modeling.seal import seal
from mlops_tasks.modeling.session import TrainingSession
from mlops_tasks.modeling.trust import Trust
from mlops_tasks.signing import SigningKey, VerifyingKeys
from mlops_tasks.training.engine import UnifiedQlibTrainingEngine
from mlops_tasks.training.events import read_events
from mlops_tasks.training.plan import make_plan
from mlops_tasks.tuning.trial import fit_and_score
from tests.planted import ONE_THREAD, Planted, Shape, plant

OWN = "tests.training.own_models"
KEY = SigningKey(bytes(32))
TRUST = Trust(VerifyingKeys.of(KEY.public), ModelSettings(unpickling_families=("qlib",)), Path("/nonexistent"))
TREES = {"n_estimators": 60, "max_depth": 5, "max_features": 0.5}
DOUBLE = {"base_model": "gbm", "num_models": 2, "bins_fs": 2, "sample_ratios": [0.9, 0.8], "decay": 0.5, "epochs": 40}
DOUBLE |= {"sub_weights": [1, 1], "learning_rate": 0.1, "verbosity": -1, "num_threads": 1}
NETWORK = {"window": 1, "hidden_size": 8, "epochs": 8, "samples_per_epoch": 0, "batch_size": 256}
NETWORK |= {"learning_rate": 0.01, "warmup_steps": 5}

LEARNERS = {
    "forest": ("sklearn", "sklearn.ensemble:RandomForestRegressor", TREES),
    "boosting": ("sklearn", "sklearn.ensemble:HistGradientBoostingRegressor", {"max_iter": 30, "learning_rate": 0.1}),
    "pipeline": ("sklearn", f"{OWN}:scaled_ridge", {"alpha": 10.0}),
    "double_ensemble": ("qlib", "qlib.contrib.model.double_ensemble:DEnsembleModel", DOUBLE),
    "qlib_lightgbm": ("qlib", "qlib.contrib.model.gbdt:LGBModel", {"num_boost_round": 60, "num_threads": 1}),
    "own_qlib": ("qlib", f"{OWN}:OwnQlibModel", {"penalty": 10.0}),
    "network": ("network", f"{OWN}:OneDay", NETWORK),
}


def config(family: str, class_path: str | None, hyperparameters: dict[str, Any], **changes: Any) -> TrainingConfig:
    return TrainingConfig(
        model="mine",
        family=family,
        class_path=class_path,
        hyperparameters=hyperparameters,
        label_processor="CSZScoreNorm",
        seed=3,
        **changes,
    )


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant("linear", Shape(days=200, instruments=40, features=4, snr=0.3), seed=1)


@pytest.fixture(scope="module")
def fold(planted) -> Prepared:
    """The planted market as all of these configurations see it."""
    return Prepared.of(planted.data, config("sklearn", None, {}))


def trained(given: TrainingConfig, fold: Prepared, folder: Path) -> ModelArtefact:
    """Fitted, saved and loaded, as the engine does."""
    family = find_family(given.family)()
    family.fit(fold.problem, TrainingSession(given, threads=1))
    folder.mkdir(exist_ok=True)
    family.save(folder)
    write_json(folder / PROCESSORS, fold.processors.to_json())
    seal(folder, {"family": given.family, "feature_names": list(fold.data.features.columns)}, KEY)
    return ModelArtefact.load(folder, TRUST)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_planted_linear_signal_is_learned(planted, fold, name):
    """At least 70% of the oracle's rank IC on days that were not learned from, by the path of a search's trial."""
    scored = fit_and_score(fold, config(*LEARNERS[name]), ONE_THREAD)
    test = scored.loc[planted.data.label.index[planted.data.rows("test")]]
    assert daily_rank_ic(test["score"], test["label"]).mean() > 0.7 * planted.oracle


@pytest.mark.parametrize("name", ["forest", "boosting", "pipeline", "double_ensemble", "own_qlib"])
def test_a_row_scores_the_same_alone_and_in_company(fold, name, tmp_path):
    """Bit for bit, so that a name can be asked for on its own."""
    artefact = trained(config(*LEARNERS[name]), fold, tmp_path)
    rows = fold.data.features.iloc[-30:]
    alone = pd.concat([artefact.predict(rows.iloc[[place]]) for place in range(len(rows))])
    pd.testing.assert_series_equal(artefact.predict(rows), alone, check_exact=True)


@pytest.mark.parametrize("name", ["forest", "pipeline", "own_qlib"])
def test_equal_trainings_leave_equal_bytes(fold, name, tmp_path):
    """Files depend on data, configuration and seed, not on addresses, times or the order of threads."""
    for number in range(2):
        trained(config(*LEARNERS[name]), fold, tmp_path / str(number))
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in "01")
    assert first == second


def test_the_adapter_changes_nothing_of_the_estimator(fold):
    """The forest scores what scikit-learn's own does on the same matrix with the same seed."""
    from sklearn.ensemble import RandomForestRegressor

    given = config(*LEARNERS["forest"])
    problem, family = fold.problem, SklearnFamily()
    result = family.fit(problem, TrainingSession(given))
    rows = problem.learned(problem.train)
    theirs = RandomForestRegressor(**TREES, random_state=3).fit(problem.features[rows], problem.label[rows])
    np.testing.assert_array_equal(
        family.estimator.predict(problem.features[problem.valid]), theirs.predict(problem.features[problem.valid])
    )
    assert list(result.importance.values()) == list(theirs.feature_importances_)


def test_the_adapter_changes_nothing_of_qlibs_model(fold, tmp_path):
    """LGBModel by class path scores the test segment as Qlib's own predict does on a dataset of all days."""
    from qlib.contrib.model import gbdt

    from mlops_tasks.modeling.model_zoo.qlib_family import quiet_recorder

    given = config(*LEARNERS["qlib_lightgbm"])
    artefact = trained(given, fold, tmp_path)
    theirs = gbdt.LGBModel(**given.hyperparameters)
    problem = fold.problem
    with quiet_recorder():
        theirs.fit(problem.dataset)
    rows = fold.data.features.iloc[fold.data.rows("valid")]
    np.testing.assert_array_equal(
        artefact.predict(rows).to_numpy(), theirs.predict(problem.dataset, segment="valid").to_numpy()
    )


REFUSED = {
    "a classifier": ("sklearn", f"{OWN}:classifier", {}, ConfigError, "is not a scikit-learn regressor"),
    "no estimator": ("sklearn", "builtins:dict", {}, ConfigError, "is not a scikit-learn regressor"),
    "no class": ("sklearn", "sklearn.ensemble:RandomForrest", {}, ConfigError, "cannot be imported.*module:Class"),
    "no module": ("qlib", "qlib.contrib.model.nothing:Model", {}, ConfigError, "cannot be imported"),
    "no class path": ("sklearn", None, {}, ConfigError, r"models\.mine\.class_path: is missing"),
    "an unknown parameter": ("sklearn", "sklearn.linear_model:Ridge", {"alhpa": 1}, ConfigError, "alhpa"),
    "a wrong parameter": ("sklearn", "sklearn.linear_model:Ridge", {"alpha": -1.0}, ConfigError, "be fitted.*alpha"),
    "other rows": ("sklearn", f"{OWN}:Centred", {}, TrainingError, "depends on the rows beside"),
    "no Qlib model": ("qlib", "sklearn.linear_model:Ridge", {}, ConfigError, r"is not a qlib\.model\.base\.Model"),
    "the day's other rows": ("qlib", f"{OWN}:Relative", {"penalty": 1.0}, TrainingError, "depends on the rows beside"),
    "a failure": ("qlib", f"{OWN}:Fragile", {"penalty": 1.0}, TrainingError, "ZeroDivisionError: no way"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_model_of_its_family_is_refused(fold, case):
    """With what is wrong about the class or its parameters."""
    family, class_path, hyperparameters, error, said = REFUSED[case]
    given = config(family, class_path, hyperparameters)
    with pytest.raises(error, match=said):
        find_family(family)().fit(fold.problem, TrainingSession(given))


def test_missing_values_are_refused_by_who_cannot_take_them():
    """The remedy is in the entry: fill them."""
    holes = plant("linear", Shape(days=60, instruments=10, features=4, missing=0.1))
    given = config("sklearn", "sklearn.linear_model:Ridge", {})
    with pytest.raises(
        ConfigError, match=r"4 of 4 features have some: F0 \(11\.\d+% of rows\).*robust_zscore_fill_zero"
    ):
        SklearnFamily().fit(Prepared.of(holes.data, given).problem, TrainingSession(given))
    filled = config("sklearn", "sklearn.linear_model:Ridge", {}, feature_processors=("robust_zscore_fill_zero",))
    assert SklearnFamily().fit(Prepared.of(holes.data, filled).problem, TrainingSession(filled)).best_iteration == 1


def test_types_of_other_packages_are_not_saved(fold, tmp_path):
    """skops would have to trust a package that nobody named."""
    given, family = config("sklearn", f"{OWN}:Hoarder", {}), SklearnFamily()
    family.fit(fold.problem, TrainingSession(given))
    with pytest.raises(TrainingError, match=r"holds mlops_tasks\..*keep others out of its attributes"):
        family.save(tmp_path)


def test_a_pickle_with_a_changed_byte_is_not_loaded(fold, tmp_path):
    """Neither by its manifest, nor with a manifest that was signed anew."""
    trained(config(*LEARNERS["own_qlib"]), fold, tmp_path)
    manifest = {key: value for key, value in read_json(tmp_path / "model.json").items() if key != "files"}
    content = bytearray((tmp_path / "model.pkl").read_bytes())
    content[-3] ^= 1
    (tmp_path / "model.pkl").write_bytes(content)
    with pytest.raises(DigestMismatchError, match=r"model\.pkl: content is not what model\.json recorded"):
        ModelArtefact.load(tmp_path, TRUST)
    seal(tmp_path, manifest, KEY)
    with pytest.raises(IsolationError, match=r"model\.pkl: content is not what qlib\.json recorded"):
        ModelArtefact.load(tmp_path, TRUST)


def test_the_engine_trains_an_entry_of_your_own_and_keeps_it_when_the_entry_is_gone(market):
    """From models.yaml in the home folder to a training folder that loads without it."""
    own = market.settings.home / "models.yaml"
    own.write_text(
        "forest:\n  family: sklearn\n  class_path: sklearn.ensemble:ExtraTreesRegressor\n  description: Trees.\n"
        "  recommended_for: [Tests.]\n  feature_processors: [robust_zscore_fill_zero]\n"
        "  label_processor: CSRankNorm\n  hyperparameters:\n"
        "    n_estimators: {type: integer, minimum: 1, default: 30}\n    max_depth: {type: integer, default: 6}\n"
        "    max_features: {type: number, default: 0.3}\n"
    )
    try:
        form = {"models": ["forest"], "hyperparameters": {"forest": {"n_estimators": 20}}}
        plan = make_plan(market.settings, market.vintage.data_version, market.vintage.calendar(), form)
        folder = UnifiedQlibTrainingEngine(market.settings).train(plan, market.feature_version, "forest")
    finally:
        own.unlink()
    assert read_json(folder / "plan.json")["model_config"]["hyperparameters"]["n_estimators"] == 20
    predictions = pd.read_parquet(folder / "predictions.parquet")
    test = predictions[predictions["segment"] == "test"].set_index(["datetime", "instrument"])
    assert daily_rank_ic(test["score"], test["label"]).mean() > 0.08
    assert ModelArtefact.load(folder / "model", Trust.of(market.settings)).feature_names[0] == "KMID"


NAMED = ("lightgbm:LGBMRegressor", "xgboost:XGBRegressor")
"""Classes that docs/models.md names, whose files hold other types than scikit-learn's own plain ones."""


@pytest.mark.parametrize("class_path", NAMED)
def test_a_class_that_is_not_loaded_again_is_told_before_it_is_trained(market, class_path):
    """By its fit on a few days: nothing of the training has begun; where the settings allow its code it is trained."""
    own = market.settings.home / "models.yaml"
    own.write_text(
        f"named:\n  family: sklearn\n  class_path: {class_path}\n  description: Named.\n  recommended_for: [Tests.]\n"
        "  feature_processors: [robust_zscore_fill_zero]\n  label_processor: CSRankNorm\n  hyperparameters:\n"
        "    n_estimators: {type: integer, minimum: 1, default: 3}\n"
    )
    allowed = market.settings.model_copy(update={"models": ModelSettings(unpickling_families=("sklearn",))})
    try:
        plan = make_plan(market.settings, market.vintage.data_version, market.vintage.calendar(), {"models": ["named"]})
        handle = UnifiedQlibTrainingEngine(market.settings).start(plan, market.feature_version, "named")
        with pytest.raises(ConfigError, match=r"tried out on \d+ rows before the training: .*unpickling_families"):
            handle.supervise()
        stages = [
            event.payload["stage"] for event in read_events(market.settings, handle.run_id) if event.kind == "stage"
        ]
        assert stages == ["load"]
        folder = UnifiedQlibTrainingEngine(allowed).train(plan, market.feature_version, "named")
    finally:
        own.unlink()
    assert len(ModelArtefact.load(folder / "model", Trust.of(allowed)).feature_names) > 100
