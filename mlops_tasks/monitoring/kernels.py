"""Compiled distance of two sorted samples."""

import numpy as np
from numba import types
from numpy.typing import NDArray

from mlops_tasks.kernels import kernel

Floats = NDArray[np.float64]

_F8, _F4 = types.float64[::1], types.float32[::1]


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
