"""One verdict per day over all columns: is the newest cross-section like those of the training segment?

The reference is the training segment's own windows, as long as the current one and rolling, so that the bands include
serial dependence and common moves. For each daily statistic, the distance of a window's mean from the median of the
reference windows is measured in units of their spread; the farthest column counts. Its limit is calibrated on the
reference windows themselves, one block of days at a time with bands that have not seen it. With n windows that do not
overlap and an error rate a, the limit is the (1 - a)(n + 1) / n quantile, as in a split conformal predictor (Vovk,
Gammerman and Shafer, Algorithmic Learning in a Random World, 2005), which accounts for the small number of windows.

The farthest column of each statistic and span is measured in units of the distance that it stays within in `USUAL` of
the windows. So a column whose level wanders far, as many do, does not widen the limit for the others.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.monitoring.dependence import Floats
from mlops_tasks.monitoring.summaries import STATISTICS, DailySummaries, Norms

FOLDS = 5
"""Number of blocks of days that are left out in turn."""
TAIL_INDEX = 2.0
LEAST_WIDTHS = dict(zip(STATISTICS, (0.01, 0.02, 0.02, 0.01, 0.02, 0.1, 0.005), strict=True))
"""Minimum width of a band, so that a statistic that never moved in training does not alert at the slightest move. For
`level` in units of the column's scale."""
REACH = 0.995
"""Share of the reference windows within a band: a column that jumps occasionally in training may do so later."""
USUAL = 0.95
"""Share of the reference windows whose farthest column counts as usual."""


@dataclass(frozen=True)
class Bands:
    """Distribution of the windows of the training segment.

    Attributes
    ----------
    columns, norms
        As in `DailySummaries`.
    spans
        Lengths of windows in days, ascending; shape (spans,).
    centres, widths
        Shape (spans, columns, statistics). NaN for a column without a value.
    usual
        Shape (spans, statistics): distance of the farthest column, in widths, that `USUAL` of the windows stay within;
        at least 1.
    limit
        Largest distance of the farthest column, in units of the usual distance.
    windows
        Number of non-overlapping reference windows of the longest span.
    error_rate
        Share of windows that may exceed the limit on quiet days.
    """

    columns: tuple[str, ...]
    norms: Norms
    spans: NDArray[np.int64]
    centres: Floats
    widths: Floats
    usual: Floats
    limit: float
    windows: int
    error_rate: float

    def exceedance(self, current: DailySummaries) -> pd.DataFrame:
        """How far the windows that end on the newest day lie outside the bands, by column.

        Parameters
        ----------
        current
            Summaries of the last days, with these columns and norms. If there are fewer days than a span, all are used.

        Returns
        -------
        Frame by column: `exceedance`, where 1 or more is drift, and 0 means that nothing can be compared; the
        `statistic` and the window's `days` that it comes from.
        """
        ratios = np.stack([self._ratios(current.values, place) for place in range(len(self.spans))], axis=2)
        flat = np.nan_to_num(ratios, nan=0.0).reshape(len(self.columns), -1)
        best = flat.argmax(axis=1)
        frame = {
            "exceedance": flat.max(axis=1),
            "statistic": np.array(STATISTICS)[best // len(self.spans)],
            "days": self.spans[best % len(self.spans)],
        }
        return pd.DataFrame(frame, index=pd.Index(self.columns, name="column"))

    def _ratios(self, values: Floats, place: int) -> Floats:
        window = _mean_over_days(values[-self.spans[place] :])
        distance = np.abs(window - self.centres[place]) / self.widths[place]
        return np.asarray(distance / (self.usual[place] * self.limit))


def reference_bands(reference: DailySummaries, spans: tuple[int, ...], error_rate: float) -> Bands:
    """Bands from the days of a training segment.

    Days count from the first on which every column that ever has a value has one, but at least half of the days: before
    that day, the windows of features are not full.

    Parameters
    ----------
    spans
        Lengths of windows in days; those longer than half of the segment are cut to that.
    error_rate
        Share of quiet days that may alert. With fewer than 1 / error_rate - 1 non-overlapping windows, none of them is
        that rare: the limit then lies beyond the farthest by a Pareto tail of index `TAIL_INDEX`.
    """
    values = reference.values[_first_full_day(reference.values) :]
    lengths = np.unique(np.clip(spans, 1, max(1, len(values) // 2)))
    least = np.array([LEAST_WIDTHS[name] for name in STATISTICS]) * np.ones((len(reference.columns), 1))
    least[:, STATISTICS.index("level")] *= reference.norms.scales
    farthest = np.full((len(values), len(lengths), len(STATISTICS)), np.nan)
    centres, widths = [], []
    for place, length in enumerate(lengths):
        windows = _rolling_means(values, int(length))
        centre, width = _band(windows, least)
        centres.append(centre)
        widths.append(width)
        farthest[length - 1 :, place] = _left_out_distances(windows, int(length), least)
    usual = np.maximum(_quantile(farthest, USUAL), 1.0)
    ratios = np.max(farthest[lengths[-1] - 1 :] / usual, axis=(1, 2))
    count = len(values) // int(lengths[-1])
    rank, beyond = (1 - error_rate) * (count + 1) / count, 1 / (error_rate * (count + 1))
    return Bands(
        columns=reference.columns,
        norms=reference.norms,
        spans=lengths,
        centres=np.stack(centres),
        widths=np.stack(widths),
        usual=usual,
        limit=float(np.quantile(ratios, min(rank, 1.0), method="higher")) * max(1.0, beyond) ** (1 / TAIL_INDEX),
        windows=count,
        error_rate=error_rate,
    )


def _first_full_day(values: Floats) -> int:
    has_value = values[:, :, STATISTICS.index("missing")] < 1
    first = np.where(has_value.any(axis=0), has_value.argmax(axis=0), 0)
    return min(int(first.max(initial=0)), len(values) // 2)


def _rolling_means(values: Floats, length: int) -> Floats:
    """Means over windows of days, ignoring NaN; shape (days - length + 1, columns, statistics)."""
    finite = np.isfinite(values)
    sums, counts = (_window_sums(part, length) for part in (np.where(finite, values, 0.0), finite.astype(np.float64)))
    return np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan)


def _window_sums(values: Floats, length: int) -> Floats:
    sums = np.cumsum(values, axis=0)
    result = sums[length - 1 :].copy()
    result[1:] -= sums[:-length]
    return result


def _mean_over_days(values: Floats) -> Floats:
    return np.asarray(_rolling_means(values, len(values))[0])


def _band(windows: Floats, least: Floats) -> tuple[Floats, Floats]:
    """Median over windows, and the distance from it that `REACH` of them stay within; NaN without a value."""
    centre = _quantile(windows, 0.5)
    return centre, np.maximum(_quantile(np.abs(windows - centre), REACH), least)


def _left_out_distances(windows: Floats, length: int, least: Floats) -> Floats:
    """Distance of each window's farthest column by statistic, from bands of windows without a day in its block."""
    result = np.zeros((len(windows), windows.shape[2]))
    ends = np.arange(len(windows))
    for block in np.array_split(ends, min(FOLDS, len(windows))):
        others = windows[(ends <= block[0] - length) | (ends >= block[-1] + length)]
        if len(others) == 0:
            others = windows
        centre, width = _band(others, least)
        result[block] = np.nan_to_num(np.abs(windows[block] - centre) / width, nan=0.0).max(axis=1)
    return result


def _quantile(values: Floats, share: float) -> Floats:
    """Order statistic over the first axis, ignoring NaN; NaN without a value."""
    ordered = np.sort(values, axis=0)
    count = np.isfinite(ordered).sum(axis=0)
    place = np.ceil(share * np.maximum(count - 1, 0)).astype(np.int64)
    return np.asarray(np.take_along_axis(ordered, place[None], axis=0)[0])
