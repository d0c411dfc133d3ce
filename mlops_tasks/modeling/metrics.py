"""Metrics of a segment's scores, fast enough to be computed after every iteration.

What depends on the labels alone (each day's ranks, centred values and their spreads) is computed once; an evaluation is
then one pass over the scores, after one sort if ranks are needed. The values are those of `evaluation.ic`.
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from numba import types

from mlops_tasks.evaluation.ic import MIN_PAIRS
from mlops_tasks.kernels import kernel
from mlops_tasks.modeling.overfitting import Metric
from mlops_tasks.modeling.problem import FloatArray, IntArray, LearningProblem

TRAIN_ROWS = 12_000
"""Approximate number of training rows on which an IC is measured after each iteration."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_F8, _I8, _ORDER = types.float64[::1], types.int64[::1], types.int64[:, ::1]


class ValidationMetrics:
    """Loss, IC and rank IC of one segment's scores.

    Attributes
    ----------
    rows
        Positions in the problem's arrays of the segment's rows that have a label, ascending, shape (n,). Every method
        takes the scores of exactly these rows, in this order; a score that is not finite is left out of the ICs.
    """

    def __init__(self, problem: LearningProblem, segment: slice | None = None) -> None:
        self.rows: IntArray = problem.learned(problem.valid if segment is None else segment)
        self._label = problem.label[self.rows].astype(np.float64)
        self._days = DailyCorrelation(problem.realised[self.rows], problem.day[self.rows])

    def loss(self, scores: FloatArray) -> float:
        """Mean squared difference of score and processed label over the rows; NaN without rows."""
        difference = self._checked(scores) - self._label
        return float(difference @ difference / len(difference)) if len(difference) else float("nan")

    def ic(self, scores: FloatArray) -> float:
        """Mean over days of `evaluation.ic.daily_ic`; NaN if no day has one."""
        return self._days.ic(self._checked(scores))

    def rank_ic(self, scores: FloatArray) -> float:
        """Mean over days of `evaluation.ic.daily_rank_ic`; NaN if no day has one."""
        return self._days.rank_ic(self._checked(scores))

    def evaluate(self, scores: FloatArray, segment: str = "valid") -> Mapping[str, float]:
        """All three, under the names that `TrainingSession.iteration` expects; an IC that no day has is left out.

        The loss is always included: if it is not finite, the training has diverged.
        """
        ics = {"ic": self.ic(scores), "rank_ic": self.rank_ic(scores)}
        found = {"loss": self.loss(scores), **{name: value for name, value in ics.items() if np.isfinite(value)}}
        return {f"{segment}.{name}": value for name, value in found.items()}

    def _checked(self, scores: FloatArray) -> Floats:
        if scores.shape != self.rows.shape:
            raise ValueError(
                f"scores have shape {scores.shape}, the segment has {len(self.rows)} rows with a label; "
                "score the rows of `ValidationMetrics.rows`"
            )
        return np.ascontiguousarray(scores, dtype=np.float64)


class TrainIC:
    """The IC or rank IC of the train segment, for an overfitting detector that compares ICs.

    It is measured on a seeded sample of whole days that have about `TRAIN_ROWS` rows in all.

    Attributes
    ----------
    rows
        Positions in the problem's arrays, ascending, shape (n,); empty if losses are compared.
    """

    def __init__(self, problem: LearningProblem, metric: Metric, seed: int) -> None:
        learned = problem.learned(problem.train)
        days = np.unique(problem.day[learned])
        share = 0.0 if metric == "loss" else min(1.0, TRAIN_ROWS / max(1, len(learned)))
        drawn = np.random.default_rng(seed).permutation(days)[: math.ceil(share * len(days))]
        self.rows: IntArray = learned[np.isin(problem.day[learned], drawn)]
        self._metric = metric
        self._days = DailyCorrelation(problem.realised[self.rows], problem.day[self.rows])

    def evaluate(self, scores: FloatArray) -> dict[str, float]:
        """The metric of scores of `rows`, by its name: NaN if no day has one; empty if losses are compared."""
        if self._metric == "loss":
            return {}
        return {self._metric: self._days.ic(scores) if self._metric == "ic" else self._days.rank_ic(scores)}


class DailyCorrelation:
    """Mean daily correlations of any scores with given labels.

    Parameters
    ----------
    label
        Shape (n,); rows whose label is not finite are left out.
    day
        Code of each row's day, shape (n,), ascending.

    Raises
    ------
    ValueError
        The days are not in ascending order.
    """

    def __init__(self, label: FloatArray, day: IntArray) -> None:
        if np.any(day[1:] < day[:-1]):
            raise ValueError("the days are not in ascending order; sort the rows by day")
        self._label, self._day = label, day
        self._kept = np.isfinite(label)
        values, days = label[self._kept].astype(np.float64), day[self._kept]
        starts = np.flatnonzero(np.r_[True, days[1:] != days[:-1]]) if len(days) else np.zeros(0, np.int64)
        self._bounds: Ints = np.append(starts, len(days)).astype(np.int64)
        self._centred = values.copy()
        self._ranks = np.empty_like(values)
        self._row, self._column = self._layout()
        _centre(self._centred, self._bounds)
        _rank(values, self._sorted(values), self._bounds, self._ranks)

    def ic(self, scores: FloatArray) -> float:
        """Mean of Pearson's correlation over the days that have one."""
        values, correlation = self._pairs(scores)
        return _mean(_pearson(values, correlation._centred, correlation._bounds, MIN_PAIRS))

    def rank_ic(self, scores: FloatArray) -> float:
        """Mean of Spearman's correlation over the days that have one."""
        values, correlation = self._pairs(scores)
        order = correlation._sorted(values)
        return _mean(_spearman(values, order, correlation._ranks, correlation._bounds, MIN_PAIRS))

    def _pairs(self, scores: FloatArray) -> "tuple[Floats, DailyCorrelation]":
        """Finite scores, and the labels that they are paired with."""
        values = np.ascontiguousarray(scores[self._kept], dtype=np.float64)
        finite = np.isfinite(values)
        if finite.all():
            return values, self
        return values[finite], DailyCorrelation(self._label[self._kept][finite], self._day[self._kept][finite])

    def _layout(self) -> tuple[Ints, Ints]:
        """Row and column of each value in a matrix with one row per day."""
        counts = np.diff(self._bounds)
        day = np.repeat(np.arange(len(counts)), counts)
        return day, np.arange(len(day)) - self._bounds[day]

    def _sorted(self, values: Floats) -> Ints:
        """Positions that sort each day's values, padding last; shape (days, largest number of values on a day)."""
        counts = np.diff(self._bounds)
        table = np.full((len(counts), counts.max(initial=0)), np.nan)
        table[self._row, self._column] = values
        return np.argsort(table, axis=1)  # NumPy sorts short rows with vector instructions, NaN last


def _mean(daily: Floats) -> float:
    defined = daily[np.isfinite(daily)]
    return float(defined.mean()) if len(defined) else float("nan")


@kernel(_F8, _I8)
def _centre(values: Floats, bounds: Ints) -> None:
    """Subtract each day's mean and divide by the mean absolute deviation; NaN on days whose values are all equal.

    The division keeps labels of 1e-200 from vanishing when they are squared.
    """
    for day in range(len(bounds) - 1):
        part = values[bounds[day] : bounds[day + 1]]
        if part.min() == part.max():
            part[:] = np.nan
            continue
        mean = part.sum() / len(part)
        size = 0.0
        for i in range(len(part)):
            part[i] -= mean
            size += abs(part[i])
        part /= size / len(part)


@kernel(_F8, _F8, _I8, types.int64)
def _pearson(scores: Floats, centred: Floats, bounds: Ints, least: int) -> Floats:
    """Correlation of each day that has at least this many pairs; `centred` are the labels after `_centre`."""
    result = np.full(len(bounds) - 1, np.nan)
    for day in range(len(result)):
        begin, end = bounds[day], bounds[day + 1]
        if end - begin < least:
            continue
        low, high, total = scores[begin], scores[begin], 0.0
        for i in range(begin, end):
            low, high = min(low, scores[i]), max(high, scores[i])
            total += scores[i]
        if low == high:
            continue
        mean = total / (end - begin)
        size = 0.0
        for i in range(begin, end):
            size += abs(scores[i] - mean)
        size /= end - begin
        product, score_square, label_square = 0.0, 0.0, 0.0
        for i in range(begin, end):
            score = (scores[i] - mean) / size
            product += score * centred[i]
            score_square += score * score
            label_square += centred[i] * centred[i]
        correlation = product / np.sqrt(score_square * label_square)
        result[day] = min(max(correlation, -1.0), 1.0) if np.isfinite(correlation) else np.nan
    return result


@kernel(_F8, _ORDER, _I8, _F8)
def _rank(values: Floats, order: Ints, bounds: Ints, ranks: Floats) -> None:
    """Ranks within each day less their mean; equal values get their mean rank."""
    for day in range(len(bounds) - 1):
        begin, count = bounds[day], bounds[day + 1] - bounds[day]
        first = 0
        while first < count:
            value = values[begin + order[day, first]]
            last = first + 1
            while last < count and values[begin + order[day, last]] == value:
                last += 1
            for place in range(first, last):
                ranks[begin + order[day, place]] = (first + last - count) / 2.0
            first = last


@kernel(_F8, _ORDER, _F8, _I8, types.int64)
def _spearman(scores: Floats, order: Ints, label_ranks: Floats, bounds: Ints, least: int) -> Floats:
    """Rank correlation of each day that has at least this many pairs; `label_ranks` come from `_rank`."""
    result = np.full(len(bounds) - 1, np.nan)
    for day in range(len(result)):
        begin, count = bounds[day], bounds[day + 1] - bounds[day]
        if count < least:
            continue
        product, score_square, label_square = 0.0, 0.0, 0.0
        first = 0
        while first < count:
            value = scores[begin + order[day, first]]
            last, labels = first, 0.0
            while last < count and scores[begin + order[day, last]] == value:
                rank = label_ranks[begin + order[day, last]]
                labels += rank
                label_square += rank * rank
                last += 1
            score_rank = (first + last - count) / 2.0
            product += score_rank * labels
            score_square += (last - first) * score_rank * score_rank
            first = last
        if score_square > 0 and label_square > 0:
            result[day] = min(max(product / np.sqrt(score_square * label_square), -1.0), 1.0)
    return result
