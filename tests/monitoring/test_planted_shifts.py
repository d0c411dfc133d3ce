"""Small twin of `make bench NAME=drift_power`: shifts of each kind are found, by name, in markets that are quiet."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.config import DriftSettings
from tests.monitoring.planted_drift import Watch
from tests.monitoring.planted_shifts import (
    MARKETS,
    Plant,
    Shift,
    correlated_shift,
    mean_shift,
    mismatched_shift,
    shifted,
    tail_shift,
    variance_shift,
)

COLUMN = 5
SEEDS = (50, 51)


@cache
def watch_of(kind: str, seed: int) -> Watch:
    """60 names, bands of 500 days, a year behind them."""
    return Watch.of(MARKETS[kind](seed, 500 + 252, 60), 500, DriftSettings())


@pytest.mark.parametrize("kind", MARKETS)
def test_nothing_planted_is_quiet(kind: str) -> None:
    """Independent draws, common moves and volatility that last, factors that last: at most 5% of the days alert."""
    watches = [watch_of(kind, seed) for seed in SEEDS]
    assert np.mean([watch.farthest(watch.days(252)[::3]) >= 1 for watch in watches]) <= 0.05


@pytest.mark.parametrize(
    ("kind", "shift", "statistics"),
    [
        ("independent", mean_shift(1.0), {"level"}),
        ("independent", variance_shift(1.5), {"spread"}),
        ("independent", tail_shift(0.1, 10.0), {"tails", "extremes"}),
        ("independent", correlated_shift(0.5), {"correlation"}),
        ("autocorrelated", correlated_shift(0.8), {"correlation"}),
        ("dependent", mismatched_shift(), {"unexplained", "correlation"}),
    ],
    ids=lambda each: getattr(each, "name", "") or (each if isinstance(each, str) else "-".join(sorted(each))),
)
def test_twenty_days_of_a_shift_are_found(kind: str, shift: Shift, statistics: set[str]) -> None:
    """On every day tried, by name, and what of it moved. Where the correlation alone moves, the column has the
    same values as ever."""
    for seed in SEEDS:
        watch, rng = watch_of(kind, seed), np.random.default_rng(seed)
        plant = Plant(shift, COLUMN, watch.span)
        tables = [watch.bands.exceedance(shifted(watch, place, plant, rng)) for place in watch.days(3)]
        found = pd.concat([table.loc[[f"F{COLUMN}"]] for table in tables])
        assert (found["exceedance"] >= 1).all()
        assert set(found["statistic"]) <= statistics
