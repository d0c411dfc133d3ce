"""What the API says of alerts."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field

from mlops_tasks.state.alerts.episodes import Episode


class Alert(BaseModel):
    """An open alert."""

    kind: str
    subject: str
    severity: Literal["info", "warning", "critical"]
    message: str
    opened: datetime
    acknowledged_by: str = Field(description="Who takes care of it. Empty: nobody yet.")

    @classmethod
    def of(cls, episode: Episode) -> Self:
        """From the library's own."""
        kind, subject = episode.key
        return cls(
            kind=kind,
            subject=subject,
            severity=episode.severity.value,
            message=episode.message,
            opened=episode.opened or episode.noticed,
            acknowledged_by=episode.acknowledged_by,
        )


class AlertNamed(BaseModel):
    """Which alert."""

    kind: str = Field(max_length=200)
    subject: str = Field(max_length=2000)


def _not_blank(text: str) -> str:
    if not text.strip():  # more characters are blank to Python than to the pattern
        raise ValueError("it is blank")
    return text


class SilenceAsked(BaseModel):
    """What to silence, and for how long."""

    kind: str = Field(min_length=1, max_length=200)
    subject: str = Field("", max_length=2000, description="Empty: the whole kind.")
    hours: float = Field(ge=0, le=2160, strict=True)
    reason: Annotated[str, AfterValidator(_not_blank)] = Field(min_length=1, max_length=2000, pattern=r"\S")


class Silenced(BaseModel):
    """A silence."""

    kind: str
    subject: str
    until: datetime
    by: str
    reason: str


class AlertList(BaseModel):
    """Open alerts, the newest first, and silences in force."""

    open: list[Alert]
    silenced: list[Silenced]


class AlertEvent(BaseModel):
    """A step of an alert."""

    id: int
    kind: str
    subject: str
    episode: int
    step: str
    severity: str
    message: str
    by: str
    at: datetime


class AlertEventPage(BaseModel):
    """Steps of alerts in order. The next page begins after `next_after`."""

    events: list[AlertEvent]
    next_after: int
