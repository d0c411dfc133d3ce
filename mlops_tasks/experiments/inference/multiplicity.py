"""Several metrics and arms: p-values that allow for how many were looked at.

Holm's procedure (Scandinavian Journal of Statistics 6, 1979) keeps the probability of any false finding; that of
Benjamini and Hochberg (Journal of the Royal Statistical Society B 57, 1995) the expected share of false ones among the
findings, for metrics that do not depend on each other or do so positively. In `gatekeeping` secondary metrics are read
only where the primary ones have shown their effect (Westfall and Krishen, 2001): they cost the primary ones nothing.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.errors import ExperimentError

Floats = NDArray[np.float64]


def holm(p_values: Sequence[float]) -> Floats:
    """Adjusted p-values in the given order: each may be compared with the level of all."""
    found = _checked(p_values)
    order = np.argsort(found, kind="stable")
    steps = np.maximum.accumulate(found[order] * (len(found) - np.arange(len(found))))
    return _unsorted(np.minimum(1.0, steps), order)


def benjamini_hochberg(p_values: Sequence[float]) -> Floats:
    """Adjusted p-values in the given order: findings at a level have at most that expected share of false ones."""
    found = _checked(p_values)
    order, m = np.argsort(found, kind="stable"), len(found)
    steps = found[order] * m / np.arange(1, m + 1)
    return _unsorted(np.minimum(1.0, np.minimum.accumulate(steps[::-1])[::-1]), order)


def gatekeeping(families: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Adjusted p-values of families of metrics in their order, the primary one first.

    Within a family they are Holm's. A family is read at a level only if all metrics of the families before it are
    significant at it, so no adjusted p-value is below the largest of those before.

    Raises
    ------
    ExperimentError
        A family is empty, a metric is in two of them, or a p-value is none.
    """
    adjusted: dict[str, float] = {}
    floor = 0.0
    for family in families:
        if not family:
            raise ExperimentError("a family of metrics is empty; leave it out")
        again = adjusted.keys() & family.keys()
        if again:
            raise ExperimentError(
                f"the metric {min(again)} is in two families; it can be primary or secondary, not both"
            )
        values = np.maximum(floor, holm(list(family.values())))
        adjusted |= dict(zip(family, values.tolist(), strict=True))
        floor = float(values.max())
    return adjusted


def _checked(p_values: Sequence[float]) -> Floats:
    found = np.asarray(p_values, dtype=np.float64)
    if found.ndim != 1 or len(found) == 0 or not ((found >= 0) & (found <= 1)).all():
        raise ExperimentError(f"p-values are one or more numbers from 0 to 1, got {list(p_values)}")
    return found


def _unsorted(values: Floats, order: NDArray[np.int64]) -> Floats:
    result = np.empty_like(values)
    result[order] = values
    return result
