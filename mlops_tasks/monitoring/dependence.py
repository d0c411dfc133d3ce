"""Dependence between a day's columns across the instruments, which can drift while each column alone looks unchanged.

Everything is computed from ranks within the day, so the columns' own distributions do not matter. A column that is
matched with the wrong instruments has the same values as before, but no longer correlates with the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.monitoring.kernels import score_ranks

Floats = NDArray[np.float64]
SmallFloats = NDArray[np.float32]
Ints = NDArray[np.int64]

RIDGE = 0.05
"""Added to the eigenvalues of the reference's rank correlations, so that almost equal columns do not determine each
other to the last digit."""
LEAST_UNEXPLAINED = 1e-3


@dataclass(frozen=True)
class RankScores:
    """Ranks within each day, centred and of variance 1 over the column's finite values, 0 for other values.

    Attributes
    ----------
    values
        Shape (rows, columns); rows sorted by day.
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
        values = np.zeros((int(begins[-1]), columns), dtype=np.float32)
        return cls(values, begins, np.zeros((len(count), columns), dtype=np.int64))

    def put(self, column: int, grid: Floats, rows: tuple[Ints, Ints]) -> None:
        """Set the ranks of one column; `grid`, of shape (days, most rows of a day), is padded with NaN, and `rows` maps
        its cells."""
        scores = np.zeros(grid.shape, dtype=np.float32)
        self.finite[:, column] = score_ranks(grid, np.argsort(grid, axis=1), scores)
        self.values[:, column] = scores[rows]

    def sums(self) -> Iterator[Floats]:
        """Sums of products of each day, shape (columns, columns)."""
        for first, last in zip(self.begins[:-1], self.begins[1:], strict=True):
            day = self.values[first:last]
            yield (day.T @ day).astype(np.float64)


def mean_correlations(scores: RankScores) -> Floats:
    """Mean over days of the rank correlations, shape (columns, columns), 1 on the diagonal.

    For a pair, the days count on which both have values that differ; 0 if there is no such day.
    """
    has = (scores.finite > 0).astype(np.float64)
    total = np.zeros((has.shape[1], has.shape[1]))
    for sums, finite in zip(scores.sums(), scores.finite, strict=True):
        total += _correlations(sums, finite)
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
    expected = (1 - reference**2) ** 2
    unexplained, correlation = (np.full(scores.finite.shape, np.nan) for _ in range(2))
    for day, (sums, finite) in enumerate(zip(scores.sums(), scores.finite, strict=True)):
        has = finite > 0
        residual = np.sum((sums @ inverse) * inverse, axis=0) / np.maximum(finite, 1)
        unexplained[day, has] = np.log(np.maximum(residual, LEAST_UNEXPLAINED))[has]
        smaller = np.maximum(np.minimum.outer(finite, finite) - 1, 1)
        excess = (_correlations(sums, finite) - reference) ** 2 - expected / smaller
        excess[:, ~has] = 0.0
        np.fill_diagonal(excess, 0.0)
        correlation[day, has] = (excess.sum(axis=1) / max(has.sum() - 1, 1))[has]
    return unexplained, correlation


def _correlations(sums: Floats, finite: Ints) -> Floats:
    """Sums of products over the smaller number of values of each pair: missing ranks are 0."""
    return np.asarray(sums / np.maximum(np.minimum.outer(finite, finite), 1))
