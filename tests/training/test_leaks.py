"""The chain's own pipeline passes; a leak of each kind is caught, by the check of its part and at its very place."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from weakref import WeakSet

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import CLOSE, DATETIME, INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, canonical_bars
from mlops_tasks.features.labels import forward_return
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.dataset import LearningData, fit_processors
from mlops_tasks.modeling.learning_spec import LearningSpec
from mlops_tasks.modeling.processors import FittedProcessors
from mlops_tasks.training.leaks.checks import Check, CheckedPipeline, Processing
from mlops_tasks.training.leaks.comparison import Leak
from mlops_tasks.training.leaks.known import cut_days, known_on
from mlops_tasks.training.leaks.pipeline import FeatureReader, Pipeline, learned_labels, production, seen_features
from mlops_tasks.training.plan import RunPlan, make_plan
from tests.features.market import awkward_bars, make_vintage
from tests.features.small_sets import feature_set

ROBUST = "robust_zscore_fill_zero"
PROCESSING = Processing(features=((), (ROBUST,)), label=("CSRankNorm",))
CUTS = 3


class Market:
    """Awkward bars with a changing membership, their stored features and the pipeline over them."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        bars = awkward_bars(instruments=8, days=200)
        self._open(home, bars, changing_members(pd.DatetimeIndex(bars[DATETIME].unique()).sort_values()))

    def _open(self, home: Path, bars: pd.DataFrame, members: pd.DataFrame | None) -> None:
        self.vintage = make_vintage(home, bars, members)
        self.calendar = self.vintage.calendar()
        store = FeatureStore(self.settings)
        self.feature_version = store.compute(self.vintage).feature_version
        self.plan: RunPlan = make_plan(self.settings, self.vintage.data_version, self.calendar, {})
        definition = store.definition(self.feature_version)
        self.spec = self.plan.learning_spec(self.feature_version)
        self.pipeline = production(self.settings, self.spec, definition)
        self.cuts = cut_days(self.spec, self.calendar, CUTS)

    def check(self, pipeline: Pipeline | None = None, processing: Processing = PROCESSING) -> list[Check]:
        """All checks of a pipeline."""
        return list(
            CheckedPipeline(pipeline or self.pipeline, self.vintage, self.spec, processing, self.cuts).find_leaks()
        )

    def planted(self, leak: Callable[[pd.DataFrame, Vintage], pd.DataFrame]) -> Pipeline:
        """The pipeline with its features changed by a function of all of them and the vintage, in the store too."""

        def features(vintage: Vintage) -> FeatureReader:
            honest = self.pipeline.features(vintage)
            found = leak(honest(self.calendar[0], self.calendar[-1]), vintage)
            return lambda first, last: found.loc[first:last]

        return replace(self.pipeline, features=features, stored=features(self.vintage))


def changing_members(days: pd.DatetimeIndex) -> pd.DataFrame:
    """I00 leaves and comes back, I01 and I03 leave in the test segment, I04 joins there; the others stay."""
    spells = [
        ("I00", days[0], days[70]),
        ("I00", days[100], days[-1]),
        ("I01", days[0], days[180]),
        ("I02", days[0], days[-1]),
        ("I03", days[0], days[175]),
        ("I04", days[178], days[-1]),
        ("I05", days[0], days[-1]),
        ("I06", days[0], days[-1]),
        ("I07", days[0], days[-1]),
    ]
    return pd.DataFrame(spells, columns=["instrument", "first_date", "last_date"])


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    return Market(tmp_path_factory.mktemp("leaks"))


@pytest.fixture(scope="module")
def honest(market: Market) -> list[Check]:
    return market.check(processing=replace(PROCESSING, label=("CSRankNorm", "CSZScoreNorm")))


def failed(checks: list[Check]) -> list[Check]:
    return [check for check in checks if not check.passed]


def by_instrument(frame: pd.DataFrame) -> pd.api.typing.DataFrameGroupBy:
    return frame.groupby(level=INSTRUMENT)


def test_the_pipeline_of_the_chain_passes(market: Market, honest: list[Check]) -> None:
    """Bars with gaps, listings, splits and a changing universe: every part is the same without later data."""
    assert failed(honest) == []
    assert {check.name for check in honest} == {
        "universe", "features", "labels", "levels", "purging", "processors", "learning", "inference",
        "label_independence",
    }  # fmt: skip


def test_factors_across_the_members_of_a_day_pass(market: Market) -> None:
    """They see each day's members and bars, whatever comes later; the rank of prices depends on their level."""
    across = {"RANK": "CSRank($close/Ref($close, 5))", "SCORE": "Mean(CSZscore($high/$low), 5)"}

    def checked(expressions: dict[str, str]) -> list[Check]:
        definition = feature_set("across", expressions)
        version = FeatureStore(market.settings).compute(market.vintage, definition).feature_version
        spec = market.plan.learning_spec(version)
        pipeline = production(market.settings, spec, definition)
        return list(CheckedPipeline(pipeline, market.vintage, spec, PROCESSING, market.cuts).find_leaks())

    assert failed(checked(across)) == []
    (levels,) = {check.name for check in failed(checked({**across, "LEVEL": "CSRank($close)"}))}
    assert levels == "levels"


def test_all_rows_and_columns_up_to_each_cut_are_compared(market: Market, honest: list[Check]) -> None:
    """As many rows as there are bars up to the cut, of all 158 columns; never nothing."""
    days = market.vintage.bars(fields=())[DATETIME]
    for check in honest:
        assert check.values > 0
        if check.name == "features":
            assert (check.rows, check.columns) == (int((days <= check.cut).sum()), 158)
            assert check.values == check.rows * check.columns


def test_the_same_question_has_the_same_answer(market: Market, honest: list[Check]) -> None:
    """Counts and digests do not depend on the run."""
    assert market.check() == [check for check in honest if check.subject != "CSZScoreNorm"]


def test_a_panel_is_held_at_a_time(market: Market, honest: list[Check]) -> None:
    """That of a cut is given up before the next one's is built."""
    held: WeakSet[FeatureReader] = WeakSet()
    built: list[pd.Timestamp] = []

    def features(vintage: Vintage) -> FeatureReader:
        assert not held
        read = market.pipeline.features(vintage)
        held.add(read)
        built.append(vintage.calendar()[-1])
        return read

    checks = market.check(replace(market.pipeline, features=features))
    assert built[:CUTS] == list(market.cuts)
    assert checks == [check for check in honest if check.subject != "CSZScoreNorm"]


def test_small_spans_say_the_same(market: Market, honest: list[Check], monkeypatch: pytest.MonkeyPatch) -> None:
    """How much is compared at once changes no verdict and no count."""
    monkeypatch.setattr("mlops_tasks.training.leaks.checks.SPAN_VALUES", 158 * 50)
    again = market.check()
    assert failed(again) == []
    told = [(check.name, check.cut, check.rows, check.values) for check in honest if check.subject != "CSZScoreNorm"]
    assert [(check.name, check.cut, check.rows, check.values) for check in again] == told


# A window around the row's day.


def centred(width: int, column: str) -> Callable[[pd.DataFrame, Vintage], pd.DataFrame]:
    def leak(features: pd.DataFrame, vintage: Vintage) -> pd.DataFrame:
        smooth = by_instrument(features[[column]]).transform(
            lambda x: x.rolling(width, center=True, min_periods=1).mean()
        )
        return features.assign(**{column: smooth[column].astype(np.float32)})

    return leak


@pytest.mark.parametrize(("width", "column"), [(3, "KMID"), (21, "ROC5")])
def test_a_centred_window_is_caught(market: Market, width: int, column: str) -> None:
    """The window reaches (width - 1) / 2 rows ahead; only rows so near a cut differ, in that column only."""
    found = failed(market.check(market.planted(centred(width, column))))
    assert {(check.name, check.cut) for check in found} == {("features", str(day.date())) for day in market.cuts}
    for check in found:
        seen = check.difference
        assert seen is not None
        assert seen.looks_like == Leak.CENTRED_WINDOW
        assert list(seen.columns) == [seen.column] == [column]
        day = market.calendar.get_loc(pd.Timestamp(check.cut))
        reach = day - market.calendar.get_loc(pd.Timestamp(seen.date)) + 1
        assert reach >= 1
        assert seen.values <= 8 * (width // 2)


def test_the_first_difference_is_the_planted_one(market: Market) -> None:
    """One instrument on one day sees the next close: the report names them, and both values."""
    day, name = market.cuts[1], "I05"
    after = market.calendar[market.calendar.get_loc(day) + 1]

    def leak(features: pd.DataFrame, vintage: Vintage) -> pd.DataFrame:
        close = vintage.adjusted_bars(fields=(CLOSE,)).set_index([DATETIME, INSTRUMENT])[CLOSE]
        features = features.copy()
        features.loc[(day, name), "KLEN"] = np.float32(close.get((after, name), -1.0))
        return features

    (check,) = failed(market.check(market.planted(leak)))
    close = market.vintage.adjusted_bars(after, after, fields=(CLOSE,)).set_index(INSTRUMENT)[CLOSE]
    seen = check.difference
    assert seen is not None
    assert (check.name, check.cut) == ("features", str(day.date()))
    assert (seen.column, seen.instrument, seen.date, seen.values) == ("KLEN", name, str(day.date()), 1)
    assert (seen.with_future, seen.without) == (pytest.approx(close[name], rel=1e-6), -1.0)
    assert f"KLEN of {name} on {day.date()} is" in str(check)
    assert seen.remedy in str(check)


# A statistic of all rows.


def test_a_normalisation_over_all_rows_is_caught(market: Market) -> None:
    """A z-score by the mean and spread of the whole sample differs from the first day on."""

    def leak(features: pd.DataFrame, vintage: Vintage) -> pd.DataFrame:
        return (features - features.mean()) / features.std()

    found = [check for check in failed(market.check(market.planted(leak))) if check.name == "features"]
    assert len(found) == CUTS
    for check in found:
        assert check.difference is not None
        assert check.difference.looks_like == Leak.FULL_SAMPLE
        assert check.difference.n_columns > 150
        assert pd.Timestamp(check.difference.date) <= market.calendar[5]


def test_a_maximum_over_the_sample_of_one_instrument_is_caught(market: Market) -> None:
    """A single column of a single instrument, divided by its largest value ever."""
    name = "I06"

    def leak(features: pd.DataFrame, vintage: Vintage) -> pd.DataFrame:
        close = vintage.adjusted_bars(fields=(CLOSE,)).set_index([INSTRUMENT, DATETIME])[CLOSE].loc[name]
        features = features.copy()
        rows = features.index.get_level_values(INSTRUMENT) == name
        features.loc[rows, "MA5"] = features.loc[rows, "MA5"] / (1 + np.float32(close.sum()))
        return features

    found = failed(market.check(market.planted(leak)))
    assert {check.name for check in found} == {"features"}
    assert {(check.difference.column, check.difference.instrument) for check in found} == {("MA5", name)}
    assert {check.difference.looks_like for check in found} == {Leak.FULL_SAMPLE}


def fit_on_everything(data: LearningData, names: tuple[str, ...]) -> FittedProcessors:
    return FittedProcessors.fit(names, data.features.to_numpy())


def fit_on_valid_too(data: LearningData, names: tuple[str, ...]) -> FittedProcessors:
    return FittedProcessors.fit(names, data.features.iloc[: data.rows("valid").stop].to_numpy())


def fit_one_column_on_everything(data: LearningData, names: tuple[str, ...]) -> FittedProcessors:
    fitted, late = fit_processors(data, names), fit_on_everything(data, names)
    if fitted.scale is None or late.scale is None:
        return fitted
    scale = fitted.scale.copy()
    scale[7] = late.scale[7]
    return replace(fitted, scale=scale)


@pytest.mark.parametrize("fit", [fit_on_everything, fit_on_valid_too, fit_one_column_on_everything])
def test_processors_that_are_fitted_on_later_rows_are_caught(
    market: Market, fit: Callable[..., FittedProcessors]
) -> None:
    """Medians and spreads of more than the training segment: the check of the fitted numbers, and only that one."""
    (check,) = failed(market.check(replace(market.pipeline, fit=fit)))
    assert (check.name, check.subject, check.cut) == ("processors", ROBUST, str(market.cuts[0].date()))
    assert check.difference is not None
    assert check.difference.looks_like == Leak.FULL_SAMPLE
    assert check.difference.instrument in {"centre", "scale"}
    if fit is fit_one_column_on_everything:
        eighth = FeatureStore(market.settings).get(market.feature_version).names[7]
        assert check.difference.columns == {eighth: 1}


def test_a_normalisation_at_inference_over_all_rows_is_caught(market: Market) -> None:
    """What a model sees is scaled by the mean of all rows that there are, later ones included."""

    def seen(data: LearningData, processors: FittedProcessors, rows: slice) -> pd.DataFrame:
        return seen_features(data, processors, rows) - data.features["KMID"].mean()

    found = failed(market.check(replace(market.pipeline, seen=seen)))
    assert {check.name for check in found} == {"inference"}
    assert {check.difference.looks_like for check in found} == {Leak.FULL_SAMPLE}


def test_a_label_normalised_over_all_rows_is_caught(market: Market) -> None:
    """The learned label is divided by the spread of all labels, those of later days included."""

    def learned(data: LearningData, label_processor: str) -> pd.DataFrame:
        return learned_labels(data, label_processor) / data.label.std()

    found = failed(market.check(replace(market.pipeline, learned=learned)))
    assert {check.name for check in found} == {"learning"}
    assert {check.subject for check in found} == set(PROCESSING.label)


# What needs a label, applied to what is to be predicted.


def rows_with_a_label(data: LearningData, processors: FittedProcessors, rows: slice) -> pd.DataFrame:
    seen = seen_features(data, processors, rows)
    return seen[data.label.iloc[rows].notna().to_numpy()]


def label_as_a_feature(data: LearningData, processors: FittedProcessors, rows: slice) -> pd.DataFrame:
    label = data.label.iloc[rows]
    by_day = label.groupby(level=DATETIME)
    score = ((label - by_day.transform("mean")) / by_day.transform("std")).astype(np.float32)
    return seen_features(data, processors, rows).assign(KLOW=score)


def outliers_without(data: LearningData, processors: FittedProcessors, rows: slice) -> pd.DataFrame:
    seen = seen_features(data, processors, rows)
    return seen[~(data.label.iloc[rows] > data.label.quantile(0.999)).to_numpy()]


@pytest.mark.parametrize("seen", [rows_with_a_label, label_as_a_feature, outliers_without])
def test_a_label_processor_at_inference_is_caught(market: Market, seen: Callable[..., pd.DataFrame]) -> None:
    """Rows without a label dropped, the label's z-score as a column, rows with the largest labels dropped."""
    found = failed(market.check(replace(market.pipeline, seen=seen)))
    assert found[0].name == "label_independence"
    assert {check.name for check in found} <= {"label_independence", "inference"}
    assert {check.difference.looks_like for check in found} == {Leak.LABEL_AT_INFERENCE}
    if seen is label_as_a_feature:
        assert {check.difference.column for check in found} == {"KLOW"}
    else:
        assert all(check.difference.rows for check in found if check.name == "label_independence")


# A later value, joined to an earlier row.


@pytest.mark.parametrize("ahead", [1, 5])
def test_a_join_of_a_later_value_is_caught(market: Market, ahead: int) -> None:
    """A column of the value so many rows later: missing at the cut on that many last rows of each instrument."""

    def leak(features: pd.DataFrame, vintage: Vintage) -> pd.DataFrame:
        return features.assign(STD5=by_instrument(features["STD5"]).shift(-ahead))

    found = failed(market.check(market.planted(leak)))
    assert {(check.name, check.cut) for check in found} == {("features", str(day.date())) for day in market.cuts}
    for check in found:
        assert check.difference is not None
        assert check.difference.looks_like == Leak.FUTURE_JOIN
        assert list(check.difference.columns) == ["STD5"]
        assert check.difference.without is None
        assert check.difference.values <= 8 * ahead


def test_a_join_by_the_newest_known_value_is_caught(market: Market) -> None:
    """A figure that is known at the end of a month, joined to all days of that month."""

    def leak(features: pd.DataFrame, vintage: Vintage) -> pd.DataFrame:
        month = features.index.get_level_values(DATETIME).strftime("%Y%m")
        figure = features["KMID"].groupby([month, features.index.get_level_values(INSTRUMENT)]).transform("last")
        return features.assign(KUP2=figure)

    found = failed(market.check(market.planted(leak)))
    assert {check.name for check in found} == {"features"}
    assert {check.difference.column for check in found} == {"KUP2"}


# Gaps filled from what comes after them.


def test_a_backfill_of_a_column_is_caught(market: Market) -> None:
    """Some values around a cut are missing and filled by the next ones; two rows are enough."""
    day, name = market.cuts[1], "I04"
    place = market.calendar.get_loc(day)
    gap = market.calendar[place - 1 : place + 2]

    def leak(features: pd.DataFrame, vintage: Vintage) -> pd.DataFrame:
        features = features.copy()
        for each in gap.intersection(vintage.calendar()):
            features.loc[(each, name), "KMID"] = np.nan
        return features.assign(KMID=by_instrument(features["KMID"]).bfill())

    (check,) = failed(market.check(market.planted(leak)))
    seen = check.difference
    assert seen is not None
    assert (check.name, check.cut, seen.looks_like) == ("features", str(day.date()), Leak.BACKFILL)
    assert (seen.column, seen.instrument, seen.without) == ("KMID", name, None)
    assert seen.date == str(gap[0].date())
    assert seen.values == 2


def test_a_backfill_of_prices_is_caught(market: Market) -> None:
    """Volume that is 0 in a suspension counts as missing and is filled by the first one afterwards."""
    day = market.cuts[1]

    def leak(features: pd.DataFrame, vintage: Vintage) -> pd.DataFrame:
        bars = vintage.bars(fields=(CLOSE,)).set_index([DATETIME, INSTRUMENT]).sort_index()[CLOSE]
        days = bars.index.get_level_values(DATETIME)
        holes = bars.where(~((days >= day - pd.Timedelta(days=7)) & (days <= day)))
        filled = holes.groupby(level=INSTRUMENT).bfill().fillna(0)
        return features.assign(KMID=filled.reindex(features.index).to_numpy(np.float32))

    found = [check for check in failed(market.check(market.planted(leak))) if check.name == "features"]
    assert [check.cut for check in found] == [str(day.date())]
    assert pd.Timestamp(found[0].difference.date) >= day - pd.Timedelta(days=7)


# A universe of those that are members in the end.


def test_the_members_of_the_last_day_as_universe_are_caught(market: Market) -> None:
    """I01 and I03 leave in the test segment and I04 joins there, so that yesterday's universe is another one."""

    def universe(vintage: Vintage, index: pd.MultiIndex) -> np.ndarray:
        spells = vintage.members()
        names = spells.loc[spells["last_date"] >= pd.Timestamp(vintage.last_date), INSTRUMENT]
        return np.asarray(index.get_level_values(INSTRUMENT).isin(names))

    found = failed(market.check(replace(market.pipeline, universe=universe)))
    assert {check.name for check in found} == {"universe"}
    assert found[0].difference.looks_like == Leak.SURVIVORSHIP
    assert found[0].difference.instrument == "I03"
    assert (found[0].difference.with_future, found[0].difference.without) == (0.0, 1.0)


def test_features_of_survivors_only_are_caught(market: Market) -> None:
    """Rows of instruments that have no bar on the last day are left out; one that ends is enough."""

    def leak(features: pd.DataFrame, vintage: Vintage) -> pd.DataFrame:
        days = features.index.get_level_values(DATETIME)
        alive = features.index[days == days.max()].get_level_values(INSTRUMENT)
        return features[features.index.get_level_values(INSTRUMENT).isin(alive)]

    found = [check for check in failed(market.check(market.planted(leak))) if check.name == "features"]
    assert found
    assert {check.difference.looks_like for check in found} == {Leak.SURVIVORSHIP}
    gone = set(market.vintage.bars(fields=(), end=market.cuts[0])[INSTRUMENT]) - set(
        market.vintage.bars(fields=(), start=market.calendar[-1])[INSTRUMENT]
    )
    assert found[0].difference.instrument in gone


def test_a_single_member_too_early_is_caught(market: Market) -> None:
    """I04 counts as a member before the day on which it joins, once it is known that it will."""

    def universe(vintage: Vintage, index: pd.MultiIndex) -> np.ndarray:
        joined = vintage.members()[INSTRUMENT].isin(["I04"]).any()
        return vintage.membership_mask(index) | ((index.get_level_values(INSTRUMENT) == "I04") & joined)

    found = failed(market.check(replace(market.pipeline, universe=universe)))
    assert {check.name for check in found} == {"universe"}
    assert {check.difference.instrument for check in found} == {"I04"}


# Instruments that are listed later, and two listings of one company.


class Listings(Market):
    """I08 is the second listing of I00's company, at the same prices; it and I09 begin in the test segment."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        bars = awkward_bars(instruments=8, days=200)
        days = pd.DatetimeIndex(bars[DATETIME].unique()).sort_values()
        first = bars[bars[INSTRUMENT] == "I00"]
        late = [
            first[first[DATETIME] >= days[day]].assign(instrument=name) for name, day in (("I08", 165), ("I09", 170))
        ]
        self._open(home, canonical_bars(pd.concat([bars, *late])), None)


@pytest.fixture(scope="module")
def listings(tmp_path_factory: pytest.TempPathFactory) -> Market:
    return Listings(tmp_path_factory.mktemp("listings"))


def test_two_listings_and_later_ones_pass_by_themselves(listings: Market) -> None:
    """That an instrument begins after a cut is no leak."""
    assert failed(listings.check()) == []


def twin_of_tomorrow(features: pd.DataFrame, vintage: Vintage) -> pd.DataFrame:
    """I00 sees the return that its second listing has on the next day, which in another time zone is the same one."""
    second = features["KMID"].xs("I08", level=INSTRUMENT).shift(-1)
    return _set(features, "I00", second)


def twin_before_its_listing(features: pd.DataFrame, vintage: Vintage) -> pd.DataFrame:
    """I00 has a flag from the first day on that it will have a second listing."""
    listed = "I08" in set(features.index.get_level_values(INSTRUMENT))
    return _set(features, "I00", pd.Series(float(listed), features.index.levels[0]))


def number_of_listings(features: pd.DataFrame, vintage: Vintage) -> pd.DataFrame:
    """Each value is divided by the number of instruments that there ever are."""
    return features.assign(KMID=(features["KMID"] / np.float32(len(vintage.instrument_names()))).astype(np.float32))


def rank_among_all(features: pd.DataFrame, vintage: Vintage) -> pd.DataFrame:
    """The rank of an instrument's mean among all, those that are listed later too."""
    rank = features["KMID"].groupby(level=INSTRUMENT).mean().rank(pct=True)
    names = features.index.get_level_values(INSTRUMENT)
    return features.assign(KMID=rank.reindex(names).to_numpy(np.float32))


def _set(features: pd.DataFrame, name: str, values: pd.Series) -> pd.DataFrame:
    features = features.copy()
    rows = features.index.get_level_values(INSTRUMENT) == name
    days = features.index.get_level_values(DATETIME)[rows]
    features.loc[rows, "KMID"] = values.reindex(days).to_numpy(np.float32)
    return features


@pytest.mark.parametrize("leak", [twin_before_its_listing, number_of_listings, rank_among_all])
def test_what_knows_of_later_listings_is_caught(listings: Market, leak: Callable[..., pd.DataFrame]) -> None:
    """At the cuts before the listing, from the first day on."""
    found = failed(listings.check(listings.planted(leak)))
    assert {check.name for check in found} == {"features"}
    assert {str(day.date()) for day in listings.cuts[:2]} <= {check.cut for check in found}
    assert {check.difference.column for check in found if check.difference} == {"KMID"}


def test_a_second_listing_of_tomorrow_is_caught(listings: Market) -> None:
    """At the cut after both are listed, in the first one's row on its last day."""

    def leak(features: pd.DataFrame, vintage: Vintage) -> pd.DataFrame:
        known = "I08" in set(features.index.get_level_values(INSTRUMENT))
        return twin_of_tomorrow(features, vintage) if known else _set(features, "I00", pd.Series(dtype=float))

    found = failed(listings.check(listings.planted(leak)))
    (last,) = [check for check in found if check.cut == str(listings.cuts[-1].date())]
    assert (last.difference.instrument, last.difference.date, last.difference.values) == ("I00", last.cut, 1)


def test_one_listing_a_company_chosen_by_later_ones_is_caught(listings: Market) -> None:
    """I00 is left out of the universe from the first day on because its company has another listing in the end."""

    def universe(vintage: Vintage, index: pd.MultiIndex) -> np.ndarray:
        doubled = ["I00"] if "I08" in vintage.instrument_names() else []
        return vintage.membership_mask(index) & ~index.get_level_values(INSTRUMENT).isin(doubled)

    found = failed(listings.check(replace(listings.pipeline, universe=universe)))
    assert [(check.name, check.cut) for check in found] == [("universe", str(day.date())) for day in listings.cuts[:2]]
    assert {check.difference.instrument for check in found if check.difference} == {"I00"}


# Labels.


def test_a_label_that_reaches_further_than_its_horizon_is_caught(market: Market) -> None:
    """A label of 6 days in place of 1 is not known when it should be."""
    pipeline = replace(market.pipeline, label=lambda vintage: forward_return(vintage, market.plan.horizon + 5))
    found = failed(market.check(pipeline))
    labels = [check for check in found if check.name == "labels"]
    assert len(labels) == CUTS
    assert {check.difference.looks_like for check in labels} == {Leak.LABEL_REACH}
    assert {check.difference.without for check in labels} == {None}


def test_unknown_labels_that_are_filled_are_caught(market: Market) -> None:
    """A label of 0 where the closes are not known yet."""
    pipeline = replace(market.pipeline, label=lambda vintage: forward_return(vintage, 1).fillna(0.0))
    found = failed(market.check(pipeline))
    assert {check.name for check in found if check.difference.looks_like == Leak.LABEL_REACH} == {"labels"}


def test_labels_that_reach_into_the_next_segment_are_caught(market: Market) -> None:
    """Without purging, the last two days of train and valid have labels from the segment after."""

    def unpurged(
        features: pd.DataFrame, label: pd.Series, spec: LearningSpec, calendar: pd.DatetimeIndex
    ) -> LearningData:
        data = market.pipeline.learning_data(features, label, spec, calendar)
        return replace(data, label=label.reindex(features.index))

    (check,) = [
        c for c in failed(market.check(replace(market.pipeline, learning_data=unpurged))) if c.name == "purging"
    ]
    days = market.calendar[market.calendar <= pd.Timestamp(market.plan.segments["train"][1])]
    assert check.difference.looks_like == Leak.UNPURGED
    assert check.difference.date == str(days[-2].date())


# What a check is worth.


def test_nothing_to_compare_is_a_failure(market: Market) -> None:
    """Parts that are empty are equal, and prove nothing."""
    nobody = replace(market.pipeline, learned=lambda data, name: learned_labels(data, name).iloc[:0])
    found = failed(market.check(nobody))
    assert {check.name for check in found} == {"learning"}
    assert all(check.difference is None and "nothing to compare" in str(check) for check in found)
    unfitted = replace(market.pipeline, fit=lambda data, names: FittedProcessors())
    assert {check.name for check in failed(market.check(unfitted))} == {"processors"}


def test_one_bit_is_enough(market: Market) -> None:
    """The smallest difference that a float32 can have, in one value that hangs on how many days there are."""

    def leak(features: pd.DataFrame, vintage: Vintage) -> pd.DataFrame:
        features = features.copy()
        column = features["KSFT"].to_numpy(copy=True)
        if vintage.last_date == market.vintage.last_date:
            column[100] = np.nextafter(column[100], np.float32(np.inf))
        return features.assign(KSFT=column)

    found = failed(market.check(market.planted(leak)))
    assert [check.name for check in found] == ["features"] * CUTS
    assert {check.difference.values for check in found} == {1}


# The days of the cuts, and what was known on them.


def test_cuts_are_where_knowledge_must_end_and_leave_a_future(market: Market) -> None:
    """The last days of train and valid, then days up to the one before the newest."""
    last = {name: pd.Timestamp(days[1]) for name, days in market.plan.segments.items()}
    assert list(market.cuts) == [last["train"], last["valid"], market.calendar[-2]]
    for count in range(1, 21):
        cuts = cut_days(market.spec, market.calendar, count)
        assert len(cuts) == count
        assert cuts.is_monotonic_increasing
        assert cuts.is_unique
        assert cuts[0] == last["train"]
        assert cuts[-1] < market.calendar[-1]


def test_a_known_vintage_holds_nothing_of_later_days(market: Market) -> None:
    """Bars, calendar, names and membership end at the cut; up to it they are the whole vintage's."""
    for day in market.calendar[[0, 50, 120, 198]]:
        known = known_on(market.vintage, day)
        bars = market.vintage.bars()
        pd.testing.assert_frame_equal(known.bars(), bars[bars[DATETIME] <= day].reset_index(drop=True))
        pd.testing.assert_frame_equal(known.bars(end=market.calendar[-1]), known.bars())
        assert known.calendar()[-1] == day
        assert set(known.instrument_names()) == set(known.bars()[INSTRUMENT])
        assert (known.rows, known.instruments) == (len(known.bars()), len(known.instrument_names()))
        spells = known.members()
        assert (spells["first_date"] <= day).all()
        assert (spells["last_date"] <= day).all()
        index = pd.MultiIndex.from_frame(known.bars(fields=()))
        np.testing.assert_array_equal(known.membership_mask(index), market.vintage.membership_mask(index))
