"""Daily differences outside the kinds that methods are offered by: what their assumptions are worth where they fail.

Each is plausible of the difference between two models, and each breaks an assumption: memory that fades at two paces or
comes back, a skewed distribution, a spread that changes. Series have mean 0 and a standard deviation of one day of 1.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve, lfilter

from mlops_tasks.experiments.inference.offers import Looks
from mlops_tasks.experiments.inference.results import Method

Floats = NDArray[np.float64]

_WARM_UP = 1000


def draw_other(kind: str, count: int, n: int, seed: int) -> Floats:
    """Series of one of `OTHER_DAYS`; shape (count, n)."""
    return OTHER_DAYS[kind](np.random.default_rng([seed, n, list(OTHER_DAYS).index(kind)]), count, n)


def _autoregression(*coefficients: float) -> Callable[[np.random.Generator, int, int], Floats]:
    def drawn(generator: np.random.Generator, count: int, n: int) -> Floats:
        shocks = generator.normal(size=(count, n + _WARM_UP))
        series = lfilter([1.0], [1.0, *(-each for each in coefficients)], shocks, axis=1)[:, _WARM_UP:]
        impulse = lfilter([1.0], [1.0, *(-each for each in coefficients)], np.eye(1, _WARM_UP)[0])
        return series / np.sqrt(np.sum(impulse**2))

    return drawn


def _level(share: float) -> Callable[[np.random.Generator, int, int], Floats]:
    """Noise around a level that loses a tenth of itself a day; `share` is its part in the variance."""

    def drawn(generator: np.random.Generator, count: int, n: int) -> Floats:
        level = _autoregression(0.9)(generator, count, n)
        return np.sqrt(share) * level + np.sqrt(1 - share) * generator.normal(size=(count, n))

    return drawn


def _long_memory(generator: np.random.Generator, count: int, n: int) -> Floats:
    """Fractionally integrated noise of order 0.2 (Granger and Joyeux, Journal of Time Series Analysis 1, 1980)."""
    lags = np.arange(1, _WARM_UP)
    weights = np.concatenate([[1.0], np.cumprod((lags - 1 + 0.2) / lags)])
    shocks = generator.normal(size=(count, n + _WARM_UP - 1))
    return fftconvolve(shocks, weights[None, :], axes=1)[:, _WARM_UP - 1 : _WARM_UP - 1 + n] / np.sqrt(
        np.sum(weights**2)
    )


def _months(generator: np.random.Generator, count: int, n: int) -> Floats:
    """A tenth of the variance is common to the 21 days of a month; months begin anywhere."""
    months = np.repeat(generator.normal(size=(count, n // 21 + 2)), 21, axis=1)
    starts = generator.integers(21, size=count)[:, None] + np.arange(n)
    common = np.take_along_axis(months, starts, axis=1)
    return np.sqrt(0.1) * common + np.sqrt(0.9) * generator.normal(size=(count, n))


def _skewed(generator: np.random.Generator, count: int, n: int) -> Floats:
    """Lognormal, of a skewness of 6."""
    return (generator.lognormal(size=(count, n)) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)


def _spread(first: float, last: float) -> Callable[[np.random.Generator, int, int], Floats]:
    def drawn(generator: np.random.Generator, count: int, n: int) -> Floats:
        spread = np.linspace(first, last, n)
        return generator.normal(size=(count, n)) * spread / np.sqrt(np.mean(spread**2))

    return drawn


def _weekdays(generator: np.random.Generator, count: int, n: int) -> Floats:
    """A part of each day of the week that is the same every week."""
    days = np.resize([1.0, 0.5, 0.0, -0.5, -1.0], n)
    return (generator.normal(size=(count, n)) + days) / np.sqrt(1.5)


OTHER_DAYS: dict[str, Callable[[np.random.Generator, int, int], Floats]] = {
    "AR(1) of -0.3": _autoregression(-0.3),
    "AR(1) of 0.8": _autoregression(0.8),
    "AR(2) of 0.3 and 0.3": _autoregression(0.3, 0.3),
    "AR(2) of 0.5 and -0.4": _autoregression(0.5, -0.4),
    "weekdays that differ": _weekdays,
    "0.2 of the day a week before": _autoregression(0.0, 0.0, 0.0, 0.0, 0.2),
    "0.4 of the day a week before": _autoregression(0.0, 0.0, 0.0, 0.0, 0.4),
    "slow level, a tenth of the variance": _level(0.1),
    "slow level, a fifth of the variance": _level(0.2),
    "months, a tenth of the variance": _months,
    "long memory, d = 0.2": _long_memory,
    "lognormal": _skewed,
    "spread that rises sixfold": _spread(0.3, 1.8),
    "spread that falls sixfold": _spread(1.8, 0.3),
}

OTHER_METHODS = (
    (Method.PREWHITENED, Looks.ONE),
    (Method.PREWHITENED, Looks.WEEKLY),
    (Method.OPEN_ENDED, Looks.DAILY),
    (Method.PAIRED, Looks.ONE),
    (Method.OBRIEN_FLEMING, Looks.WEEKLY),
    (Method.POCOCK, Looks.DAILY),
)
"""What is offered where nothing is known of the days: errors that fade evenly, and then cosine terms."""
