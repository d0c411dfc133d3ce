"""The analysis of daily differences by a method that is offered for their case, the most powerful one by default."""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.errors import ExperimentError
from mlops_tasks.evaluation.planned_looks import LookDays, LookTest
from mlops_tasks.experiments.inference.dated import METHODS, newey_west, open_ended, paired, planned, prewhitened
from mlops_tasks.experiments.inference.offers import LOOK_STEPS, Case, Looks, demand, first_look, offered
from mlops_tasks.experiments.inference.resampling import Blocks, bootstrap_mean
from mlops_tasks.experiments.inference.results import Method, Result

Floats = NDArray[np.float64]

_SINGLE: dict[Method, Callable[[Floats, float], Result]] = {
    Method.PAIRED: paired,
    Method.PREWHITENED: prewhitened,
    Method.NEWEY_WEST: newey_west,
    Method.CIRCULAR_BOOTSTRAP: lambda values, confidence: bootstrap_mean(
        values, Blocks.CIRCULAR, confidence=confidence
    ),
    Method.STATIONARY_BOOTSTRAP: lambda values, confidence: bootstrap_mean(
        values, Blocks.STATIONARY, confidence=confidence
    ),
}
_PLANNED = {method: how for how, method in METHODS.items()}
DAILY_METHODS = frozenset({*_SINGLE, *_PLANNED, Method.OPEN_ENDED})


def plan_for(case: Case) -> LookDays:
    """The looks at a planned number of days: one at the end, or every week or day from `first_look` on."""
    if case.looks is Looks.ONE:
        return LookDays((case.n,))
    return LookDays.every(LOOK_STEPS[case.looks], first_look(case.n), case.n)


def look_test(case: Case, method: Method) -> LookTest | None:
    """The test that a method makes at the planned looks of a case; None for a method without a boundary."""
    return LookTest(plan_for(case), *_PLANNED[method]) if method in _PLANNED else None


def choose(case: Case) -> Method:
    """The most powerful method for daily differences that keeps its level in a case.

    Raises
    ------
    ExperimentError
        None does.
    """
    methods = [method for method in offered(case) if method in DAILY_METHODS]
    if not methods:
        raise ExperimentError(
            f"no method for daily differences keeps its level for {case.said()}: plan more days, or fewer looks"
        )
    return methods[0]


def analyse(
    differences: Floats | pd.Series, case: Case, method: Method | None = None, confidence: float = 0.95
) -> Result:
    """Analyse daily differences so far, at the newest look that was planned.

    Parameters
    ----------
    differences
        Treatment minus control by day, in time order; NaN are dropped.
    case
        The planned days and looks, set before the first day, and what is known of the days.
    method
        None: `choose`.

    Raises
    ------
    ExperimentError
        The method does not keep its level in this case, no look is due, or the days cannot be tested.
    """
    method = choose(case) if method is None else method
    if method not in DAILY_METHODS:
        raise ExperimentError(
            f"{method} is no method for daily differences; there are: {', '.join(sorted(DAILY_METHODS))}"
        )
    demand(method, case)
    days = int(np.sum(~np.isnan(np.asarray(differences, dtype=np.float64))))
    if method is Method.OPEN_ENDED:
        return open_ended(differences, first_look(case.n), confidence)
    if case.looks is not Looks.ONE and (test := look_test(case, method)) is not None:
        return planned(differences, test, confidence)
    if days < case.n:
        raise ExperimentError(f"one look was planned after {case.n} days, and {days} have a value: wait")
    return _SINGLE[method](np.asarray(differences, dtype=np.float64), confidence)


def course(
    differences: Floats | pd.Series, case: Case, method: Method | None = None, confidence: float = 0.95
) -> tuple[Result, ...]:
    """`analyse` at each planned look that the days suffice for, oldest first, but those that could not be taken.

    The intervals are those that were valid at each look.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[~np.isnan(values)]
    found = []
    for days in plan_for(case).days:
        if days <= len(values):
            with suppress(ExperimentError):
                found.append(analyse(values[:days], case, method, confidence))
    return tuple(found)
