"""Is a model worse than the one it replaced, or is to replace? Planned looks at mature days. Pure policy.

Whoever looks every day and acts on the result removes good models by luck. So the looks are planned: the first after
`first_look_days` mature days, then one every `look_every_days`, up to `probation_days`. They share the budget `alpha`
in equal parts, as the gate's looks do (`looks.py`). However often somebody asks, a model that is no worse is removed
with a probability of at most `alpha`, however the looks depend on each other (Bonferroni), as far as the test keeps its
level. The test is `cosine_mean`, one-sided; docs/measured_rates.md has the measured rates.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mlops_tasks.config import DeploymentSettings
from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.files import finite_or_none

LEAST_DAYS = 10
"""Days with a rank IC of both models that a look needs; with fewer it finds nothing."""


@dataclass(frozen=True)
class LookPlan:
    """The looks at one model."""

    days: tuple[int, ...]
    """The number of mature days from which on each look is due, ascending."""
    level: float
    """One-sided level of each look."""

    @classmethod
    def of(cls, limits: DeploymentSettings) -> "LookPlan":
        """The plan of the settings; it has no look if the probation is too short for one."""
        rules = limits.quality
        days = tuple(range(rules.first_look_days, limits.probation_days + 1, rules.look_every_days))
        return cls(days, rules.alpha / max(1, len(days)))

    def due(self, mature_days: int) -> int:
        """Number, from 1, of the newest look that is due; 0: none is yet."""
        return bisect_right(self.days, mature_days)


@dataclass(frozen=True)
class Judgement:
    """The result of a look; numbers are None if too few days have a rank IC of both models."""

    number: int
    planned: int
    level: float
    n_days: int
    loss: float | None = None
    """Mean daily rank IC of the rival minus the model's."""
    p_value: float | None = None
    """One-sided, against loss > 0."""
    first_day: str = ""
    last_day: str = ""

    @property
    def worse(self) -> bool:
        """Whether the model is significantly worse."""
        return self.loss is not None and self.p_value is not None and self.loss > 0 and self.p_value <= self.level

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return vars(self)

    def said(self, rival: str) -> str:
        """One sentence for people, about "it"."""
        look = f"look {self.number} of {self.planned}"
        if self.loss is None or self.p_value is None:
            return f"{look}: {self.n_days} days have a rank IC of it and of {rival}, but {LEAST_DAYS} are needed"
        side = "below" if self.loss > 0 else "above"
        return (
            f"its daily rank IC is {abs(self.loss):.5f} {side} that of {rival} on {self.n_days} days from "
            f"{self.first_day} to {self.last_day}: one-sided p {self.p_value:.4f}, {look} at level {self.level:.4f}"
        )


def judge(difference: pd.Series, plan: LookPlan, number: int) -> Judgement:
    """Take a look.

    Parameters
    ----------
    difference
        Daily rank IC of the model minus its rival's, by datetime, mature days only, none after the last planned one.
        NaN days are left out.
    number
        Of the look, from 1.
    """
    loss = -difference.dropna().sort_index()
    known = Judgement(number, len(plan.days), plan.level, len(loss))
    if len(loss) < LEAST_DAYS:
        return known
    test = cosine_mean(loss)
    first, last = (str(day.date()) for day in (loss.index[0], loss.index[-1]))
    found = (finite_or_none(test.mean), finite_or_none(test.p_one_sided))
    return Judgement(known.number, known.planned, known.level, test.n, *found, first, last)
