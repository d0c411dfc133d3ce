"""Arms that are compared on the same days: daily differences, treatment minus control.

- `paired`, `prewhitened` and `newey_west`: one look at a length that was set beforehand.
- `planned`: looks that were planned beforehand, with a boundary that keeps the level over all of them.
- `open_ended`: any day from a first one on, without a plan; it costs power.
- `bounded`: any day, for differences with a known range, without assumptions on their dependence; it costs more.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.errors import ExperimentError
from mlops_tasks.evaluation.confidence_sequences import (
    Bernstein,
    asymptotic_evidence,
    asymptotic_sequence,
    lagged_comparison,
)
from mlops_tasks.evaluation.long_run import autocorrelation, honest_terms
from mlops_tasks.evaluation.newey_west import newey_west_mean
from mlops_tasks.evaluation.planned_looks import Boundary, LookDays, LookTest, Spread, look_moments
from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.experiments.inference.offers import demand_persistence
from mlops_tasks.experiments.inference.results import Estimate, Horizon, Method, Result, finite_days, tested

Floats = NDArray[np.float64]

LEAST_DAYS = 30
"""With fewer days the long-run variance of nothing is known; docs/experiments.md has what was measured."""


@dataclass(frozen=True)
class DailyDifferences:
    """Treatment minus control on the days on which both have a value."""

    values: pd.Series
    """By day, ascending."""
    left_out: int
    """Days on which only one arm has a value."""

    @classmethod
    def of(cls, control: pd.Series, treatment: pd.Series) -> "DailyDifferences":
        """Pair two daily series by their day.

        Raises
        ------
        ExperimentError
            A day is there twice, or the arms have no day in common.
        """
        for name, series in (("control", control), ("treatment", treatment)):
            if series.index.has_duplicates:
                day = series.index[series.index.duplicated()][0]
                raise ExperimentError(f"the {name} arm has more than one value for {day}; give one a day")
        both = pd.concat({"control": control, "treatment": treatment}, axis=1, sort=True).sort_index()
        known = both.notna()
        found = (both["treatment"] - both["control"])[known.all(axis=1)]
        if found.empty:
            raise ExperimentError(
                "the arms have no day in common; days are paired by their date, which must be written alike"
            )
        return cls(found, int(known.any(axis=1).sum()) - len(found))


def paired(differences: Floats | pd.Series, confidence: float = 0.95) -> Result:
    """Test the mean daily difference once, by the equal-weighted cosine estimator with few terms.

    Parameters
    ----------
    differences
        In time order; NaN are dropped.

    Raises
    ------
    ExperimentError
        Fewer than 30 days, no variance, or a persistence that is beyond what was measured.
    """
    values = _days(differences)
    test = cosine_mean(values, confidence, terms=honest_terms(len(values)))
    found = Estimate(test.mean, test.standard_error, test.degrees_of_freedom, test.n)
    return tested(found, Method.PAIRED, confidence, f"one look, at a length set beforehand; {_FADES}")


def prewhitened(differences: Floats | pd.Series, confidence: float = 0.95) -> Result:
    """Test the mean daily difference once, with the prewhitened standard error and the critical value of `LookTest`.

    It finds more than `paired` where the days' memory fades by the same share each day, as their first autocorrelation
    says; a season, or a memory that comes back after days, is seen by `paired` alone.

    Raises
    ------
    ExperimentError
        As for `paired`.
    """
    values = _days(differences)
    result = planned(values, LookTest(LookDays((len(values),))), confidence)
    return replace(result, horizon=Horizon.FIXED, assumes=f"one look, at a length set beforehand; {_FADES_EVENLY}")


def newey_west(differences: Floats | pd.Series, confidence: float = 0.95) -> Result:
    """Test the mean daily difference once, by Newey and West's standard error with an automatic lag.

    It finds more than `paired`, and is offered only for days that are known not to depend on each other in their mean
    (`offers.refusal` has its rates elsewhere).

    Raises
    ------
    ExperimentError
        As for `paired`.
    """
    test = newey_west_mean(_days(differences), confidence=confidence)
    found = Estimate(test.mean, test.standard_error, test.degrees_of_freedom, test.n)
    return tested(found, Method.NEWEY_WEST, confidence, "one look, at a length set beforehand; days without memory")


METHODS = {
    (Spread.PREWHITENED, Boundary.OBRIEN_FLEMING): Method.PREWHITENED,
    (Spread.PREWHITENED, Boundary.POCOCK): Method.PREWHITENED_POCOCK,
    (Spread.COSINE, Boundary.OBRIEN_FLEMING): Method.OBRIEN_FLEMING,
    (Spread.COSINE, Boundary.POCOCK): Method.POCOCK,
}
_FADES_EVENLY = "dependence that fades evenly from day to day"
_FADES = "dependence that fades within a month"


def planned(differences: Floats | pd.Series, test: LookTest, confidence: float = 0.95) -> Result:
    """The newest planned look that the days suffice for.

    The interval is the repeated confidence interval (Jennison and Turnbull, Journal of the Royal Statistical Society B
    51, 1989) and holds at all looks together, as the p-value does. A boundary once crossed stays crossed: whoever had
    stopped then was right to, so the p-value never rises.

    Raises
    ------
    ExperimentError
        The first look is not due yet, more days are given than were planned, or as for `paired`.
    """
    values, plan = _days(differences), test.plan
    due = tuple(days for days in plan.days if days <= len(values))
    if not due:
        raise ExperimentError(
            f"the first look is planned after {plan.days[0]} days, and {len(values)} have a value: wait"
        )
    if len(values) > plan.length:
        raise ExperimentError(
            f"{plan.length} days were planned and {len(values)} are given; the plan is over: read its last look, and "
            "register a new experiment for more days"
        )
    means, errors = look_moments(values[None, :], LookDays(due), test.spread)
    mean, error = float(means[0, -1]), float(errors[0, -1])
    half = test.critical(len(due), 1 - confidence) * error
    fades = _FADES if test.spread is Spread.COSINE else _FADES_EVENLY
    return Result(
        method=METHODS[test.spread, test.boundary],
        effect=mean,
        lower=mean - half,
        upper=mean + half,
        confidence=confidence,
        p_value=test.adjusted_p(float(test.statistics(means, errors).max())),
        n=due[-1],
        horizon=Horizon.PLANNED,
        look=len(due),
        looks=len(plan.days),
        standard_error=error,
        degrees_of_freedom=float(honest_terms(due[-1])) if test.spread is Spread.COSINE else None,
        assumes=f"{len(plan.days)} looks, planned before the first; {fades}",
    )


def open_ended(differences: Floats | pd.Series, first_day: int = 60, confidence: float = 0.95) -> Result:
    """The newest day of a confidence sequence that holds on all days from `first_day` on.

    There is no planned end. The p-value is the smallest level at which the sequence of some day so far excludes zero.

    Raises
    ------
    ExperimentError
        The first day has not come yet, or as for `paired`.
    """
    values = _days(differences)
    if len(values) < first_day:
        raise ExperimentError(f"the first look is on day {first_day}, and {len(values)} days have a value: wait")
    sequence = asymptotic_sequence(values, first_day, 1 - confidence)
    evidence = asymptotic_evidence(values, first_day, 1 - confidence)
    return Result(
        method=Method.OPEN_ENDED,
        effect=float(sequence.mean[-1]),
        lower=float(sequence.lower[-1]),
        upper=float(sequence.upper[-1]),
        confidence=confidence,
        p_value=float(min(1.0, 1 / max(1.0, evidence.max()))),
        e_value=float(evidence[-1]),
        n=len(values),
        horizon=Horizon.OPEN,
        look=len(values) - first_day + 1,
        looks=None,
        assumes=f"{first_day} days suffice to know the long-run variance; {_FADES_EVENLY}",
    )


def bounded(differences: Floats | pd.Series, bound: Bernstein, lag: int = 1, confidence: float = 0.95) -> Result:
    """Any day, for differences in a known range: the empirical Bernstein confidence sequence and its e-value.

    What is estimated is the mean of what was to be expected of each day, given the days before. `lag` is after how many
    days a difference is known: 1 for the next day.

    Raises
    ------
    ExperimentError
        A difference lies outside the range, or no variance.
    """
    values = finite_days(np.asarray(differences, dtype=np.float64))
    try:
        found = lagged_comparison(values, lag, 1 - confidence, bound)
    except ValueError as error:
        raise ExperimentError(str(error)) from error
    ahead = found.mean >= 0
    return Result(
        method=Method.BERNSTEIN,
        effect=found.mean,
        lower=found.lower,
        upper=found.upper,
        confidence=confidence,
        p_value=min(1.0, 2 * min(found.p_better, found.p_worse)),
        e_value=found.e_better if ahead else found.e_worse,
        n=found.n,
        horizon=Horizon.OPEN,
        look=found.n,
        looks=None,
        assumes="differences in the stated range; any dependence: it is about what was to be expected each day",
    )


def _days(differences: Floats | pd.Series) -> Floats:
    values = finite_days(np.asarray(differences, dtype=np.float64))
    if len(values) < LEAST_DAYS:
        raise ExperimentError(
            f"a test of daily differences needs {LEAST_DAYS} days, got {len(values)}: the error of their mean cannot "
            "be known from fewer; wait"
        )
    demand_persistence(float(autocorrelation(values)))
    return values
