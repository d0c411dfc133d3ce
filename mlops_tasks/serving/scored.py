"""Results of the service, and the form of an answer."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from mlops_tasks.serving.day_scores import DayKey
from mlops_tasks.serving.market import Market
from mlops_tasks.serving.score_table import ScoreTable
from mlops_tasks.serving.slots import Slot
from mlops_tasks.states import Arm

_NO_SCORES = ScoreTable((), ()).prepared()


@dataclass(frozen=True)
class DayPlan:
    """Model, day and data of a score."""

    slot: Slot
    market: Market
    date: datetime.date
    due: datetime.date | None = None
    """The newest session whose scores are due by now (`watch.due_date`); None: it is not known yet."""

    @property
    def is_stale(self) -> bool | None:
        """Whether the newest scores that there are are older than those that are due; None: it is not known yet."""
        return None if self.due is None else self.market.newest_date < self.due

    @property
    def newest(self) -> bool:
        """Whether it is the newest day, which most requests ask for."""
        return self.date == self.market.newest_date

    @property
    def key(self) -> DayKey:
        """The key of its scores: everything that they depend on."""
        return DayKey(self.slot.model.digest, self.market.feature_version, self.date)


@dataclass(frozen=True)
class Scored:
    """The answer to a scoring request: a table, or the requested instruments of it; or why there is none."""

    slot: Slot
    table: ScoreTable
    plan: DayPlan | None = None
    chosen: Sequence[int] | None = None
    """Positions in the table, in the order of the request; None: all of it."""
    missing: Sequence[str] = field(default=())
    error: Exception | None = None
    """Why there is no answer."""

    @classmethod
    def failed(cls, slot: Slot, error: Exception, plan: DayPlan | None = None) -> Self:
        """In place of an answer that the champion's error has prevented."""
        return cls(replace(slot, arm=Arm.FAILED), _NO_SCORES, plan, error=error)

    @property
    def count(self) -> int:
        """Of the scores."""
        return len(self.table.scores if self.chosen is None else self.chosen)

    def columns(self) -> tuple[Sequence[str], Sequence[float]]:
        """Instruments and their scores."""
        instruments, scores = self.table.instruments, self.table.scores
        if self.chosen is None:
            return instruments, scores
        return [instruments[place] for place in self.chosen], [scores[place] for place in self.chosen]

    def to_json(self) -> dict[str, Any]:
        """The answer as it is sent."""
        pairs = zip(*self.columns(), strict=True)
        return self.about() | {"scores": [{"instrument": instrument, "score": score} for instrument, score in pairs]}

    def about(self) -> dict[str, Any]:
        """The answer without the scores."""
        plan, model = self.plan, self.slot.model
        return {
            "model_version": model.version,
            "training_key": model.training_key,
            "standing": self.slot.standing,
            "date": None if plan is None else plan.date.isoformat(),
            "data_version": None if plan is None else plan.market.data_version,
            "feature_version": None if plan is None else plan.market.feature_version,
            "due_date": None if plan is None or plan.due is None else plan.due.isoformat(),
            "stale": None if plan is None else plan.is_stale,
            "missing": list(self.missing),
        }


def choose(plan: DayPlan, table: ScoreTable, instruments: Sequence[str] | None) -> Scored:
    """The answer about some instruments of a day; None: all that have a bar on that day."""
    if instruments is None:
        return Scored(plan.slot, table, plan, missing=table.unscored)
    places = {name: table.positions.get(name) for name in instruments}
    chosen = [place for place in places.values() if place is not None]
    return Scored(plan.slot, table, plan, chosen, [name for name, place in places.items() if place is None])
