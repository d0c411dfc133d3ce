"""What the API says of quarantine, and of what people release from it."""

from datetime import date, datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from mlops_api.messages.data import VERSION, Named, Reason
from mlops_tasks.reports import Report, verdict_of

Day = date
"""Where a field is called `date` itself."""


class Quarantine(BaseModel):
    """What a validation concluded."""

    staging: str = Field(description="Its name.")
    at: datetime
    verdict: str = Field(description="accepted or rejected")
    source: str
    received: int
    accepted: int
    quarantined: int
    data_version: str = Field(description="Empty: no vintage was made of it.")
    rejected: str = Field(description="Why it was rejected. Empty: it was not.")

    @classmethod
    def of(cls, report: Report) -> Self:
        """From a report."""
        content = report.content
        plain = {name: content[name] for name in ("received", "accepted", "quarantined", "rejected")}
        source = str(content["source"]).rpartition("/")[2]
        version = content.get("data_version", "")
        return cls(
            staging=report.name,
            at=report.made_at,
            verdict=verdict_of(content),
            source=source,
            data_version=version,
            **plain,
        )


class QuarantineList(BaseModel):
    """Some validations, the newest first."""

    total: int
    quarantines: list[Quarantine]


class RuleCount(BaseModel):
    """How often a rule was broken."""

    rule: str
    count: int


class QuarantineShown(Quarantine):
    """A validation with its counts."""

    rules: list[RuleCount] = Field(description="Rules that put rows into quarantine.")
    warnings: list[RuleCount]
    released: list[RuleCount]

    @classmethod
    def of(cls, report: Report) -> Self:
        """From a report."""
        content = report.content
        counts = {
            name: [RuleCount(rule=rule, count=count) for rule, count in content[name].items()]
            for name in ("rules", "warnings", "released")
        }
        return cls(**Quarantine.of(report).model_dump(), **counts)


class QuarantinedRow(BaseModel):
    """A rule that a row breaks; long texts are cut."""

    instrument: str
    date: str
    rule: str
    severity: str
    reason: str
    remedy: str
    source: str


class QuarantinedRows(BaseModel):
    """A hundred rows at a time."""

    total: int
    pages: int
    rows: list[QuarantinedRow]


class Release(BaseModel):
    """What a person has let through a rule."""

    model_config = ConfigDict(from_attributes=True)

    rule: str
    instrument: str = Field(description="The calendar, for a rule about sessions.")
    date: date
    reason: str
    released_by: str
    released_at: datetime


class ReleaseList(BaseModel):
    """Some releases, the newest first."""

    total: int
    releases: list[Release]


class ReleaseAsked(BaseModel):
    """What to let through a rule. Leave out what is not needed to tell it from the rule's other findings."""

    model_config = ConfigDict(extra="forbid")

    staging: str = Field(pattern=VERSION, description="The quarantine that you have looked at: the newest one.")
    rule: Named
    instrument: Named | None = None
    date: Day | None = Field(None, description="Of the row or the session; of an instrument: up to this day.")
    calendar: Named | None = None
    row: int | None = Field(None, ge=0, le=2**31 - 1, description="Which of several rows of one day.")
    reason: Reason
