"""Summaries of a day's cross-section, seven numbers per column, from which the drift bands are made.

A move that all instruments share changes only the level: the other statistics use values less the day's median, tails
and extremes are in units of the day's spread, and the last two use ranks.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.columns import DATETIME
from mlops_tasks.monitoring.dependence import Floats, RankScores, daily_dependence, mean_correlations
from mlops_tasks.monitoring.kernels import distance_statistics
from mlops_tasks.monitoring.profile import in_threads

STATISTICS = ("missing", "level", "spread", "tails", "extremes", "unexplained", "correlation")
MARGINAL = 5
"""Number of statistics, the first ones, that describe a column alone; the others describe its dependence on others."""
EXTREME = 10.0
"""Distance from the median in ranges as wide as the interquartile one; a normal distribution has 1 value in 10^40
beyond it."""
LEAST_SPREAD = 0.1
"""A day's interquartile range is at least this share of the column's usual one, as most values may be tied."""


@dataclass(frozen=True)
class Norms:
    """Scales by which a training segment is summarised, and by which others must be summarised to be compared.

    Attributes
    ----------
    scales
        Shape (columns,): the usual interquartile range of each column, positive.
    correlations
        Shape (columns, columns): mean rank correlations of a day.
    """

    scales: Floats
    correlations: Floats


@dataclass(frozen=True)
class DailySummaries:
    """Cross-sections by day.

    Attributes
    ----------
    values
        Shape (days, columns, statistics), in the order of `STATISTICS`:

        - missing: share of rows without a finite value;
        - level: median;
        - spread: natural logarithm of the interquartile range;
        - tails: mean of ln(1 + |value - median| / range), the range being twice the day's median distance from the
          median, or the usual interquartile range, whichever is wider: errors in less than half of the rows cannot
          hide in a range that they have widened;
        - extremes: share of finite values more than `EXTREME` such ranges from the median;
        - unexplained, correlation: as in `daily_dependence`.

        All except `missing` are NaN on a day without a finite value; the last two also if all values are equal.
    """

    days: pd.DatetimeIndex
    columns: tuple[str, ...]
    values: Floats
    norms: Norms

    def save(self, path: Path) -> None:
        """Write as one npz file."""
        days = self.days.to_numpy("datetime64[ns]")
        arrays = {"days": days, "columns": np.array(self.columns), "values": self.values, **vars(self.norms)}
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> "DailySummaries":
        """Read a file written by `save`."""
        with np.load(path, allow_pickle=False) as content:
            columns = tuple(map(str, content["columns"]))
            norms = Norms(content["scales"], content["correlations"])
            return cls(pd.DatetimeIndex(content["days"]), columns, content["values"], norms)


def daily_summaries(frame: pd.DataFrame, norms: Norms | None = None) -> DailySummaries:
    """Summaries of a frame of shape (rows, columns), numeric, index (datetime, ...) sorted by day; at least one row.

    Parameters
    ----------
    norms
        Norms of the reference with which these summaries are to be compared; None: the frame's own. Its scale is the
        median over days of the interquartile range. If that is 0, it is the mean distance from the days' medians, or,
        for a column that is constant on every day, a thousandth of its size.
    """
    code, unique = pd.factorize(pd.DatetimeIndex(frame.index.get_level_values(DATETIME)))
    count = np.bincount(code)
    places = (code, np.arange(len(frame)) - np.repeat(np.cumsum(count) - count, count))
    values = np.empty((len(unique), frame.shape[1], len(STATISTICS)))
    scales = np.empty(frame.shape[1])
    scores = RankScores.empty(count, frame.shape[1])

    def summarise(number: int) -> None:
        column = frame.iloc[:, number].to_numpy(np.float64, na_value=np.nan)
        grid = np.full((len(unique), int(count.max())), np.nan)
        grid[places] = np.where(np.isfinite(column), column, np.nan)
        finite = scores.put(number, grid)
        scale = None if norms is None else float(norms.scales[number])
        values[:, number, :MARGINAL], scales[number] = _cross_sections(grid, (finite, count), scale)

    in_threads(summarise, range(frame.shape[1]))
    used = Norms(scales, mean_correlations(scores)) if norms is None else norms
    values[:, :, MARGINAL:] = np.stack(daily_dependence(scores, used.correlations), axis=2)
    return DailySummaries(pd.DatetimeIndex(unique), tuple(map(str, frame.columns)), values, used)


def _cross_sections(
    ordered: Floats, counts: tuple[NDArray[np.int64], NDArray[np.int64]], scale: float | None
) -> tuple[Floats, float]:
    """Statistics, shape (days, statistics), and the scale used.

    `ordered` are (days, rows) values, ascending and padded with NaN; `counts` each day's finite values and rows.
    """
    finite, rows = counts
    low, median, high = (_order_statistic(ordered, finite, share) for share in (0.25, 0.5, 0.75))
    width = high - low
    if scale is None:
        scale = _scale(width, ordered, median)
    spread = np.log(np.maximum(width, LEAST_SPREAD * scale))
    tails_and_extremes = distance_statistics(ordered, finite, median, scale, EXTREME)
    return np.column_stack([1 - finite / rows, median, spread, tails_and_extremes]), scale


def _order_statistic(grid: Floats, finite: NDArray[np.int64], share: float) -> Floats:
    place = np.floor(share * np.maximum(finite - 1, 0)).astype(np.int64)
    return np.asarray(np.take_along_axis(grid, place[:, None], axis=1)[:, 0])


def _scale(width: Floats, ordered: Floats, median: Floats) -> float:
    if (usual := _median(width)) > 0:
        return usual
    for candidate in (_mean(np.abs(ordered - median[:, None])), 1e-3 * _mean(np.abs(median))):
        if candidate > 0:
            return candidate
    return 1e-3


def _median(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else 0.0


def _mean(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else 0.0
