"""Power for daily differences that depend on each other: what effect a plan can find, and how many days it takes.

What counts is the long-run standard deviation of a day: independent days of that deviation tell as much of the mean as
the dependent ones do. With looks, effects are added to the simulated series that the boundary comes from
(`planned_looks`); at one look it is the noncentral t distribution of the cosine estimator.
"""

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.errors import ExperimentError
from mlops_tasks.evaluation.long_run import honest_terms, prewhitened_variances
from mlops_tasks.evaluation.planned_looks import LookDays, LookTest, Spread
from mlops_tasks.experiments.inference.results import finite_days

Floats = NDArray[np.float64]

WANTED = 0.8
LEAST_DAYS, MOST_DAYS = 60, 2520
"""Ten years of market days: where more would be needed, it is said that there is no end."""


def long_run_deviation(differences: Floats) -> float:
    """Long-run standard deviation of a day, from days before the experiment or from its own so far.

    It is the prewhitened estimate: with few days it varies less than that of the test itself. NaN are dropped.

    Raises
    ------
    ExperimentError
        Fewer than ten days, or no variance.
    """
    values = finite_days(differences)
    if len(values) < 10:
        raise ExperimentError(f"the spread of daily differences needs ten days at least, got {len(values)}")
    return float(np.sqrt(prewhitened_variances(values)[-1]))


def one_look(days: int, spread: Spread = Spread.PREWHITENED) -> LookTest:
    """The test of a single look after so many days."""
    return LookTest(LookDays((days,)), spread)


def power(effect: float, deviation: float, test: LookTest, alpha: float = 0.05) -> float:
    """Probability that a test finds a mean daily difference, at any of its looks; two-sided at alpha.

    Parameters
    ----------
    effect, deviation
        In the metric's unit: the true mean daily difference, and the long-run standard deviation of a day.
    """
    if deviation <= 0:
        raise ExperimentError(f"a long-run standard deviation is above 0, got {deviation}")
    standardised = abs(effect) / deviation
    if len(test.plan.days) == 1 and test.spread is Spread.COSINE:
        return _student_power(standardised, test.plan.length, alpha)
    return test.found(standardised, alpha)


def detectable(deviation: float, test: LookTest, alpha: float = 0.05, wanted: float = WANTED) -> float:
    """The smallest mean daily difference that a test finds with the wanted probability, in the metric's unit."""
    if not alpha < wanted < 1:
        raise ExperimentError(f"a wanted power lies between the level {alpha} and 1, got {wanted}")
    low, high = 0.0, 0.25 * deviation
    while power(high, deviation, test, alpha) < wanted:
        low, high = high, 2 * high
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, deviation, test, alpha) >= wanted else (middle, high)
    return high


def days_needed(effect: float, deviation: float, alpha: float = 0.05, wanted: float = WANTED) -> int | None:
    """Days after which the test of one look (`paired`) finds the effect with the wanted probability.

    None: more than ten years. 60 at least.
    """
    low, high = LEAST_DAYS - 1, MOST_DAYS
    if power(effect, deviation, one_look(high, Spread.COSINE), alpha) < wanted:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(effect, deviation, one_look(middle, Spread.COSINE), alpha) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


def _student_power(standardised: float, n: int, alpha: float) -> float:
    from scipy.special import nctdtr, stdtrit

    terms = honest_terms(n)
    critical, shift = float(stdtrit(terms, 1 - alpha / 2)), standardised * float(np.sqrt(n))
    if shift > 37:  # nctdtr loses its digits there
        return 1.0
    return float(1 - nctdtr(terms, shift, critical) + nctdtr(terms, shift, -critical))
