"""Compiled distance of two sorted samples, and ranks within days."""

import numpy as np
from numba import types
from numpy.typing import NDArray

from mlops_tasks.kernels import kernel

Floats = NDArray[np.float64]

_F8, _F4 = types.float64[::1], types.float32[::1]
_GRID, _ORDER, _SCORES = types.float64[:, ::1], types.int64[:, ::1], types.float32[:, ::1]


@kernel(_F8, _F8, _F8, _F8, _F4, also=((_F8, _F8, _F8, _F8, _F8),))
def sorted_distances(
    points: Floats, left: Floats, right: Floats, nearest: Floats, values: NDArray[np.floating]
) -> tuple[float, float]:
    """The Kolmogorov-Smirnov statistic and the Wasserstein distance of a profile and a sample, in one pass over both.

    Parameters
    ----------
    points, left, right, nearest
        As in `ColumnProfile`; shape (points,), at least one.
    values
        Finite, ascending; at least one.
    """
    n, at = len(values), 0
    ks = area = reference = below = 0.0
    last = min(points[0], float(values[0]))
    for i in range(len(points)):
        point = points[i]
        while at < n and values[at] < point:
            value = float(values[at])
            area += abs(reference - at / n) * (value - last)
            last = value
            at += 1
        if i == 0 or point > points[i - 1]:
            below = at / n
        area += abs(reference - at / n) * (point - last)
        last = point
        while at < n and values[at] == point:
            at += 1
        ks = max(ks, abs(left[i] - below), abs(right[i] - at / n))
        reference = nearest[i]
    while at < n:
        value = float(values[at])
        area += abs(reference - at / n) * (value - last)
        last = value
        at += 1
    return ks, area


@kernel(_GRID, _ORDER, _SCORES)
def score_ranks(grid: Floats, order: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Write ranks within each row, with mean ranks for ties, centred and of variance 1, into `scores`; NaN is skipped.

    Parameters
    ----------
    grid, order, scores
        Shape (days, width); `order` sorts the rows of `grid`, NaN last.

    Returns
    -------
    Number of finite values in each row, 0 if all of them are equal; `scores` is then unchanged, too.
    """
    counted = np.zeros(len(grid), dtype=np.int64)
    for day in range(len(grid)):
        places, n = order[day], grid.shape[1]
        while n > 0 and np.isnan(grid[day, places[n - 1]]):
            n -= 1
        if n == 0 or grid[day, places[0]] == grid[day, places[n - 1]]:
            continue
        counted[day] = n
        squares, first = 0.0, 0
        while first < n:
            after = first + 1
            while after < n and grid[day, places[after]] == grid[day, places[first]]:
                after += 1
            rank = (first + after - 1) / 2 - (n - 1) / 2
            squares += (after - first) * rank * rank
            for k in range(first, after):
                scores[day, places[k]] = rank
            first = after
        deviation = np.sqrt(squares / n)
        for k in range(n):
            scores[day, places[k]] /= deviation
    return counted
