"""Episodes: an alert from its first sign to its end, as pure functions. `journal.py` writes the events.

An episode has a key: kind and subject. It begins as *pending* (something is wrong, but not for long enough yet) or
*open* (people are notified). It ends when the problem is gone, when a person says so, or, for an event, when it has not
recurred for a while. A key has one episode at a time; the next one has the next number.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from mlops_tasks.state.tables import AlertEvent

QUIET_AFTER = timedelta(hours=48)
"""An open episode that nothing watches is over when its event has not recurred for this long."""


class Severity(StrEnum):
    """Severity of an alert."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Step(StrEnum):
    """A step of an episode."""

    NOTICED = "noticed"
    """Something is wrong; it may be over in a moment."""
    CLEARED = "cleared"
    """It was over before people were notified."""
    OPENED = "opened"
    UPDATED = "updated"
    """There is something new to report."""
    REMINDED = "reminded"
    """It was silenced, and the problem persists."""
    ESCALATED = "escalated"
    """Nobody has acknowledged it in time."""
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Standing(StrEnum):
    """The result of checking something that is watched."""

    BREACHED = "breached"
    BETWEEN = "between"
    """No breach, but not far enough from one for an open episode to end."""
    CALM = "calm"
    UNKNOWN = "unknown"
    """Its state is unknown, so nothing happens."""


class Repeat(StrEnum):
    """When a recurrence is reported again."""

    MESSAGE = "message"
    """For each message that is new in the episode."""
    DAY = "day"
    """Once a UTC day, whatever the message, until somebody acknowledges it."""


class Key(NamedTuple):
    """Kind and subject of an episode."""

    kind: str
    subject: str


@dataclass(frozen=True)
class Policy:
    """How episodes of a kind are treated, according to the rules."""

    severity: Severity = Severity.WARNING
    escalate_after: timedelta | None = None
    """Time from the opening to the escalation, unless it is acknowledged."""


@dataclass(frozen=True)
class Episode:
    """State of an episode after its events."""

    key: Key
    number: int
    sequence: int
    """Of its newest event."""
    severity: Severity
    message: str
    noticed: datetime
    updated: datetime
    """When something new was last reported."""
    opened: datetime | None = None
    ended: datetime | None = None
    acknowledged_by: str = ""
    told: bool = False
    """People were notified that it is open."""
    escalated: bool = False
    said: frozenset[str] = frozenset()
    """Its messages."""

    @property
    def state(self) -> str:
        """`pending`, `open` or `over`."""
        return "over" if self.ended is not None else "pending" if self.opened is None else "open"


@dataclass(frozen=True)
class Change:
    """A step for an episode to take; if there is no episode, or it has ended, the step begins the next one."""

    step: Step
    severity: Severity
    message: str
    tell: bool = False
    by: str = ""


@dataclass(frozen=True)
class Observation:
    """The result of checking one thing that is watched."""

    key: Key
    standing: Standing
    message: str
    lasting: timedelta = timedelta(0)
    """How long a breach must last before people are notified."""


def fold(events: Iterable[AlertEvent]) -> Episode | None:
    """The newest episode among the events of one key, given in order; None if there are no events."""
    episode: Episode | None = None
    for event in events:
        if episode is None or event.episode != episode.number:
            episode = Episode(
                key=Key(event.kind, event.subject),
                number=event.episode,
                sequence=event.sequence,
                severity=Severity(event.severity),
                message=event.message,
                noticed=event.at,
                updated=event.at,
            )
        episode = _after(episode, event)
    return episode


def _after(episode: Episode, event: AlertEvent) -> Episode:
    step = Step(event.step)
    episode = replace(episode, sequence=event.sequence)
    if step in (Step.OPENED, Step.UPDATED):
        return replace(
            episode,
            severity=Severity(event.severity),
            message=event.message,
            updated=event.at,
            opened=episode.opened or event.at,
            told=episode.told or event.tell,
            said=episode.said | {event.message},
        )
    if step is Step.REMINDED:
        return replace(episode, told=True)
    if step is Step.ESCALATED:
        return replace(episode, escalated=True)
    if step is Step.ACKNOWLEDGED:
        return replace(episode, acknowledged_by=event.by)
    if step in (Step.CLEARED, Step.RESOLVED):
        return replace(episode, ended=event.at)
    return episode


def observed(
    episode: Episode | None, seen: Observation, severity: Severity, silenced: bool, now: datetime
) -> Change | None:
    """The step that follows from checking something that is watched."""
    if seen.standing is Standing.UNKNOWN:
        return None
    breached = seen.standing is Standing.BREACHED
    opening = Change(Step.OPENED, severity, seen.message, tell=not silenced)
    if episode is None or episode.state == "over":
        first = opening if seen.lasting <= timedelta(0) else Change(Step.NOTICED, severity, seen.message)
        return first if breached else None
    if episode.state == "pending":
        lasts = now - episode.noticed >= seen.lasting
        return _cleared(episode) if not breached else opening if lasts else None
    return resolved(episode, "", silenced) if seen.standing is Standing.CALM else None


def _cleared(episode: Episode) -> Change:
    return Change(Step.CLEARED, episode.severity, episode.message)


def notified(episode: Episode | None, change: Change, repeat: Repeat, silenced: bool, now: datetime) -> Change | None:
    """The step that follows from an event; `change` has its message."""
    if episode is None or episode.state != "open":
        return replace(change, step=Step.OPENED, tell=not silenced)
    if repeat is Repeat.MESSAGE:
        known = change.message in episode.said
        return None if known else replace(change, step=Step.UPDATED, tell=not silenced)
    if episode.updated.date() >= now.date():
        return None
    return replace(change, step=Step.UPDATED, tell=not silenced and not episode.acknowledged_by)


def overdue(episode: Episode | None, policy: Policy, watched: bool, silenced: bool, now: datetime) -> Change | None:
    """The step that follows from the passing of time alone."""
    if episode is None or episode.opened is None or episode.state != "open":
        return None
    same = Change(Step.RESOLVED, episode.severity, episode.message)
    if not watched and now - episode.updated >= QUIET_AFTER:
        return same
    if silenced or episode.acknowledged_by:
        return None
    if not episode.told:
        return replace(same, step=Step.REMINDED, tell=True)
    waited = policy.escalate_after is not None and now - episode.opened >= policy.escalate_after
    if waited and not episode.escalated:
        return replace(same, step=Step.ESCALATED, tell=True)
    return None


def acknowledged(episode: Episode | None, by: str) -> Change | None:
    """The step that follows when a person acknowledges it."""
    if episode is None or episode.state != "open" or episode.acknowledged_by:
        return None
    return Change(Step.ACKNOWLEDGED, episode.severity, episode.message, by=by)


def resolved(episode: Episode | None, by: str, silenced: bool) -> Change | None:
    """The end of an episode; `by` is the person who ends it."""
    if episode is None or episode.state == "over":
        return None
    return Change(Step.RESOLVED, episode.severity, episode.message, tell=episode.told and not silenced, by=by)
