"""The gate's looks: when a challenger may be compared with the champion, and at which level. Pure policy.

Whoever compares every day finds a better model by luck within the year, and skill where there is none. So the year has
an error budget: `alpha` is the probability of at least one false promotion in `YEAR_DAYS` market days, either of a
model that is no better than the champion or of a first model that has no skill. It is spent in equal parts over planned
looks, one every `look_every_days` market days, so it holds however the looks depend on each other (Bonferroni), and for
any period as long as a year. A year begins with its first look. What is not spent is not carried over.

A look belongs to one training on one day of bars against one champion. If the training is judged again, it is the same
look at the same level, and nothing more is spent.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from mlops_tasks.config import GateSettings

YEAR_DAYS = 252
"""Market days of a year."""

TOLERANCE = 1e-9
"""Tolerance of sums of levels."""

LookKind = Literal["gain", "skill"]


@dataclass(frozen=True)
class LookSubject:
    """What a look examines."""

    training_key: str
    day: date
    """Newest day of the bars with which the challenger was trained and tested."""
    champion: int
    """Version that it is compared with; 0: none."""


@dataclass(frozen=True)
class Look:
    """One planned comparison."""

    subject: LookSubject
    kind: LookKind
    """`gain` over a champion, or `skill` of a model that has none to beat."""
    number: int
    """In its year, from 1."""
    planned: int | None
    """Number of looks that a year's budget allows; None: there is no budget."""
    level: float
    """One-sided level of this look's tests."""
    spent: float
    """Of the year's budget, including this look."""
    left: float | None
    """Of the year's budget; None: there is none."""
    year_began: date

    def said(self) -> str:
        """One sentence for people."""
        which = f"look {self.number}" if self.planned is None else f"look {self.number} of {self.planned}"
        since = f"in the year since {self.year_began}"
        if self.left is None:
            return f"{which} {since} at level {self.level:.4f}, without a budget: {self.spent:.4f} spent"
        return f"{which} {since} at level {self.level:.4f}: {self.spent:.4f} spent, {self.left:.4f} left"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = asdict(self)
        subject = {**values["subject"], "day": self.subject.day.isoformat()}
        return {**values, "subject": subject, "year_began": self.year_began.isoformat()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        subject = LookSubject(**{**values["subject"], "day": date.fromisoformat(values["subject"]["day"])})
        return cls(**{**values, "subject": subject, "year_began": date.fromisoformat(values["year_began"])})


@dataclass(frozen=True)
class Wait:
    """No look today."""

    last: date
    """Day of the newest look."""
    days: int
    """Market days until the next look."""
    next_day: date
    """Day of the next look; beyond the market's calendar, Mondays to Fridays are counted."""
    spent: float
    """Of the year's budget."""
    left: float | None

    def said(self) -> str:
        """One sentence for people."""
        budget = f"{self.spent:.4f} of the year's budget is spent"
        due = f"the next is due in {self.days} market days, about {self.next_day}"
        return f"the last look was on {self.last}, {due}; {budget}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "last": self.last.isoformat(), "next_day": self.next_day.isoformat()}


class MarketDays:
    """Counts the days of a market's calendar."""

    def __init__(self, days: pd.DatetimeIndex | Iterable[date]) -> None:
        self._days = pd.DatetimeIndex(days).to_numpy().astype("datetime64[D]")
        """Ascending."""

    def between(self, first: date, last: date) -> int:
        """Market days after `first` up to `last`; negative if `last` is the earlier day."""
        return int(np.subtract(*np.searchsorted(self._days, np.array([last, first], "datetime64[D]"), side="right")))

    def after(self, day: date, days: int) -> date:
        """The day this many market days later."""
        start = int(np.searchsorted(self._days, np.datetime64(day), side="right"))
        known = self._days[start : start + days]
        if len(known) == days:
            return date.fromisoformat(str(known[-1]))
        last = known[-1] if len(known) else np.datetime64(day)
        later = np.busday_offset(last, days - len(known), roll="backward")
        return date.fromisoformat(str(later))


def plan_look(
    subject: LookSubject, kind: LookKind, past: Sequence[Look], market: MarketDays, policy: GateSettings
) -> Look | Wait:
    """Whether a subject may be looked at, and at which level.

    Parameters
    ----------
    past
        The looks that were taken, in the order in which they were taken; those of one year are enough.
    """
    for look in past:
        if look.subject == subject and look.kind == kind:
            return look
    year = _year_of(subject, past, market)
    spent = year[-1].spent if year else 0.0
    planned = None if policy.looks == "daily" else planned_looks(policy)
    level = policy.alpha if planned is None else policy.alpha / planned
    if planned is not None and (days := _days_to_wait(subject, past, market, policy, spent + level)) > 0:
        left = round(max(0.0, policy.alpha - spent), 12)
        return Wait(past[-1].subject.day, days, market.after(subject.day, days), spent, left)
    return Look(
        subject=subject,
        kind=kind,
        number=len(year) + 1,
        planned=planned,
        level=level,
        spent=round(spent + level, 12),
        left=None if planned is None else round(max(0.0, policy.alpha - spent - level), 12),
        year_began=year[0].year_began if year else subject.day,
    )


def _days_to_wait(
    subject: LookSubject, past: Sequence[Look], market: MarketDays, policy: GateSettings, spent: float
) -> int:
    """Market days until the next look; 0: today. `spent` is what the year will have spent with a look today."""
    if not past:
        return 0
    days = policy.look_every_days - market.between(max(look.subject.day for look in past), subject.day)
    if spent > policy.alpha + TOLERANCE:  # looks under other settings have spent it
        days = max(days, YEAR_DAYS - market.between(past[-1].year_began, subject.day))
    return max(0, days)


def planned_looks(policy: GateSettings) -> int:
    """How many looks fit into a year."""
    return max(1, -(-YEAR_DAYS // policy.look_every_days))


def _year_of(subject: LookSubject, past: Sequence[Look], market: MarketDays) -> list[Look]:
    """The looks taken in the year of the subject's day."""
    if not past:
        return []
    began = max(look.year_began for look in past)
    if market.between(began, subject.day) >= YEAR_DAYS:
        return []
    return [look for look in past if look.year_began == began]
