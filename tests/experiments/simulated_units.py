"""Simulated experiments with independent units, by the product's own functions for one experiment."""

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.experiments.inference.offers import Data
from mlops_tasks.experiments.inference.results import Method
from mlops_tasks.experiments.inference.units import Arms, RatioArm, cuped, mann_whitney, proportions, ratio, welch

Floats = NDArray[np.float64]

UNIT_DATA = (Data.INDEPENDENT, Data.HEAVY_TAILS)
UNIT_METHODS = (Method.WELCH, Method.PROPORTIONS, Method.MANN_WHITNEY, Method.CUPED, Method.RATIO)
LEVEL = 0.05


def found_units(
    methods: tuple[str, ...], cell: tuple[Data, int], count: int, effect: float, seed: int
) -> dict[str, NDArray[np.bool_]]:
    """In which experiments of n units in each arm a method finds an effect of so many standard deviations."""
    data, n = cell
    generator = np.random.default_rng([seed, n, UNIT_DATA.index(data)])
    flags: dict[str, list[bool]] = {method: [] for method in methods}
    for _ in range(count):
        before = _values(data, generator, (2, n))
        values = 0.7 * before + np.sqrt(1 - 0.7**2) * _values(data, generator, (2, n))
        values[1] += effect
        for method in methods:
            flags[method].append(_found(method, values, before))
    return {method: np.array(found) for method, found in flags.items()}


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
