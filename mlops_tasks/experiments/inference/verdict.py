"""What an analysis means, in plain words: the effect, how sure it is, what could be found, what would change it."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.evaluation.planned_looks import LookTest, Spread
from mlops_tasks.experiments.inference.power import WANTED, days_needed, detectable, long_run_deviation, one_look
from mlops_tasks.experiments.inference.results import Horizon, Method, Result

Floats = NDArray[np.float64]


class Outcome(StrEnum):
    """What was found."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no_difference"
    """The interval excludes every effect that matters."""
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Goal:
    """What the experiment was registered to find."""

    metric: str
    """Its name, for people."""
    least: float
    """The smallest effect that matters, in the metric's unit; above 0."""
    higher_is_better: bool = True
    final: bool = True
    """Whether this is the last look."""


@dataclass(frozen=True)
class Verdict:
    """The result with its sentences."""

    outcome: Outcome
    sentences: tuple[str, ...]
    detectable: float | None
    """Effect that this design finds with a probability of 80%; None where it is not known."""
    more_days: int | None
    """Days after which an effect as large as the observed one would be found with a probability of 80%, counted from
    now; None: not known, or not worth asking."""

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(self.sentences)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "outcome": self.outcome.value, "sentences": list(self.sentences), "text": self.text}


def judge(result: Result, goal: Goal, differences: Floats | None = None, test: LookTest | None = None) -> Verdict:
    """Say what a result means.

    Parameters
    ----------
    differences
        The daily differences so far, for the power; None for methods that have no days.
    test
        Of `planned`, its looks.
    """
    outcome = _outcome(result, goal)
    smallest, more = None, None
    if differences is not None:
        deviation = long_run_deviation(differences)
        if result.horizon is not Horizon.OPEN:
            smallest = detectable(deviation, test or _single(result), result.alpha)
        needed = days_needed(result.effect, deviation, result.alpha, WANTED)
        more = None if result.significant or needed is None else max(0, needed - result.n)
    sentences = [_effect(result, goal), _meaning(outcome, result, goal), _certainty(result)]
    if smallest is not None:
        sentences.append(_power(smallest, goal, test))
    sentences.append(_change(outcome, result, goal, more))
    return Verdict(outcome, tuple(sentences), smallest, more)


def _outcome(result: Result, goal: Goal) -> Outcome:
    if result.significant:
        ahead = (result.effect > 0) == goal.higher_is_better
        return Outcome.BETTER if ahead else Outcome.WORSE
    if max(abs(result.lower), abs(result.upper)) < goal.least:
        return Outcome.NO_DIFFERENCE
    return Outcome.UNCLEAR


def _effect(result: Result, goal: Goal) -> str:
    share = "" if result.relative_effect is None else f" ({result.relative_effect:+.1%} of control)"
    confidence = f"{100 * result.confidence:.4g}%"
    return (
        f"{goal.metric}: treatment minus control is {result.effect:+.5g}{share}, and the {confidence} "
        f"interval reaches from {result.lower:+.5g} to {result.upper:+.5g}."
    )


def _meaning(outcome: Outcome, result: Result, goal: Goal) -> str:
    if outcome is Outcome.BETTER:
        small = "" if abs(result.effect) >= goal.least else f", though by less than the {goal.least:g} that matters"
        return f"The treatment is better{small}."
    if outcome is Outcome.WORSE:
        return "The treatment is worse."
    if outcome is Outcome.NO_DIFFERENCE:
        return f"Neither arm is better by the {goal.least:g} that matters."
    return "No difference can be told from luck, and one that matters is not excluded."


def _certainty(result: Result) -> str:
    if result.horizon is Horizon.FIXED:
        when = "if this was the only look, at a length set beforehand"
    elif result.horizon is Horizon.PLANNED:
        when = f"over all {result.looks} planned looks, of which this is number {result.look}"
    else:
        when = "however often and whenever it is looked at"
    said = f"With no difference so much is found with a probability of {_probability(result.p_value)} {when}."
    if result.e_value is not None:
        said += f" E-value {result.e_value:.4g}."
    return f"{said} Assumed: {result.assumes}."


def _probability(p_value: float | None) -> str:
    if p_value is None:
        return "an unknown size"
    return "less than 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _power(smallest: float, goal: Goal, test: LookTest | None) -> str:
    length = "this length" if test is None else f"{test.plan.length} planned days"
    said = f"With {length} an effect of {smallest:.3g} is found with a probability of {WANTED:.0%}"
    if smallest > goal.least:
        return f"{said}: too large to rely on finding the {goal.least:g} that matters."
    return f"{said}, so the {goal.least:g} that matters would have been noticed."


def _change(outcome: Outcome, result: Result, goal: Goal, more: int | None) -> str:
    if outcome is Outcome.NO_DIFFERENCE:
        return "A smaller effect that matters would change this: it needs a longer experiment."
    if outcome is not Outcome.UNCLEAR:
        edge = result.lower if result.effect > 0 else result.upper
        return (
            f"A mean lower in size by {abs(edge):.3g} over these {result.n} observations would change this; "
            "so would assumptions that do not hold."
        )
    if result.horizon is Horizon.PLANNED and not goal.final:
        return "Nothing is decided yet: wait for the next look."
    if more is None:
        return "More data would change this only if the effect proves larger than it looks now."
    if more == 0:
        return "An effect of this size is usually found by now; another experiment may tell, a second look not."
    return (
        f"If the effect is as large as it looks, about {more} more days would show it with a probability of "
        f"{WANTED:.0%}; take them as a new experiment, or in the plan."
    )


def _single(result: Result) -> LookTest:
    return one_look(result.n, Spread.PREWHITENED if result.method is Method.PREWHITENED else Spread.COSINE)
