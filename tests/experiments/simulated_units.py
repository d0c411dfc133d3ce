"""Simulated experiments with independent units, by the product's own functions for one experiment.

Only the bootstrap goes through many at once, with the resamples that `units.bootstrap` draws for arms of this size;
`test_rates.py` shows that it decides the same.
"""

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.experiments.inference.offers import Data
from mlops_tasks.experiments.inference.results import Method
from mlops_tasks.experiments.inference.units import (
    RESAMPLES,
    Arms,
    RatioArm,
    cuped,
    mann_whitney,
    proportions,
    ratio,
    welch,
)

Floats = NDArray[np.float64]

UNIT_DATA = (Data.INDEPENDENT, Data.HEAVY_TAILS)
UNIT_METHODS = (
    Method.WELCH,
    Method.PROPORTIONS,
    Method.MANN_WHITNEY,
    Method.CUPED,
    Method.RATIO,
    Method.BOOTSTRAP,
)
LEVEL = 0.05
BATCH = 500
"""Experiments whose resamples are held at once."""


def found_units(
    methods: tuple[str, ...], cell: tuple[Data, int], count: int, effect: float, seed: int
) -> dict[str, NDArray[np.bool_]]:
    """In which experiments of n units in each arm a method finds an effect of so many standard deviations."""
    data, n = cell
    generator = np.random.default_rng([seed, n, UNIT_DATA.index(data)])
    before, values = np.empty((count, 2, n)), np.empty((count, 2, n))
    for each in range(count):
        before[each] = _values(data, generator, (2, n))
        values[each] = 0.7 * before[each] + np.sqrt(1 - 0.7**2) * _values(data, generator, (2, n))
    values[:, 1] += effect
    return {
        method: bootstrap_units(values)
        if method == Method.BOOTSTRAP
        else np.array([_found(method, *each) for each in zip(values, before, strict=True)])
        for method in methods
    }


def _values(data: Data, generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Of variance 1."""
    if data is Data.HEAVY_TAILS:
        return generator.standard_t(3, size=shape) / np.sqrt(3)
    return generator.normal(size=shape)


def _found(method: str, values: Floats, before: Floats) -> bool:
    arms = Arms(values[0], values[1])
    if method == Method.WELCH:
        result = welch(arms)
    elif method == Method.CUPED:
        result = cuped(arms, before[0], before[1])
    elif method == Method.PROPORTIONS:  # the share above the median
        above = (values > 0).sum(axis=1)
        result = proportions((int(above[0]), int(above[1])), (values.shape[1], values.shape[1]))
    elif method == Method.RATIO:  # profit by turnover, which lies between 0.5 and 1.5 and has no part in the effect
        turnover = 1 + 0.5 * np.sin(before)
        result = ratio(*(RatioArm(own * below, below) for own, below in zip(values, turnover, strict=True)))
    else:
        result = mann_whitney(arms)
    return result.p_value is not None and result.p_value <= LEVEL


def bootstrap_units(values: Floats) -> NDArray[np.bool_]:
    """`units.bootstrap` for experiments of shape (count, 2, n): resampled moments by how often each unit is drawn."""
    n, generator = values.shape[2], np.random.default_rng(0)
    rows = np.repeat(np.arange(RESAMPLES), n)
    weights = [
        np.bincount(rows * n + generator.integers(n, size=(RESAMPLES, n)).ravel(), minlength=RESAMPLES * n).reshape(
            RESAMPLES, n
        )
        / n
        for _ in range(2)
    ]
    flags = []
    for part in np.array_split(values, -(-len(values) // BATCH)):
        centred = part - part.mean(axis=2, keepdims=True)
        means = [centred[:, arm] @ weights[arm].T for arm in range(2)]
        variances = [(centred[:, arm] ** 2 @ weights[arm].T - means[arm] ** 2) / (n - 1) for arm in range(2)]
        t = (means[1] - means[0]) / np.sqrt(variances[0] + variances[1])
        error = np.sqrt(part.var(axis=2, ddof=1).sum(axis=1) / n)
        own = ((part[:, 1].mean(axis=1) - part[:, 0].mean(axis=1)) / error)[:, None]
        tail = np.minimum((t >= own).sum(axis=1), (t <= own).sum(axis=1))
        flags.append(2 * (1 + tail) / (1 + RESAMPLES) <= LEVEL)
    return np.concatenate(flags)
