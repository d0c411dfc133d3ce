"""Dependence between a day's columns across the instruments, which can drift while each column alone looks unchanged.

Everything is computed from ranks within the day, so the columns' own distributions do not matter. A column that is
matched with the wrong instruments has the same values as before, but no longer correlates with the others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mlops_tasks.monitoring.kernels import add_correlations, correlation_distance, rank_days
from mlops_tasks.monitoring.profile import in_threads

Floats = NDArray[np.float64]
SmallFloats = NDArray[np.float32]
Ints = NDArray[np.int64]

RIDGE = 0.05
"""Added to the eigenvalues of the reference's rank correlations, so that almost equal columns do not determine each
other to the last digit."""
LEAST_UNEXPLAINED = 1e-3
BLOCKS = 8
"""Days are worked through in so many blocks, on any machine: the order of sums depends on it."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class RankScores:
    """Ranks within each day, centred and of variance 1 over the column's finite values, 0 for other values.

    Attributes
    ----------
    values
        Shape (columns, rows); rows sorted by day.
    begins
        Shape (days + 1,): first row of each day, and the number of rows.
    finite
        Shape (days, columns): number of finite values, 0 for a column whose values are all equal on that day.
    """

    values: SmallFloats
    begins: Ints
    finite: Ints

    @classmethod
    def empty(cls, count: Ints, columns: int) -> "RankScores":
        """An empty object, to be filled by column with `put`; `count` is the number of rows of each day."""
        begins = np.concatenate([[0], np.cumsum(count)])
        values = np.zeros((columns, int(begins[-1])), dtype=np.float32)
        return cls(values, begins, np.zeros((len(count), columns), dtype=np.int64))

    def put(self, column: int, grid: Floats) -> Ints:
        """Set the ranks of one column. Different columns may be set by different threads at the same time.

        `grid`, of shape (days, most rows of a day), holds each day's rows in their order and is padded with NaN. Its
        rows are sorted in place, NaN last; the number of finite values of each is returned.
        """
        found = rank_days(grid, np.argsort(grid, axis=1), self.begins, self.values[column])
        differ = grid[:, 0] != grid[np.arange(len(grid)), np.maximum(found - 1, 0)]
        self.finite[:, column] = np.where(differ, found, 0)
        return np.asarray(found)

    def sums(self, day: int) -> SmallFloats:
        """Sums of products of a day, shape (columns, columns)."""
        rows = self.values[:, self.begins[day] : self.begins[day + 1]]
        return np.asarray(rows @ rows.T)

    def by_block(self, compute: Callable[[Ints], Result]) -> list[Result]:
        """What a function gives for the days of each block, in their order; several threads share the blocks.

        A product of so few rows is too small for several threads, which would wait for one another most of the time.
        """
        with threadpool_limits(1, "blas"):
            return in_threads(compute, np.array_split(np.arange(len(self.finite)), BLOCKS))


def mean_correlations(scores: RankScores) -> Floats:
    """Mean over days of the rank correlations, shape (columns, columns), 1 on the diagonal.

    For a pair, the days count on which both have values that differ; 0 if there is no such day.
    """
    has = (scores.finite > 0).astype(np.float64)

    def total_of(days: Ints) -> Floats:
        total = np.zeros((has.shape[1], has.shape[1]))
        for day in days:
            add_correlations(total, scores.sums(day), scores.finite[day])
        return total

    total = np.sum(scores.by_block(total_of), axis=0)
    total /= np.maximum(has.T @ has, 1.0)
    np.fill_diagonal(total, 1.0)
    return total


def daily_dependence(scores: RankScores, reference: Floats) -> tuple[Floats, Floats]:
    """Two numbers per day and column, shape (days, columns), NaN where the column has no differing values.

    Parameters
    ----------
    reference
        Rank correlations of the training segment, from `mean_correlations`.

    Returns
    -------
    unexplained
        Natural logarithm of the mean squared residual of the column's ranks from their ridge regression on all other
        columns, whose coefficients are those of the reference (a column of the inverse of its correlations).
    correlation
        Mean over the other columns of the squared difference of rank correlation from the reference's, less its
        expected value for this number of instruments.
    """
    values, vectors = np.linalg.eigh(reference)
    inverse = (vectors / (np.maximum(values, 0.0) + RIDGE)) @ vectors.T
    inverse /= np.diag(inverse)
    unexplained, correlation = (np.full(scores.finite.shape, np.nan) for _ in range(2))

    def fill(days: Ints) -> None:
        for day in days:
            sums, finite = scores.sums(day), scores.finite[day]
            has = finite > 0
            residual = np.sum((sums.astype(np.float64) @ inverse) * inverse, axis=0) / np.maximum(finite, 1)
            unexplained[day, has] = np.log(np.maximum(residual, LEAST_UNEXPLAINED))[has]
            correlation[day] = correlation_distance(sums, finite, reference)

    scores.by_block(fill)
    return unexplained, correlation
