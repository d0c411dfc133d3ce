"""The parts of the overview, and what each of them says in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from mlops_tasks.states import Outcome


class Part(StrEnum):
    """What a concern, or what waits for a person, is about; each has its page."""

    DATA = "data"
    SCORES = "scores"
    CHAMPION = "champion"
    GATE = "gate"
    DRIFT = "drift"
    ALERTS = "alerts"
    WORK = "work"
    EXPERIMENTS = "experiments"
    APPROVALS = "approvals"


@dataclass(frozen=True)
class Bars:
    """The vintage in use.

    Attributes
    ----------
    in_use_since
        None: it came into use before that was recorded.
    due
        The newest session of the market whose bars should be there; None: nobody follows the market, the source ended
        long ago.
    """

    data_version: str
    source: str
    first_date: date
    last_date: date
    rows: int
    instruments: int
    quarantined: int
    in_use_since: datetime | None
    due: date | None

    @property
    def is_behind(self) -> bool:
        """Whether the bars of a session are missing."""
        return self.due is not None and self.last_date < self.due


@dataclass(frozen=True)
class Scores:
    """The newest scores of the champion."""

    date: date
    version: int
    instruments: int
    at: datetime
    """When they were computed."""


@dataclass(frozen=True)
class Champion:
    """Who serves.

    Attributes
    ----------
    family
        Empty: the index does not know the version.
    is_provisional
        It has proven no skill.
    previous
        The version before it; None: it is the first.
    """

    version: int
    family: str
    since: datetime
    is_provisional: bool
    previous: int | None


@dataclass(frozen=True)
class Gate:
    """The gate's newest decision.

    Attributes
    ----------
    version
        The version that it judged; None: the history does not know the training.
    next_look
        In words, when the gate looks again; empty: this was a look, or nothing waits for one.
    """

    training_key: str
    version: int | None
    family: str
    champion: int | None
    decision: Outcome
    rule: str
    reasons: tuple[str, ...]
    next_look: str
    at: datetime

    @property
    def sentence(self) -> str:
        """What it decided and why."""
        who = f"training {self.training_key}" if self.version is None else f"version {self.version}"
        model = f"{who} ({self.family})" if self.family else who
        if self.decision == Outcome.PROMOTE:
            said = f"{model} is promoted"
        elif self.decision == Outcome.REJECT:
            said = f"{model} is rejected"
        else:
            stays = "" if self.champion is None else f"version {self.champion} stays the champion, "
            said = f"{stays}{model} is not promoted"
        why = "; ".join(self.reasons)
        return f"{said}, by rule {self.rule}: {why}" if why else f"{said}, by rule {self.rule}"


@dataclass(frozen=True)
class Drift:
    """The newest drift report of the champion."""

    date: date
    version: int
    beyond: int
    """Columns beyond the limit."""
    near: int
    at_stake: float | None
    """Share of the score's importance beyond the limit; None: not known."""
    report: str
    """Its name among the reports."""
    at: datetime


@dataclass(frozen=True)
class OpenAlert:
    """An alert that is open."""

    kind: str
    subject: str
    severity: str
    message: str
    opened: datetime
    acknowledged_by: str


@dataclass(frozen=True)
class Work:
    """A training, a rollout or an experiment that is under way."""

    kind: str
    """`training`, `rollout` or `experiment`."""
    name: str
    """By which its page finds it."""
    said: str
    since: datetime


@dataclass(frozen=True)
class Waiting:
    """Something that goes on only when a person has acted."""

    part: Part
    name: str
    """The vintage, the experiment or the task that waits."""
    said: str
    since: datetime


@dataclass(frozen=True)
class Concern:
    """A reason why the operation is not healthy."""

    part: Part
    is_grave: bool
    """Whether clients, or tomorrow's scores, are affected."""
    said: str


@dataclass(frozen=True)
class Overview:
    """How the operation stands; a part that does not exist yet is None."""

    at: datetime
    bars: Bars | None
    scores: Scores | None
    champion: Champion | None
    gate: Gate | None
    drift: Drift | None
    alerts: Sequence[OpenAlert]
    work: Sequence[Work]
    waiting: Sequence[Waiting]
    unreadable: str = ""
    """Why the vintage in use cannot be read; empty: it can, or there is none."""
