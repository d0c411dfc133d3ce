"""What the API says of alerts."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field

from mlops_tasks.state.alerts.episodes import Episode
from mlops_tasks.state.alerts.rules import AlertRule, SignalRule, condition_of


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


PLAIN = r"^[^\x00]*$"
"""Texts that every database stores."""


class AlertNamed(BaseModel):
    """Which alert."""

    kind: str = Field(max_length=200, pattern=PLAIN)
    subject: str = Field(max_length=2000, pattern=PLAIN)


def _not_blank(text: str) -> str:
    if not text.strip():  # more characters are blank to Python than to the pattern
        raise ValueError("it is blank")
    return text


class SilenceAsked(BaseModel):
    """What to silence, and for how long."""

    kind: str = Field(min_length=1, max_length=200, pattern=PLAIN)
    subject: str = Field("", max_length=2000, pattern=PLAIN, description="Empty: the whole kind.")
    hours: float = Field(ge=0, le=2160, strict=True)
    reason: Annotated[str, AfterValidator(_not_blank)] = Field(min_length=1, max_length=2000, pattern=PLAIN)


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


class AlertHistory(BaseModel):
    """Some steps of alerts, the newest first."""

    total: int
    events: list[AlertEvent]


class Rule(BaseModel):
    """A rule of alerts."""

    name: str = Field(description="Also the kind of its alerts.")
    type: str = Field(description="`told`: the code raises the alert, and the rule says how bad it is and who is told.")
    severity: Literal["info", "warning", "critical"]
    enabled: bool
    signal: str = Field(description="What it looks at. Empty: a rule of the type `told`.")
    condition: str = Field(description="When it is broken, as in `alerts.yaml`.")
    sinks: list[str] | None = Field(description="Who is told. Null: every sink that is configured.")
    escalate_after_min: float | None
    help: str

    @classmethod
    def of(cls, name: str, rule: AlertRule) -> Self:
        """From the library's own."""
        return cls(
            name=name,
            type=getattr(rule, "type", "told"),
            severity=rule.severity.value,
            enabled=rule.enabled,
            signal=rule.signal if isinstance(rule, SignalRule) else "",
            condition=condition_of(rule),
            sinks=None if rule.sinks is None else list(rule.sinks),
            escalate_after_min=rule.escalate_after_min,
            help=rule.help,
        )


class RuleList(BaseModel):
    """The rules, and the sinks that have an address."""

    rules: list[Rule]
    sinks: list[str]
