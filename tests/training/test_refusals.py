"""What cannot be learned from is refused before anything is trained, with the key and the remedy."""

import dataclasses
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.data.sources.membership import FIRST_DATE, LAST_DATE
from mlops_tasks.errors import ConfigError
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.dataset import LearningData
from mlops_tasks.training.checks import check_dates, check_labels
from mlops_tasks.training.engine import UnifiedQlibTrainingEngine
from mlops_tasks.training.events import read_events, runs
from mlops_tasks.training.plan import RunPlan, make_plan, rolling_segments
from tests.features.market import awkward_bars, make_vintage
from tests.features.small_sets import SETS
from tests.planted import Shape, plant
from tests.training.descent import SmallMarket

CALENDAR = pd.bdate_range("2020-01-01", periods=200)
PURGED = 2
"""Days without a label at the end of train and valid, for a horizon of 1."""


def data(shape: Shape | None = None) -> LearningData:
    """Planted data, purged for a horizon of 1."""
    made = plant("linear", shape or Shape(days=100, instruments=5, features=2)).data
    label = made.label.copy()
    for name in ("train", "valid"):
        days = made.label.index[made.rows(name)].get_level_values("datetime").unique()
        label[label.index.isin(days[-PURGED:], level="datetime")] = np.nan
    newest = made.label.index.get_level_values("datetime").unique()[-PURGED:]
    label[label.index.isin(newest, level="datetime")] = np.nan
    return dataclasses.replace(made, label=label)


def calendar_of(given: LearningData) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(given.label.index.get_level_values("datetime").unique())


def check(given: LearningData, horizon: int = 1) -> None:
    check_labels(given, horizon, calendar_of(given))


def test_purged_data_are_learned_from():
    """Nothing is wrong with a planted market, whole or without its test segment."""
    check(data())
    without = {name: days for name, days in data().segments.items() if name != "test"}
    check(dataclasses.replace(data(), segments=without))


@pytest.mark.parametrize("segment", ["train", "valid"])
def test_labels_that_reach_into_the_next_segment_are_refused(segment):
    """One label more than purging leaves is one from the future; so is a longer horizon than was purged for."""
    given = data()
    days = given.label.index[given.rows(segment)].get_level_values("datetime").unique()
    label = given.label.mask(given.label.index.isin(days[-PURGED : -PURGED + 1], level="datetime"), 0.01)
    following = {"train": "valid", "valid": "test"}[segment]
    with pytest.raises(ConfigError, match=rf"segments\.{segment} .*: 5 labels.*before segments\.{following} begins"):
        check(dataclasses.replace(given, label=label))
    with pytest.raises(ConfigError, match=r"segments\.train .* labels from the future; purge the segment's last days"):
        check(given, horizon=2)


def test_labels_beyond_the_last_known_day_are_refused():
    """The newest day's return is not known, whatever the data say."""
    given = data()
    label = given.label.copy()
    label.iloc[given.rows("test")] = given.label.iloc[given.rows("test")].fillna(0.0)
    with pytest.raises(ConfigError, match=r"segments\.test .*: 10 labels.*which is not known"):
        check(dataclasses.replace(given, label=label))


@pytest.mark.parametrize("segment", ["train", "valid", "test"])
def test_a_segment_without_a_label_is_refused(segment):
    """No validation rows, say."""
    given = data()
    label = given.label.copy()
    label.iloc[given.rows(segment)] = np.nan
    with pytest.raises(ConfigError, match=rf"segments\.{segment} .*: no row has a label; choose dates"):
        check(dataclasses.replace(given, label=label))


@pytest.mark.parametrize("segment", ["train", "valid"])
def test_one_class_of_instrument_cannot_be_ranked(segment):
    """A single instrument on most days, or copies of one."""
    given = data()
    rows = np.zeros(len(given.label), dtype=bool)
    rows[given.rows(segment)] = True
    alone = given.label.mask(rows & (given.label.index.get_level_values("instrument") != "S000"))
    with pytest.raises(ConfigError, match=rf"segments\.{segment} .* a single instrument has a label.*data\.universe"):
        check(dataclasses.replace(given, label=alone))
    copies = given.label.groupby(level="datetime").transform("first").where(given.label.notna())
    with pytest.raises(ConfigError, match=rf"segments\.{segment} .*: the label is constant on .* data\.universe"):
        check(dataclasses.replace(given, label=given.label.mask(rows, copies)))


def test_a_constant_label_is_refused():
    """Nothing moves, so nothing can be learned."""
    given = data()
    with pytest.raises(ConfigError, match="the label is constant on 58 of 58 days"):
        check(dataclasses.replace(given, label=given.label * 0))


def test_a_market_with_some_empty_days_is_learned_from():
    """Days of one instrument, or of none that moves, are harmless while they are few."""
    given = data()
    days = calendar_of(given)[:20]
    some = given.label.index.isin(days, level="datetime")
    check(dataclasses.replace(given, label=given.label.mask(some, given.label * 0)))


def plan(**changes: object) -> RunPlan:
    starts, ends = ((1, 1), (5, 4), (7, 2)), ((5, 1), (7, 1), (10, 6))
    days = [(date(2020, *first), date(2020, *last)) for first, last in zip(starts, ends, strict=True)]
    content = {
        "data_version": "v",
        "last_date": CALENDAR[-1].date(),
        "feature_set": "alpha158",
        "horizon": 1,
        "models": ("linear",),
        "segments": dict(zip(("train", "valid", "test"), days, strict=True)),
        "seed": 1,
        "topk": 5,
        "n_drop": 1,
    }
    return RunPlan.model_validate({**content, **changes})


@pytest.mark.parametrize(
    ("horizon", "said"),
    [
        (1, None),
        (37, None),
        (38, r"segments\.valid .*: holds 43 trading days.* 39 days ahead, so that 4 days have one, fewer than 5"),
        (60, r"segments\.valid .* 0 days have one, fewer than 5; lower horizon, or lengthen segments\.valid"),
    ],
)
def test_a_horizon_that_the_segments_cannot_hold_is_refused(horizon, said):
    """Counted in trading days that keep a label once the segment is purged."""
    if said is None:
        check_dates(plan().segments, horizon, CALENDAR)
        return
    with pytest.raises(ConfigError, match=said):
        check_dates(plan().segments, horizon, CALENDAR)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> SmallMarket:
    return SmallMarket.make(tmp_path_factory.mktemp("refusals"))


def refused(market: SmallMarket, plan: RunPlan, said: str, **changes: object) -> None:
    """The engine raises and leaves no run."""
    config = plan.config("linear").model_copy(update=changes)
    before = len(runs(market.settings))
    with pytest.raises(ConfigError, match=said):
        UnifiedQlibTrainingEngine(market.settings).start(plan, market.feature_version, config)
    assert len(runs(market.settings)) == before


def test_the_engine_refuses_before_a_process_is_started(market):
    """Whoever made the plan and the configuration."""
    train, valid, test = (market.plan.segments[name] for name in ("train", "valid", "test"))
    late = {"train": train, "valid": valid, "test": (test[0], date(2099, 1, 1))}
    refused(market, market.plan.model_copy(update={"segments": late}), r"segments\.test: ends 2099-01-01, after")
    empty = {"train": train, "valid": valid, "test": (date(2098, 1, 1), date(2099, 1, 1))}
    refused(market, market.plan.model_copy(update={"segments": empty}), r"segments\.test .*: holds 0 trading days")
    refused(market, market.plan, r"hyperparameters\.linear\.alpha: expected a number", hyperparameters={"alpha": "1"})
    refused(market, market.plan, r"hyperparameters\.linear\.alhpa: unknown", hyperparameters={"alhpa": 1})
    refused(market, market.plan, r"linear\.class_path: family linear has its own class", class_path="nowhere.x:Y")


def test_the_engine_refuses_a_configuration_outside_the_zoo_that_cannot_train(market):
    """Its family and class are known before there is a run, whatever its model is called."""
    mine = {"model": "mine", "hyperparameters": {"foo": 1}}
    refused(market, market.plan, r"models\.mine\.family: unknown family 'netwrok'; .*network", family="netwrok", **mine)
    missing = r"models\.mine\.class_path: family network needs module:Class of a torch\.nn\.Module, got None"
    refused(market, market.plan, missing, family="network", **mine)
    absent = r"models\.mine\.class_path: nowhere\.x:Y: no package 'nowhere'"
    refused(market, market.plan, absent, family="network", class_path="nowhere.x:Y", **mine)


def test_a_universe_of_one_is_refused_before_a_process_is_started(tmp_path: Path):
    """Membership says so, without a look at a single bar."""
    bars = awkward_bars(instruments=8, days=150)
    names, days = sorted(bars["instrument"].unique()), bars["datetime"]
    spells = pd.DataFrame({"instrument": names[:1], FIRST_DATE: days.min(), LAST_DATE: days.max()})
    vintage = make_vintage(tmp_path, bars, spells)
    settings = Settings(home=tmp_path)
    made = make_plan(settings, vintage.data_version, vintage.calendar(), {"models": ["linear"]})
    lonely = SmallMarket(settings, made, "f")
    refused(lonely, made, r"data\.universe: has 1 instruments in segments\.train")


def test_members_without_bars_end_the_run_with_the_segment(tmp_path: Path):
    """The membership has them, the calendar has the days, and only the loaded rows show that nobody traded."""
    bars = awkward_bars(instruments=8, days=150)
    names, days = sorted(bars["instrument"].unique())[:3], bars["datetime"]
    spells = pd.DataFrame({"instrument": names, FIRST_DATE: days.min(), LAST_DATE: days.max()})
    settings = Settings(home=tmp_path)
    calendar = pd.DatetimeIndex(sorted(days.unique()))
    first, last = rolling_segments(calendar, 1)["valid"]
    silent = bars["instrument"].isin(names) & days.between(pd.Timestamp(first), pd.Timestamp(last))
    vintage = make_vintage(tmp_path, bars[~silent].reset_index(drop=True), spells)
    made = make_plan(settings, vintage.data_version, vintage.calendar(), {"models": ["linear"]})
    feature_version = FeatureStore(settings).compute(vintage, SETS["windows"]).feature_version
    handle = UnifiedQlibTrainingEngine(settings).start(made, feature_version, "linear")
    with pytest.raises(ConfigError, match=rf"segments\.valid \({first} to {last}\): no row has a label; choose dates"):
        handle.supervise()


def test_frozen_prices_end_the_run_before_the_family_begins(tmp_path: Path):
    """What only the loaded data show is said by the training process, as the run's failure."""
    bars = awkward_bars(instruments=8, days=150)
    bars = bars.assign(**{name: 10.0 for name in ("open", "high", "low", "close", "vwap")}, factor=1.0)
    vintage, settings = make_vintage(tmp_path, bars), Settings(home=tmp_path)
    made = make_plan(settings, vintage.data_version, vintage.calendar(), {"models": ["linear"]})
    feature_version = FeatureStore(settings).compute(vintage, SETS["windows"]).feature_version
    handle = UnifiedQlibTrainingEngine(settings).start(made, feature_version, "linear")
    with pytest.raises(ConfigError, match=r"segments\.train .*: the label is constant on"):
        handle.supervise()
    events = read_events(settings, handle.run_id)
    stages = [event.payload["stage"] for event in events if event.kind == "stage"]
    assert stages == ["load"]
    assert (events[-1].kind, events[-1].payload["error"]) == ("failed", "ConfigError")
