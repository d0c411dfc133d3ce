"""Markets without news of three kinds, and shifts of known kind and size planted in them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.monitoring.summaries import DailySummaries, daily_summaries
from tests.monitoring.planted_drift import Watch, stationary_columns

Values = NDArray[np.float64]
COLUMNS, FACTORS = 12, 4


def independent_columns(seed: int, days: int, instruments: int) -> pd.DataFrame:
    """Twelve columns of independent normal draws."""
    values = np.random.default_rng(seed).standard_normal((days * instruments, COLUMNS))
    return pd.DataFrame(values, _index(days, instruments), _names())


def dependent_columns(seed: int, days: int, instruments: int) -> pd.DataFrame:
    """Twelve columns of four factors: each instrument's are AR(1) with 0.9, and so is a move that all of them share.

    Three quarters of a column's variance within a day are of the factors, as of features that say much the same.
    """
    rng = np.random.default_rng(seed)
    factors, common = np.zeros((days, instruments, FACTORS)), np.zeros((days, COLUMNS))
    factors[0] = rng.standard_normal((instruments, FACTORS))
    for day in range(1, days):
        factors[day] = 0.9 * factors[day - 1] + np.sqrt(1 - 0.81) * rng.standard_normal((instruments, FACTORS))
        common[day] = 0.9 * common[day - 1] + 0.3 * rng.standard_normal(COLUMNS)
    loadings = rng.standard_normal((FACTORS, COLUMNS))
    loadings *= np.sqrt(0.75) / np.linalg.norm(loadings, axis=0)
    values = factors @ loadings + 0.5 * rng.standard_normal((days, instruments, COLUMNS)) + common[:, None, :]
    return pd.DataFrame(values.reshape(-1, COLUMNS), _index(days, instruments), _names())


MARKETS: dict[str, Callable[[int, int, int], pd.DataFrame]] = {
    "independent": independent_columns,
    "autocorrelated": stationary_columns,
    "dependent": dependent_columns,
}


@dataclass(frozen=True)
class Shift:
    """What happens to one column within a day, all others staying as they are.

    Attributes
    ----------
    change
        From the day's values of the column and of another one, shape (instruments,), to the new values.
    """

    name: str
    change: Callable[[Values, Values, np.random.Generator], Values]


def mean_shift(size: float) -> Shift:
    """All values move by so many of the day's standard deviations."""
    return Shift(f"mean +{size:g} sd", lambda own, other, rng: own + size * np.nanstd(own))


def variance_shift(factor: float) -> Shift:
    """Distances from the day's median grow."""
    return Shift(f"sd x {factor:g}", lambda own, other, rng: np.nanmedian(own) + factor * (own - np.nanmedian(own)))


def tail_shift(share: float, factor: float) -> Shift:
    """Of some rows the distance from the day's median grows."""

    def change(own: Values, other: Values, rng: np.random.Generator) -> Values:
        median = np.nanmedian(own)
        return np.where(rng.random(len(own)) < share, median + factor * (own - median), own)

    return Shift(f"tails: {share:.0%} of rows x {factor:g}", change)


def mismatched_shift() -> Shift:
    """The day's values are handed to other instruments: the column alone is what it was."""
    return Shift("correlation only: wrong instruments", lambda own, other, rng: rng.permutation(own))


def correlated_shift(rho: float) -> Shift:
    """The day's values are handed out so that their ranks go with another column's: again the same values."""

    def change(own: Values, other: Values, rng: np.random.Generator) -> Values:
        ranks = np.nan_to_num(pd.Series(other).rank().to_numpy(), nan=0.0)
        wanted = rho * (ranks - ranks.mean()) / max(ranks.std(), 1e-9)
        wanted += np.sqrt(1 - rho**2) * rng.standard_normal(len(own))
        result = np.empty_like(own)
        result[np.argsort(wanted)] = np.sort(own)
        return result

    return Shift(f"correlation only: {rho:g} with another column", change)


SHIFTS = (
    *map(mean_shift, (0.25, 0.5, 1.0, 2.0)),
    *map(variance_shift, (1.1, 1.25, 1.5, 2.0)),
    *(tail_shift(share, 10.0) for share in (0.01, 0.02, 0.05)),
    *map(correlated_shift, (0.3, 0.5, 0.8)),
    mismatched_shift(),
)


@dataclass(frozen=True)
class Plant:
    """A shift of one column, by its place, on the last days of a window."""

    shift: Shift
    column: int
    days: int


def shifted(watch: Watch, place: int, plant: Plant, rng: np.random.Generator) -> DailySummaries:
    """Summaries of the window that ends on a day, with what is planted in it."""
    rows, column = watch.rows(place).copy(), plant.column
    values = rows.iloc[:, column].to_numpy(np.float64).copy()
    other = rows.iloc[:, (column + 1) % rows.shape[1]].to_numpy(np.float64)
    day = rows.index.get_level_values(DATETIME)
    for each in watch.later.days[place - plant.days + 1 : place + 1]:
        hit = np.flatnonzero(day == each)
        values[hit] = plant.shift.change(values[hit], other[hit], rng)
    rows.isetitem(column, values)
    return daily_summaries(rows, watch.bands.norms)


def _index(days: int, instruments: int) -> pd.MultiIndex:
    names = [f"S{i:03d}" for i in range(instruments)]
    return pd.MultiIndex.from_product([pd.bdate_range("2015-01-01", periods=days), names], names=[DATETIME, INSTRUMENT])


def _names() -> list[str]:
    return [f"F{i}" for i in range(COLUMNS)]
