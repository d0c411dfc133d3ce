"""Stored features in Qlib: what its handlers, datasets and samplers give, without a second panel."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qlib.data.dataset import DatasetH, TSDataSampler, TSDatasetH
from qlib.data.dataset.handler import DataHandlerLP
from qlib.data.dataset.loader import StaticDataLoader
from qlib.utils import init_instance_by_config

from mlops_tasks.config import Settings
from mlops_tasks.data.qlib.store import init_qlib, write_qlib_store
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.errors import ConfigError
from mlops_tasks.features.alpha158 import alpha158
from mlops_tasks.features.labels import forward_return, label_expression
from mlops_tasks.features.qlib_handler import (
    PanelDataHandler,
    PanelTSDataSampler,
    PanelTSDatasetH,
    StoreDataHandler,
    lay_out,
)
from mlops_tasks.features.store import FeatureStore, FeatureVersion
from tests.features.market import awkward_bars, make_vintage

SEGMENTS = {
    "train": ("2019-07-01", "2020-03-31"),
    "valid": ("2020-04-06", "2020-07-31"),
    "test": ("2020-08-06", "2020-12-31"),
}
GROUPS = ["feature", "label"]
Stored = tuple[Settings, Vintage, FeatureVersion]


def frame_of(rows: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """A frame in Qlib's form on the cells (day, instrument) of a bool matrix, features in one block."""
    days = pd.bdate_range("2020-01-01", periods=rows.shape[0])
    index = pd.MultiIndex.from_product(
        [days, [f"I{n}" for n in range(rows.shape[1])]], names=["datetime", "instrument"]
    )
    index = index[rows.ravel()]
    values = np.random.default_rng(seed).normal(size=(len(index), 4)).astype(np.float32)
    values[values > 2] = np.nan
    columns = pd.MultiIndex.from_product([["feature"], ["A", "B", "C"]])
    features = pd.DataFrame(values[:, :3].copy(), index, columns, copy=False)
    return pd.concat([features, pd.DataFrame(values[:, 3:], index, [("label", "LABEL0")])], axis=1)


cells = st.integers(0, 10**6).flatmap(
    lambda seed: st.sampled_from([0.2, 0.7, 1.0]).map(lambda share: np.random.default_rng(seed).random((14, 4)) < share)
)


@settings(max_examples=60)
@given(
    rows=cells,
    days=st.tuples(st.integers(0, 13), st.integers(0, 13)),
    step_len=st.integers(1, 6),
    fillna_type=st.sampled_from(["none", "ffill", "ffill+bfill"]),
    filtered=st.booleans(),
)
def test_samples_are_those_of_qlib(
    *, rows: np.ndarray, days: tuple[int, int], step_len: int, fillna_type: str, filtered: bool
) -> None:
    """Every sample, its key, its shape and its type, by number, by list and by key, with gaps and with a filter."""
    rows[0, 0] = rows[5] = True
    frame = frame_of(rows)
    calendar = pd.bdate_range("2020-01-01", periods=14)
    start, end = calendar[min(days)], calendar[max(days)]
    flt = pd.DataFrame({"keep": np.random.default_rng(1).random(len(frame)) > 0.3}, frame.index) if filtered else None
    arguments = {"start": start, "end": end, "step_len": step_len, "fillna_type": fillna_type, "flt_data": flt}
    theirs, ours = TSDataSampler(frame.copy(), **arguments), PanelTSDataSampler(frame, **arguments)
    assert len(ours) == len(theirs)
    assert ours.empty == theirs.empty
    pd.testing.assert_index_equal(ours.get_index(), theirs.get_index(), exact=False)
    for number, key in enumerate(theirs.get_index()):
        expected = theirs[number]
        assert ours[number].dtype == expected.dtype
        np.testing.assert_array_equal(ours[number], expected)
        np.testing.assert_array_equal(ours[key], theirs[key])
    if len(theirs):
        some = np.random.default_rng(2).integers(0, len(theirs), 5)
        np.testing.assert_array_equal(ours[some], theirs[some])
        np.testing.assert_array_equal(ours[[*some]], theirs[[*some]])
    with pytest.raises(KeyError):
        ours[len(ours)]


def test_a_type_of_filling_that_qlib_lacks_is_refused() -> None:
    """An unknown `fillna_type` is an error that names those there are, also when it is set later, as models do."""
    sampler = PanelTSDataSampler(frame_of(np.ones((4, 2), bool)), None, None, step_len=2)
    sampler.config(fillna_type="mean")
    with pytest.raises(ConfigError, match="'mean'; use none, ffill or ffill\\+bfill"):
        sampler[0]


ROBUST = {"class": "RobustZScoreNorm", "kwargs": {"fields_group": "feature", "clip_outlier": True}}
PROCESSORS = {
    "none": ([], []),
    "label": ([], [{"class": "DropnaLabel"}, {"class": "CSRankNorm", "kwargs": {"fields_group": "label"}}]),
    "features": (
        [ROBUST, {"class": "Fillna", "kwargs": {"fields_group": "feature"}}],
        [{"class": "DropnaLabel"}, {"class": "CSZScoreNorm", "kwargs": {"fields_group": "label"}}],
    ),
}
SELECTORS = [
    slice(None),
    slice("2020-01-06", "2020-01-10"),
    ("2020-01-06", "2020-01-10"),
    [pd.Timestamp("2020-01-04"), pd.Timestamp("2020-01-12")],
    slice(pd.Timestamp("2020-01-08"), None),
    slice("2020-01", "2020-01"),
    slice("2021-01-01", "2021-02-01"),
    pd.Timestamp("2020-01-08"),
]


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("process_type", ["append", "independent"])
def test_the_handler_gives_what_qlibs_gives(name: str, process_type: str) -> None:
    """Each kind of data, range of days and set of columns equals that of Qlib's handler on the same frame."""
    rows = np.random.default_rng(3).random((14, 5)) > 0.2
    infer, learn = PROCESSORS[name]
    fitted = {"fit_start_time": "2020-01-01", "fit_end_time": "2020-01-10"}

    def handler(kind: type, **kwargs: Any) -> Any:
        from qlib.contrib.data.handler import check_transform_proc

        return kind(
            data_loader=StaticDataLoader(frame_of(rows)),
            infer_processors=check_transform_proc(infer, *fitted.values()),
            learn_processors=check_transform_proc(learn, *fitted.values()),
            process_type=process_type,
            **kwargs,
        )

    ours, theirs = handler(PanelDataHandler), handler(DataHandlerLP)
    for data_key in ("raw", "infer", "learn"):
        for col_set in ("__all", "__raw", "feature", "label", GROUPS, ["label"]):
            for selector in SELECTORS:
                query = {"selector": selector, "col_set": col_set, "data_key": data_key}
                pd.testing.assert_frame_equal(ours.fetch(**query), theirs.fetch(**query), check_index_type=False)
        assert ours.get_cols("feature", data_key) == ["A", "B", "C"]
    lean = handler(PanelDataHandler, drop_raw=True)
    pd.testing.assert_frame_equal(lean.fetch(data_key="learn"), theirs.fetch(data_key="learn"))
    with pytest.raises(AttributeError, match="set drop_raw = False"):
        lean.fetch(data_key="raw")
    one = ours.fetch(["I1"], level="instrument", col_set="feature")
    pd.testing.assert_frame_equal(one, theirs.fetch(["I1"], level="instrument", col_set="feature"))
    assert np.isfinite(frame_of(rows).to_numpy()).sum() == np.isfinite(ours.fetch(data_key="raw").to_numpy()).sum()


def test_scattered_columns_are_put_side_by_side() -> None:
    """Columns from anywhere become one block, row after row; a frame that lies so already stays as it is."""
    frame = frame_of(np.ones((6, 3), bool))
    assert lay_out(frame) is frame
    scattered = frame.copy()
    for name in "ABC":
        scattered[("feature", name)] = scattered[("feature", name)].to_numpy() * 2
    assert not scattered["feature"].to_numpy().flags.c_contiguous
    done = lay_out(scattered)
    pd.testing.assert_frame_equal(done, scattered)
    assert np.shares_memory(done["feature"].to_numpy(), done["feature"]["A"].to_numpy())
    assert done["feature"].to_numpy().flags.c_contiguous


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """A store of Alpha158, with Qlib initialised on the vintage that it was computed from."""
    home = tmp_path_factory.mktemp("stored")
    settings = Settings(home=home)
    spells = pd.DataFrame({"instrument": [f"I{n:02d}" for n in range(8)], "first_date": "2019-06-01"})
    spells["last_date"] = ["2020-06-30"] * 2 + ["2021-12-31"] * 6
    spells[["first_date", "last_date"]] = spells[["first_date", "last_date"]].apply(pd.to_datetime)
    vintage = make_vintage(home, awkward_bars(seed=3, instruments=10, days=420), spells)
    version = FeatureStore(settings).compute(vintage)
    write_qlib_store(settings, vintage)
    init_qlib(settings, vintage.data_version)
    return settings, vintage, version


def handler_of(stored: Stored, **kwargs: Any) -> StoreDataHandler:
    """A handler of the stored version."""
    settings, _, version = stored
    return StoreDataHandler(version.feature_version, settings=settings, **kwargs)


def test_the_handler_holds_what_the_store_holds(stored: Stored) -> None:
    """Features are those of the store and labels the forward returns, of the universe's members or as asked for."""
    settings, vintage, version = stored
    store = FeatureStore(settings)
    handler = handler_of(stored, horizons=(1, 5), start_time="2019-08-01", end_time="2020-12-31")
    features = store.load(version.feature_version, "2019-08-01", "2020-12-31", members=vintage)
    pd.testing.assert_frame_equal(handler.fetch(col_set="feature"), features)
    labels = handler.fetch(col_set="label")
    assert list(labels) == ["LABEL0", "LABEL1"]
    for name, horizon in (("LABEL0", 1), ("LABEL1", 5)):
        expected = forward_return(vintage, horizon).reindex(features.index)
        np.testing.assert_array_equal(labels[name].to_numpy(), expected.to_numpy())
    some = handler_of(stored, instruments=["I03", "I09"], columns=["MA5", "KMID"], horizons=())
    expected = store.load(version.feature_version, columns=["MA5", "KMID"], instruments=["I03", "I09"])
    pd.testing.assert_frame_equal(some.fetch(), expected)
    assert len(handler_of(stored, instruments="all", horizons=()).fetch()) == version.rows
    with pytest.raises(ConfigError, match="unknown market 'csi300'; use universe, all or a list"):
        handler_of(stored, instruments="csi300")


def test_features_and_labels_are_those_of_qlibs_own_loader(stored: Stored) -> None:
    """Qlib's loader on the vintage's store with the same expressions gives the same rows, values within 1e-4."""
    names, expressions = ["KMID", "MA5", "STD20", "ROC10"], alpha158()
    theirs = init_instance_by_config(
        {
            "class": "QlibDataLoader",
            "module_path": "qlib.data.dataset.loader",
            "kwargs": {
                "config": {
                    "feature": ([expressions[name] for name in names], names),
                    "label": ([label_expression(1)], ["LABEL0"]),
                }
            },
        }
    ).load("universe", "2019-09-01", "2020-12-31")
    ours = handler_of(stored, columns=names, start_time="2019-09-01", end_time="2020-12-31").fetch(col_set="__raw")
    theirs = theirs.loc[theirs.index.isin(ours.index)]
    assert ours.columns.tolist() == theirs.columns.tolist()
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4, atol=1e-6, check_dtype=False, check_index_type=False)


def in_place(frame: pd.DataFrame, panel: np.ndarray) -> bool:
    """Whether a frame of features is a view of the panel."""
    return np.shares_memory(frame.to_numpy(), panel)


def test_datasets_share_the_one_panel(stored: Stored) -> None:
    """Segments, time series and the frames for inference and learning are views of one array, labels beside it."""
    learn = [{"class": "CSRankNorm", "kwargs": {"fields_group": "label"}}]
    handler = handler_of(stored, learn_processors=learn)
    panel = handler.fetch(col_set="feature", data_key="raw").to_numpy()
    assert panel.flags.c_contiguous
    dataset = DatasetH(handler, SEGMENTS)
    series = PanelTSDatasetH(handler=handler, segments=SEGMENTS, step_len=8)
    for data_key in ("infer", "learn"):
        assert in_place(handler.fetch(col_set="feature", data_key=data_key), panel)
        for segment in SEGMENTS:
            assert in_place(dataset.prepare(segment, col_set="feature", data_key=data_key), panel)
            assert in_place(dataset.prepare(segment, col_set=GROUPS, data_key=data_key)["feature"], panel)
            for col_set in (GROUPS, "__all"):
                sampler = series.prepare(segment, col_set=col_set, data_key=data_key)
                (columns, values), label = sampler.blocks
                assert (columns, values.shape[1]) == (slice(0, 158), 158)
                assert np.shares_memory(values, panel)
                assert label[1].shape[1] == 1
    raw, ranked = (handler.fetch(col_set="label", data_key=key)["LABEL0"] for key in ("infer", "learn"))
    assert not raw.equals(ranked)


@pytest.mark.parametrize("name", PROCESSORS)
def test_time_series_are_those_of_qlibs_dataset(stored: Stored, name: str) -> None:
    """Each segment's samples equal those of Qlib's own TSDatasetH on the same handler, which survives that."""
    infer, learn = PROCESSORS[name]
    fitted = {"fit_start_time": SEGMENTS["train"][0], "fit_end_time": SEGMENTS["train"][1]}
    columns = ["MA5", "KMID", "STD20"]
    handler = handler_of(stored, columns=columns, infer_processors=infer, learn_processors=learn, **fitted)
    both = [kind(handler=handler, segments=SEGMENTS, step_len=5) for kind in (TSDatasetH, PanelTSDatasetH)]
    for segment in SEGMENTS:
        for data_key in ("infer", "learn"):
            theirs, ours = (each.prepare(segment, col_set=GROUPS, data_key=data_key) for each in both)
            for each in (theirs, ours):
                each.config(fillna_type="ffill+bfill")
            pd.testing.assert_index_equal(ours.get_index(), theirs.get_index(), exact=False)
            some = np.arange(len(theirs))
            np.testing.assert_array_equal(ours[some], theirs[some])


def test_time_series_can_be_filtered_by_a_column(stored: Stored) -> None:
    """`flt_col` leaves out samples, not the steps of others, as in Qlib."""
    frame = handler_of(stored, columns=["MA5", "KMID"]).fetch(col_set="__raw")
    frame[("keep", "KEEP")] = np.random.default_rng(0).random(len(frame)) > 0.5
    handler = PanelDataHandler(data_loader=StaticDataLoader(frame))
    theirs, ours = (
        kind(handler=handler, segments=SEGMENTS, step_len=5, flt_col="keep").prepare("train", col_set=GROUPS)
        for kind in (TSDatasetH, PanelTSDatasetH)
    )
    assert 0 < len(ours) == len(theirs) < len(frame.loc["2019-07-01":"2020-03-31"])
    some = np.arange(len(ours))
    np.testing.assert_array_equal(ours[some], theirs[some])


def test_processors_are_fitted_on_the_training_segment_only(stored: Stored) -> None:
    """Configured as in a Qlib file, the robust z-score takes median and deviation from the rows of train."""
    dataset = init_instance_by_config(config_of(stored, [ROBUST], []))
    handler = dataset.handler
    raw = handler.fetch(col_set="feature", data_key="raw")
    train = raw.loc[slice(*SEGMENTS["train"])]
    median = train.median()
    scale = (train - median).abs().median() * 1.4826
    expected = ((raw - median) / scale).clip(-3, 3)
    found = dataset.prepare("test", col_set="feature")
    np.testing.assert_allclose(
        found.to_numpy(), expected.loc[slice(*SEGMENTS["test"])].to_numpy(), rtol=1e-4, atol=1e-4
    )
    later = raw.loc[slice(*SEGMENTS["test"])].median()
    assert not np.allclose(median, later, rtol=1e-3, equal_nan=True)


def config_of(
    stored: Stored, infer: Sequence[Any], learn: Sequence[Any], step_len: int | None = None
) -> dict[str, Any]:
    """A dataset as a Qlib configuration file writes it."""
    settings, vintage, version = stored
    handler = {
        "class": "StoreDataHandler",
        "module_path": "mlops_tasks.features.qlib_handler",
        "kwargs": {
            "feature_version": version.feature_version,
            "data_version": vintage.data_version,
            "columns": ["KMID", "MA5", "ROC10", "STD20"],
            "infer_processors": [*infer],
            "learn_processors": [*learn],
            "fit_start_time": SEGMENTS["train"][0],
            "fit_end_time": SEGMENTS["train"][1],
            "settings": settings,
        },
    }
    if step_len is None:
        kwargs = {"handler": handler, "segments": SEGMENTS}
        return {"class": "DatasetH", "module_path": "qlib.data.dataset", "kwargs": kwargs}
    kwargs = {"handler": handler, "segments": SEGMENTS, "step_len": step_len}
    return {"class": "PanelTSDatasetH", "module_path": "mlops_tasks.features.qlib_handler", "kwargs": kwargs}


def test_a_handler_that_was_pickled_loads_its_data_again(stored: Stored, tmp_path: Path) -> None:
    """Qlib keeps a handler without data; read back, it loads the same rows, with its processors as they were fitted."""
    fitted = {"fit_start_time": SEGMENTS["train"][0], "fit_end_time": SEGMENTS["train"][1]}
    handler = handler_of(stored, columns=["MA5", "KMID"], infer_processors=[ROBUST], **fitted)
    handler.to_pickle(tmp_path / "handler.pkl")
    again = StoreDataHandler.load(tmp_path / "handler.pkl")
    again.setup_data(init_type="load_state")
    pd.testing.assert_frame_equal(again.fetch(), handler.fetch())


MODELS = {
    "qlib.contrib.model.gbdt.LGBModel": {"num_boost_round": 5, "num_threads": 1, "seed": 1},
    "qlib.contrib.model.linear.LinearModel": {"estimator": "ols"},
    "qlib.contrib.model.pytorch_lstm_ts.LSTM": {
        "d_feat": 4, "hidden_size": 4, "num_layers": 1, "n_epochs": 2, "n_jobs": 0, "GPU": -1, "seed": 1,
        "batch_size": 200,
    },
}  # fmt: skip


@pytest.mark.parametrize("path", MODELS)
def test_qlibs_models_learn_from_it(stored: Stored, path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tree, a linear and a recurrent model train on it, and score as they do on Qlib's own handler and dataset."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qlib.contrib.model.gbdt.R", SimpleNamespace(log_metrics=lambda **_: None))  # no experiment
    module, _, name = path.rpartition(".")
    is_series = name == "LSTM"
    infer, learn = PROCESSORS["features"]
    ours = init_instance_by_config(config_of(stored, infer, learn, 4 if is_series else None))
    copied = DataHandlerLP.cast(ours.handler)
    for attribute in ("_data", "_infer", "_learn"):
        setattr(copied, attribute, getattr(ours.handler, attribute).copy())
    kind = {"step_len": 4} if is_series else {}
    theirs = (TSDatasetH if is_series else DatasetH)(handler=copied, segments=SEGMENTS, **kind)
    scores = []
    for dataset in (ours, theirs):
        model = init_instance_by_config({"class": name, "module_path": module, "kwargs": MODELS[path]})
        model.fit(dataset)
        scores.append(model.predict(dataset))
    assert np.isfinite(scores[0]).all()
    assert scores[0].nunique() > 10
    pd.testing.assert_series_equal(scores[0], scores[1], rtol=1e-5, check_index_type=False)


PEAK = """
import sys, tracemalloc
from pathlib import Path
import numpy as np, pandas as pd, pyarrow as pa
from qlib.data.dataset import DatasetH
from mlops_tasks.config import Settings
from mlops_tasks.features.qlib_handler import StoreDataHandler, PanelTSDatasetH
home, version = Path(sys.argv[1]), sys.argv[2]
settings = Settings(home=home)
# Imports and compiled code:
StoreDataHandler(version, start_time="2020-06-01", end_time="2020-06-01", settings=settings)
days = {"train": ("2019-07-01", "2020-03-31"), "test": ("2020-04-06", "2021-12-31")}
rank = [{"class": "CSRankNorm", "kwargs": {"fields_group": "label"}}]
tracemalloc.start()
handler = StoreDataHandler(version, learn_processors=rank, settings=settings)
panel = handler.fetch(col_set="feature").to_numpy().nbytes
dataset = DatasetH(handler, days)
frames = dataset.prepare([*days], col_set=["feature", "label"], data_key="learn")
series = PanelTSDatasetH(handler=handler, segments=days, step_len=20)
samplers = series.prepare([*days], col_set=["feature", "label"], data_key="learn")
for sampler in samplers:
    sampler.config(fillna_type="ffill+bfill")
    for begin in range(0, len(sampler), 100):
        sampler[np.arange(begin, min(begin + 100, len(sampler)))]
print((tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory()) / panel)
"""


def test_the_panel_is_held_once(tmp_path: Path) -> None:
    """Store, handler, both datasets and all samples together allocate little more at most than the features take."""
    bars = awkward_bars(seed=3, instruments=8, days=420)
    many = pd.concat([bars.assign(instrument=bars["instrument"] + f"_{copy:02d}") for copy in range(30)])
    vintage = make_vintage(tmp_path, many.sort_values(["instrument", "datetime"], ignore_index=True))
    version = FeatureStore(Settings(home=tmp_path)).compute(vintage)
    run = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path), version.feature_version],
        check=True,
        capture_output=True,
        text=True,
    )
    assert 1 < float(run.stdout.splitlines()[-1]) < 1.6
