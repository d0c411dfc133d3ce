"""One verdict a day: quiet on quiet days, planted errors found, and what it is made of equal to plain NumPy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.config import DriftSettings, SyntheticSettings
from mlops_tasks.data.sources.synthetic import synthetic_bars
from mlops_tasks.monitoring.bands import reference_bands
from mlops_tasks.monitoring.summaries import MARGINAL, STATISTICS, DailySummaries, Norms, daily_summaries
from tests.monitoring.planted_drift import (
    PRICES,
    Watch,
    bar_errors,
    column_errors,
    features_of_bars,
    stationary_columns,
    stationary_watches,
    wrong_bars,
)


def test_a_days_summaries_equal_numpy() -> None:
    """Missing share, median, spread, tails and extremes of one day, infinite values missing, with the formulas."""
    values = np.array([3.0, 1.0, np.nan, 2.0, 5.0, np.inf, 400.0])
    index = pd.MultiIndex.from_product(
        [[pd.Timestamp("2024-01-02")], list("abcdefg")], names=["datetime", "instrument"]
    )
    result = daily_summaries(pd.DataFrame({"x": values}, index), Norms(np.array([1.0]), np.eye(1)))
    low, median, high = 2.0, 3.0, 5.0  # of 1, 2, 3, 5, 400
    middle = 2.0  # of the distances 0, 1, 2, 2, 397
    distance = np.abs(np.array([1, 2, 3, 5, 400]) - median) / (2 * middle)
    expected = [2 / 7, median, np.log(high - low), np.log1p(distance).mean(), 1 / 5]
    np.testing.assert_allclose(result.values[0, 0, :MARGINAL], expected, rtol=1e-12)


def test_errors_do_not_hide_in_the_spread_that_they_make() -> None:
    """Three tenths of a day's rows in a unit error move its upper quartile far up: they are extreme all the same."""
    values = np.random.default_rng(9).permutation(np.r_[np.linspace(0.2, 1.0, 70), np.linspace(20, 100, 30)])
    index = pd.MultiIndex.from_product([[pd.Timestamp("2024-01-02")], range(100)], names=["datetime", "instrument"])
    result = daily_summaries(pd.DataFrame({"x": values}, index), Norms(np.array([0.4]), np.eye(1)))
    assert result.values[0, 0, STATISTICS.index("extremes")] == pytest.approx(0.3)


def test_what_wanders_in_training_hides_no_other_error() -> None:
    """A column whose level was elsewhere for two months widens what levels may do, and not what counts as extreme."""
    (watch,) = stationary_watches(1, DriftSettings())
    reference = daily_summaries(watch.frame.loc[: watch.later.days[watch.first - 1]])
    wandering = reference.values.copy()
    wandering[-40:, 0, STATISTICS.index("level")] += 30.0
    bands = reference_bands(replace(reference, values=wandering), (1, watch.span), 0.03)
    rows = watch.rows(watch.days(1)[0]).copy()
    newest = np.flatnonzero(rows.index.get_level_values("datetime") == rows.index[-1][0])
    rows.iloc[newest[:12], rows.columns.get_loc("F5")] *= 100.0
    table = bands.exceedance(daily_summaries(rows, bands.norms))
    assert table.loc["F5", "exceedance"] > 1


def test_a_common_move_changes_the_level_alone() -> None:
    """The same shift of all instruments leaves spread, tails and extremes as they are."""
    frame = stationary_columns(0, 30, 50)[["F0"]]
    before = daily_summaries(frame)
    after = daily_summaries(frame + 7.0, before.norms)
    moved = after.values - before.values
    assert moved[:, 0, STATISTICS.index("level")] == pytest.approx(7.0)
    np.testing.assert_allclose(np.delete(moved, STATISTICS.index("level"), axis=2), 0.0, atol=1e-9)


def test_summaries_survive_their_file(tmp_path: Path) -> None:
    """What was written is read, to the last bit."""
    made = daily_summaries(stationary_columns(1, 20, 10))
    made.save(tmp_path / "days.npz")
    read = DailySummaries.load(tmp_path / "days.npz")
    assert read.days.equals(made.days) and read.columns == made.columns
    np.testing.assert_array_equal(read.values, made.values)
    np.testing.assert_array_equal(read.norms.scales, made.norms.scales)
    np.testing.assert_array_equal(read.norms.correlations, made.norms.correlations)


def test_quiet_years_are_quiet_and_unit_errors_are_found() -> None:
    """Six stationary markets: at most 5% of the year's days alert; each column's error of 100 in a fifth of a window's
    rows is found in at least 95%, by that column's name."""
    rng = np.random.default_rng(5)
    alerts, found = [], []
    for watch in stationary_watches(6, DriftSettings()):
        alerts.append(watch.farthest(watch.days(252)[::4]) >= 1)
        found += [column_errors(watch, place, watch.span, rng) >= 1 for place in watch.days(3)]
    assert np.mean(alerts) <= 0.05
    assert pd.concat(found).mean() >= 0.95


def test_alpha158_is_quiet_until_bars_are_wrong(tmp_path: Path) -> None:
    """On the synthetic market's features: a quiet year, and a fifth of the newest bars in a unit error is found."""
    bars = synthetic_bars(SyntheticSettings(instruments=40, days=800))
    watch = Watch.of(features_of_bars(bars, tmp_path), 500, DriftSettings())
    assert np.mean(watch.farthest(watch.days(252)[::3]) >= 1) <= 0.05
    place, rng = watch.days(1)[0], np.random.default_rng(2)
    for fields in (("volume",), PRICES):
        changed = bar_errors(watch, place, wrong_bars(watch, place, bars, fields, rng), tmp_path)
        assert changed["exceedance"].max() > 1
    assert not changed["exceedance"].idxmax().startswith("V")  # of the prices
    assert watch.farthest([place])[0] < 1


def test_a_column_that_vanishes_or_moves_far_is_found() -> None:
    """No values, or all instruments a long way from where they were: level and missing, by name."""
    (watch,) = stationary_watches(1, DriftSettings())
    rows = watch.rows(watch.days(1)[0]).copy()
    rows["F4"] = np.nan
    rows["F5"] += 40.0
    table = watch.bands.exceedance(daily_summaries(rows, watch.bands.norms))
    assert table.loc["F4", "exceedance"] > 1 and table.loc["F4", "statistic"] == "missing"
    assert table.loc["F5", "exceedance"] > 1 and table.loc["F5", "statistic"] == "level"


def test_few_windows_give_wide_limits() -> None:
    """Three windows cannot say what is rare: the limit lies beyond all of them, and more so than with twenty."""
    reference = daily_summaries(stationary_columns(3, 400, 30))
    short = replace(reference, days=reference.days[:60], values=reference.values[:60])
    few, many = (reference_bands(each, (1, 20), 0.04) for each in (short, reference))
    assert few.windows == 3 and many.windows == 20 and few.limit > many.limit


def test_an_empty_column_is_no_news() -> None:
    """A column that never had a value has no exceedance, and troubles no other."""
    frame = stationary_columns(4, 200, 20)[["F0"]].assign(empty=np.nan)
    reference = daily_summaries(frame)
    table = reference_bands(reference, (1, 20), 0.04).exceedance(daily_summaries(frame.tail(400), reference.norms))
    assert table.loc["empty", "exceedance"] == 0 and np.isfinite(table.loc["F0", "exceedance"])
