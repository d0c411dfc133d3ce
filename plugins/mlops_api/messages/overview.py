"""What the API says of how the operation stands."""

from datetime import date, datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from mlops_tasks.overview.concerns import concerns
from mlops_tasks.overview.parts import Overview, Part
from mlops_tasks.states import Outcome


class _Read(BaseModel):
    """Is read from one of the library's own."""

    model_config = ConfigDict(from_attributes=True)


class BarsInUse(_Read):
    """The vintage in use."""

    data_version: str
    source: str
    first_date: date
    last_date: date
    rows: int
    instruments: int
    quarantined: int
    in_use_since: datetime | None
    due: date | None = Field(description="The newest session whose bars should be there. None: no market is followed.")
    is_behind: bool


class NewestScores(_Read):
    """The newest scores of the champion."""

    date: date
    version: int
    instruments: int
    at: datetime


class ServingChampion(_Read):
    """Who serves."""

    version: int
    family: str = Field(description="Empty: not known.")
    since: datetime
    is_provisional: bool = Field(description="It has proven no skill.")
    previous: int | None


class NewestDecision(_Read):
    """The gate's newest decision."""

    training_key: str
    version: int | None
    champion: int | None
    decision: Outcome
    rule: str
    sentence: str
    next_look: str
    at: datetime


class NewestDrift(_Read):
    """The champion's newest drift report."""

    date: date
    version: int
    beyond: int = Field(description="Columns beyond the limit.")
    near: int
    at_stake: float | None = Field(description="Share of the score's importance beyond the limit. None: not known.")
    report: str = Field(description="Its name among the reports.")
    at: datetime


class OpenAlert(_Read):
    """An alert that is open."""

    kind: str
    subject: str
    severity: str
    message: str
    opened: datetime
    acknowledged_by: str


class UnderWay(_Read):
    """A training, a rollout or an experiment that is under way."""

    kind: str
    name: str
    said: str
    since: datetime


class WaitsForPerson(_Read):
    """Something that goes on only when a person has acted."""

    part: Part
    name: str
    said: str
    since: datetime


class WhatIsWrong(_Read):
    """A reason why the operation is not healthy."""

    part: Part
    is_grave: bool
    said: str


class OverviewTold(_Read):
    """How the operation stands. A part that does not exist yet is null."""

    at: datetime
    is_healthy: bool
    concerns: list[WhatIsWrong] = Field(description="The grave ones first.")
    bars: BarsInUse | None
    scores: NewestScores | None
    champion: ServingChampion | None
    gate: NewestDecision | None
    drift: NewestDrift | None
    alerts: list[OpenAlert]
    work: list[UnderWay]
    waiting: list[WaitsForPerson] = Field(description="Without what Airflow itself lists under its required actions.")

    @classmethod
    def of(cls, found: Overview) -> Self:
        """From the library's own."""
        wrong = concerns(found)
        return cls.model_validate({**vars(found), "concerns": wrong, "is_healthy": not wrong}, from_attributes=True)
