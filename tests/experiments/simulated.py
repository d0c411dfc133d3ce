"""Simulated experiments: daily differences of several kinds, and which methods find an effect in them.

Thousands of series go through a method at once, by the arrays that the product's functions use
(`evaluation/long_run.py`, `planned_looks.py`, `confidence_sequences.py`, `experiments/inference/resampling.py`);
`test_rates.py` shows that the functions for one series decide the same. Series have a standard deviation of one day of
1, and the mean that is asked for.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import stdtrit

from mlops_tasks.evaluation.confidence_sequences import asymptotic_radius
from mlops_tasks.evaluation.long_run import autocorrelation, honest_terms, prewhitened_variances
from mlops_tasks.evaluation.planned_looks import Boundary, LookTest, Spread, constant, look_moments
from mlops_tasks.experiments.inference.analysis import plan_for
from mlops_tasks.experiments.inference.dated import METHODS
from mlops_tasks.experiments.inference.offers import OVERLAP, Case, Data, Looks, first_look
from mlops_tasks.experiments.inference.resampling import (
    RESAMPLES,
    Blocks,
    block_length,
    bootstrap_p,
    resampling_weights,
)
from mlops_tasks.experiments.inference.results import Method
from mlops_tasks.experiments.inference.switchback import Switchback, sign_flips

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

WARM_UP = 200
ALPHA = 0.05
BATCH = 500
"""Series whose resamples are held at once."""
BLOCK, WASHOUT = 5, 1


def draw(data: Data, count: int, n: int, seed: int) -> Floats:
    """Series of mean 0 and variance 1; shape (count, n)."""
    generator = np.random.default_rng([seed, n, list(Data).index(data)])
    if data is Data.HEAVY_TAILS:
        return generator.standard_t(3, size=(count, n)) / np.sqrt(3)
    shocks = generator.normal(size=(count, n + WARM_UP))
    if data is Data.VOLATILITY_CLUSTERS:
        return _garch(shocks)[:, WARM_UP:]
    if data is Data.OVERLAPPING_LABELS:
        return lfilter(np.ones(OVERLAP) / np.sqrt(OVERLAP), [1.0], shocks, axis=1)[:, WARM_UP:]
    rho = {Data.INDEPENDENT: 0.0, Data.AR_03: 0.3, Data.AR_07: 0.7}[data]
    return lfilter([np.sqrt(1 - rho**2)], [1.0, -rho], shocks, axis=1)[:, WARM_UP:]


def _garch(shocks: Floats) -> Floats:
    """GARCH(1, 1) with 0.1 and 0.85, of unconditional variance 1."""
    values, variance = np.empty_like(shocks), np.ones(len(shocks))
    for day in range(shocks.shape[1]):
        values[:, day] = np.sqrt(variance) * shocks[:, day]
        variance = 0.05 + 0.1 * values[:, day] ** 2 + 0.85 * variance
    return values


def found(method: str, series: Floats, looks: Looks, effect: float = 0.0) -> Flags:
    """In which of the series, of mean zero, the method finds an effect of this size at any look; shape (count,)."""
    if method == Method.SWITCHBACK:
        return _switchback(series, effect)
    return _FINDERS[method](series + effect, looks)


def _paired(series: Floats, looks: Looks) -> Flags:
    """A test of one look, repeated at each."""
    plan = plan_for(Case(series.shape[1], looks))
    means, errors = look_moments(series, plan, Spread.COSINE)
    critical = np.array([stdtrit(honest_terms(days), 1 - ALPHA / 2) for days in plan.days])
    return (np.abs(means) > critical * errors).any(axis=1)


def _boundary(spread: Spread, boundary: Boundary) -> Callable[[Floats, Looks], Flags]:
    def decide(series: Floats, looks: Looks) -> Flags:
        test = LookTest(plan_for(Case(series.shape[1], looks)), spread, boundary)
        moments = look_moments(series, test.plan, spread)
        return test.statistics(*moments).max(axis=1) > constant(test, ALPHA)

    return decide


def _student(series: Floats, looks: Looks) -> Flags:
    days = np.array(plan_for(Case(series.shape[1], looks)).days)
    means = np.cumsum(series, axis=1)[:, days - 1] / days
    variances = (np.cumsum(series**2, axis=1)[:, days - 1] / days - means**2) * days / (days - 1)
    return (np.abs(means) > stdtrit(days - 1, 1 - ALPHA / 2) * np.sqrt(variances / days)).any(axis=1)


def _open_ended(series: Floats, looks: Looks) -> Flags:
    n = series.shape[1]
    days = np.array(plan_for(Case(n, looks)).days)
    means = (np.cumsum(series, axis=1) / np.arange(1, n + 1))[:, days - 1]
    radius = np.sqrt(prewhitened_variances(series)[:, days - 1]) * asymptotic_radius(days, first_look(n), ALPHA)
    return (np.abs(means) > radius).any(axis=1)


def _newey_west(series: Floats, looks: Looks) -> Flags:
    """As `mlops_tasks/evaluation/newey_west.py` has it, for many series at one look."""
    assert looks is Looks.ONE
    n = series.shape[1]
    centred = series - series.mean(axis=1, keepdims=True)
    power = (centred**2).sum(axis=1)
    rho = np.clip((centred[:, 1:] * centred[:, :-1]).sum(axis=1) / power, -0.97, 0.97)
    memory = 4 * rho**2 / ((1 - rho) ** 2 * (1 + rho) ** 2)
    andrews = np.ceil(1.1447 * (memory * n) ** (1 / 3)).astype(int)
    lags = np.clip(np.maximum(int(4 * (n / 100) ** (2 / 9)), andrews), 0, n // 3)
    total = power.copy()
    for lag in range(1, lags.max() + 1):
        weights = np.maximum(0.0, 1 - lag / (lags + 1))
        total += 2 * weights * (centred[:, lag:] * centred[:, :-lag]).sum(axis=1)
    errors = np.sqrt(np.maximum(0.0, total / n) / (n - 1))
    degrees = np.minimum(n - 1.0, np.maximum(1.0, 1.5 * n / (lags + 1)))
    return np.abs(series.mean(axis=1)) > stdtrit(degrees, 1 - ALPHA / 2) * errors


def _bootstrap(blocks: Blocks) -> Callable[[Floats, Looks], Flags]:
    """With the resamples that `bootstrap_mean` draws for a series of this length and these blocks."""

    def decide(series: Floats, looks: Looks) -> Flags:
        assert looks is Looks.ONE
        n = series.shape[1]
        lengths = np.array([block_length(float(rho), n, blocks) for rho in autocorrelation(series)])
        flags = np.zeros(len(series), dtype=bool)
        for length in np.unique(lengths):
            weights = resampling_weights(n, int(length), blocks, RESAMPLES, np.random.default_rng(0))
            for part in _batches(np.flatnonzero(lengths == length)):
                means = series[part].mean(axis=1)
                flags[part] = bootstrap_p(series[part] @ weights.T - means[:, None], means) <= ALPHA
        return flags

    return decide


def _switchback(series: Floats, effect: float) -> Flags:
    """The arm of each block is drawn; the days of one arm are better by the effect than those of the other."""
    design, generator = Switchback(series.shape[1], BLOCK, WASHOUT), np.random.default_rng(series.shape[1])
    signs = np.where(design.assign(generator, len(series)), 1.0, -1.0)
    gains = signs * design.contrasts(series) + effect
    flags, flips = np.zeros(len(series), dtype=bool), sign_flips(design.pairs)
    for part in _batches(np.arange(len(series))):
        others = np.abs(gains[part] @ flips.T)
        observed = np.abs(gains[part].sum(axis=1))[:, None] * (1 - 1e-12)
        flags[part] = (others >= observed).mean(axis=1) <= ALPHA
    return flags


def _batches(rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    return np.array_split(rows, -(-len(rows) // BATCH))


_FINDERS: dict[str, Callable[[Floats, Looks], Flags]] = {
    Method.PAIRED: _paired,
    **{method: _boundary(*how) for how, method in METHODS.items()},
    Method.OPEN_ENDED: _open_ended,
    Method.STUDENT: _student,
    Method.NEWEY_WEST: _newey_west,
    Method.CIRCULAR_BOOTSTRAP: _bootstrap(Blocks.CIRCULAR),
    Method.STATIONARY_BOOTSTRAP: _bootstrap(Blocks.STATIONARY),
}
ONE_LOOK = frozenset({Method.NEWEY_WEST, Method.CIRCULAR_BOOTSTRAP, Method.STATIONARY_BOOTSTRAP, Method.SWITCHBACK})
"""Measured at one look only; at several, Student's test shows what a test of one look does there."""
BOUNDARIES = frozenset({Method.PREWHITENED_POCOCK, Method.OBRIEN_FLEMING, Method.POCOCK})
"""Measured at several looks only; at one they are the tests of one look."""
