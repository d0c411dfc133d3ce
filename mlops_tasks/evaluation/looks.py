"""The gate's looks: when a challenger may be compared with the champion, and at which level. Pure policy.

Whoever compares every day finds a better model by luck within the year, and skill where there is none. So the year has
an error budget: `alpha` is the probability of at least one false promotion in `YEAR_DAYS` market days, either of a
model that is no better than the champion or of a first model that has no skill. It is spent in equal parts over planned
looks, one every `look_every_days` market days, so it holds however the looks depend on each other (Bonferroni). A year
is the `YEAR_DAYS` market days up to a look, so it holds for any period as long as a year. What is not spent is not
carried over.

A look belongs to one training on one day of bars against one champion. If the training is judged again, it is the same
look at the same level, and nothing more is spent.

Experiments whose arms are models spend the same budget. Each reserves one look before it measures anything, and its
winner, whoever that is, is compared with the champion at the reserved level divided by the number of arms that could
have won. So the probability that any of the arms is promoted falsely is at most the reserved level, whatever the
experiment's data have said about them, also where these are days of the gate's own test (Bonferroni again). And no year
has more levels than `alpha`: before each comparison, of either kind, the levels of all comparisons in the year up to it
are summed, and it waits where they would exceed `alpha`. The looks of the daily trainings also leave room for every
reservation that may still be used. A reservation that was not used counts as if it had been, on the day of the
experiment's decision: if it were given back, as many experiments could be tried as one likes.

An experiment may begin where its look will be free when its winner can be judged at the earliest. So it takes the place
of one of the next daily looks, which by themselves would always have spent the year's budget.
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
    experiment: str = ""
    """Whose winner it is; empty: none's. Then `day` is the newest day of the bars in use when it was judged."""
    arms: int = 1
    """Of the experiment, besides its control: all of them share its look."""


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
        if self.subject.experiment:
            which = f"the look of experiment {self.subject.experiment}, {which}"
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
class Reservation:
    """A look that an experiment has reserved for its winner, before its first day."""

    experiment: str
    level: float
    """One-sided, of all its arms together."""
    day: date
    """Newest day of the bars in use when it was reserved."""
    ended: date | None = None
    """Day of the experiment's decision, or of the judgement of its winner; None: it may still be used."""
    verdict: str = ""
    """What the gate said of the winner; empty: it was not asked, or nothing won."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        ended = None if self.ended is None else self.ended.isoformat()
        return {**asdict(self), "day": self.day.isoformat(), "ended": ended}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        ended = None if values["ended"] is None else date.fromisoformat(values["ended"])
        return cls(**{**values, "day": date.fromisoformat(values["day"]), "ended": ended})


@dataclass(frozen=True)
class PlannedExperiment:
    """What wants to reserve a look."""

    name: str
    day: date
    """Newest day of the bars in use."""
    first_look_days: int
    """Market days of its own before it can have a winner."""


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


Entry = Look | Reservation
"""Of the ledger: what has spent the budget, in any order. The look of an experiment's winner is its reservation's."""


@dataclass(frozen=True)
class _Spent:
    """A part of the budget, on a given day."""

    age: int
    """Market days since it was spent, negative if that is yet to come; 0 while a reservation may still be used."""
    since: date
    level: float


def plan_look(
    subject: LookSubject, kind: LookKind, past: Sequence[Entry], market: MarketDays, policy: GateSettings
) -> Look | Wait:
    """Whether a subject may be looked at, and at which level.

    Parameters
    ----------
    past
        The looks that were taken, and those that experiments have reserved, each once; those of one year are enough.

    Raises
    ------
    ValueError
        The subject is the winner of an experiment that has reserved no look, or has used it.
    """
    looks = [each for each in past if isinstance(each, Look)]
    for look in looks:
        if look.subject == subject and look.kind == kind:
            return look
    planned, level = _share(policy)
    if subject.experiment:
        level = _reserved_level(subject.experiment, past)
    spent = _spent(past, subject.day, market, subject.experiment)
    total, since = _sum(spent), min([*(each.since for each in spent), subject.day])
    if planned is not None:
        days = _days_until_free(spent, level, policy)
        daily = [look.subject.day for look in looks if not look.subject.experiment]
        if daily and not subject.experiment:
            days = max(days, policy.look_every_days - market.between(max(daily), subject.day))
        if days > 0:
            return _wait(spent, subject.day, days, market, policy)
    return Look(
        subject=subject,
        kind=kind,
        number=len(spent) + 1,
        planned=planned,
        level=level / subject.arms,
        spent=round(total + level, 12),
        left=None if planned is None else round(max(0.0, policy.alpha - total - level), 12),
        year_began=since,
    )


def reserve_look(
    wanted: PlannedExperiment, past: Sequence[Entry], market: MarketDays, policy: GateSettings
) -> Reservation | Wait:
    """The look of an experiment that begins, or how long none is to be had; `past` is as for `plan_look`."""
    planned, level = _share(policy)
    spent = _spent(past, wanted.day, market)
    ahead = min(wanted.first_look_days, YEAR_DAYS - 1)
    if planned is not None and (days := _days_until_free(spent, level, policy) - ahead) > 0:
        return _wait(spent, wanted.day, days, market, policy)
    return Reservation(wanted.name, level, wanted.day)


def planned_looks(policy: GateSettings) -> int:
    """How many looks fit into a year."""
    return max(1, -(-YEAR_DAYS // policy.look_every_days))


def _share(policy: GateSettings) -> tuple[int | None, float]:
    """How many looks a year has (None: there is no budget), and the level of each."""
    if policy.looks == "daily":
        return None, policy.alpha
    planned = planned_looks(policy)
    return planned, policy.alpha / planned


def _reserved_level(experiment: str, past: Sequence[Entry]) -> float:
    if any(isinstance(each, Look) and each.subject.experiment == experiment for each in past):
        raise ValueError(f"experiment {experiment} has used its look; it has one")
    for each in past:
        if isinstance(each, Reservation) and each.experiment == experiment:
            return each.level
    raise ValueError(f"experiment {experiment} has reserved no look")


def _spent(past: Sequence[Entry], day: date, market: MarketDays, winner_of: str = "") -> list[_Spent]:
    """What has been spent in the year up to a day, from the point of view of the winner of an experiment, or of others.

    A winner's own reservation does not count, nor does one of others that may still be used: they left room for it.
    """
    used = {each.subject.experiment: each.subject.day for each in past if isinstance(each, Look)}
    found = []
    for each in past:
        if isinstance(each, Look):
            if not each.subject.experiment:
                found.append(_Spent(market.between(each.subject.day, day), each.subject.day, each.level))
            continue
        ends = [end for end in (each.ended, used.get(each.experiment)) if end is not None]
        if each.experiment == winner_of or (winner_of and not ends):
            continue
        age = market.between(max(ends), day) if ends else 0
        found.append(_Spent(age, max(ends, default=each.day), each.level))
    return [each for each in found if each.age < YEAR_DAYS]


def _sum(spent: Sequence[_Spent]) -> float:
    return sum(each.level for each in spent)


def _days_until_free(spent: Sequence[_Spent], level: float, policy: GateSettings) -> int:
    """Market days until so much of the budget is left; 0: it is. What may still be used counts as if it were today."""
    total, days = _sum(spent), 0
    for each in sorted(spent, key=lambda each: -each.age):
        if total + level <= policy.alpha + TOLERANCE:
            break
        total, days = total - each.level, YEAR_DAYS - each.age
    return days


def _wait(spent: Sequence[_Spent], day: date, days: int, market: MarketDays, policy: GateSettings) -> Wait:
    total = round(_sum(spent), 12)
    last = max([each.since for each in spent], default=day)
    return Wait(last, days, market.after(day, days), total, round(max(0.0, policy.alpha - total), 12))
