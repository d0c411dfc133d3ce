"""Compiled: distances of sorted samples, ranks and statistics of days, correlations of ranks."""

import numpy as np
from numba import types
from numpy.typing import NDArray

from mlops_tasks.kernels import kernel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_F8, _F4 = types.float64[::1], types.float32[::1]
_I8, _GRID, _ORDER = types.int64[::1], types.float64[:, ::1], types.int64[:, ::1]
_MATRIX, _PRODUCTS = _GRID, types.float32[:, ::1]


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


@kernel(_GRID, _ORDER, _I8, _F4)
def rank_days(grid: Floats, order: Ints, begins: Ints, scores: NDArray[np.float32]) -> Ints:
    """Sort each day's values, and write their ranks, with mean ranks for ties, centred and of variance 1; skips NaN.

    Parameters
    ----------
    grid
        Shape (days, width), padded with NaN; each row is sorted in place, NaN last.
    order
        Shape (days, width); sorts the rows of `grid`, NaN last.
    begins
        Shape (days + 1,): where each day's rows begin in `scores`.
    scores
        Shape (rows,), zeros; those of NaN, and of a day whose values are all equal, stay 0.

    Returns
    -------
    Number of finite values of each day, shape (days,).
    """
    finite = np.zeros(len(grid), dtype=np.int64)
    values = np.empty(grid.shape[1])
    for day in range(len(grid)):
        places, n, begin = order[day], grid.shape[1], begins[day]
        while n > 0 and np.isnan(grid[day, places[n - 1]]):
            n -= 1
        finite[day] = n
        for k in range(n):
            values[k] = grid[day, places[k]]
        grid[day, :n] = values[:n]
        grid[day, n:] = np.nan
        if n == 0 or values[0] == values[n - 1]:
            continue
        squares, first = 0.0, 0
        while first < n:
            after = first + 1
            while after < n and values[after] == values[first]:
                after += 1
            rank = (first + after - 1) / 2 - (n - 1) / 2
            squares += (after - first) * rank * rank
            for k in range(first, after):
                scores[begin + places[k]] = rank
            first = after
        deviation = np.sqrt(squares / n)
        for k in range(n):
            scores[begin + places[k]] /= deviation
    return finite


@kernel(_GRID, _I8, _F8, types.float64, types.float64)
def distance_statistics(ordered: Floats, finite: Ints, centre: Floats, scale: float, extreme: float) -> Floats:
    """How far each day's values lie from its centre, in ranges: mean of ln(1 + distance), and share of extreme ones.

    Parameters
    ----------
    ordered
        Shape (days, width); the first values of each row, `finite` of them, are finite and ascend.
    finite, centre
        Shape (days,); the centre is the median, of an even number of values the lower one in the middle.
    scale
        Least range, positive; a day's is twice the median distance from its centre, if that is wider.
    extreme
        Distance beyond which a value is extreme.

    Returns
    -------
    Shape (days, 2); NaN for a day without values.
    """
    result = np.full((len(ordered), 2), np.nan)
    for day in range(len(ordered)):
        values, n, middle = ordered[day], finite[day], centre[day]
        if n == 0:
            continue
        # The distances ascend on both sides of the centre: half of them are passed, the nearer one first.
        below, above = (n - 1) // 2, (n - 1) // 2 + 1
        distance = 0.0
        for _ in range((n - 1) // 2 + 1):
            if above == n or (below >= 0 and middle - values[below] <= values[above] - middle):
                distance = middle - values[below]
                below -= 1
            else:
                distance = values[above] - middle
                above += 1
        width = max(2 * distance, scale)
        logarithms, beyond = 0.0, 0
        for k in range(n):
            distance = abs(values[k] - middle) / width
            logarithms += np.log1p(distance)
            beyond += distance > extreme
        result[day, 0] = logarithms / n
        result[day, 1] = beyond / n
    return result


@kernel(_MATRIX, _PRODUCTS, _I8)
def add_correlations(total: Floats, sums: NDArray[np.float32], finite: Ints) -> None:
    """Add a day's correlations to `total`: sums of products over the smaller number of values of each pair.

    Shapes (columns, columns), twice, and (columns,); missing ranks are 0.
    """
    for i in range(len(total)):
        for j in range(len(total)):
            total[i, j] += sums[i, j] / max(min(finite[i], finite[j]), 1)


@kernel(_PRODUCTS, _I8, _MATRIX)
def correlation_distance(sums: NDArray[np.float32], finite: Ints, reference: Floats) -> Floats:
    """Mean squared difference of each column's correlations from the reference's, less what is expected by chance.

    Parameters
    ----------
    sums, finite
        As for `add_correlations`.
    reference
        Rank correlations, shape (columns, columns).

    Returns
    -------
    Shape (columns,); over the other columns that have values. NaN for a column that has none.
    """
    result = np.full(len(finite), np.nan)
    others = max((finite > 0).sum() - 1, 1)
    for i in range(len(finite)):
        if finite[i] == 0:
            continue
        total = 0.0
        for j in range(len(finite)):
            if j != i and finite[j] > 0:
                pairs, expected = min(finite[i], finite[j]), reference[i, j]
                chance = (1 - expected * expected) ** 2 / max(pairs - 1, 1)
                total += (sums[i, j] / pairs - expected) ** 2 - chance
        result[i] = total / others
    return result
