"""The events of alerts in the state database: the only way to write them, and queries."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.state.alerts.episodes import Change, Episode, Key, Step, fold
from mlops_tasks.state.alerts.rules import rule_of, sinks_of
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.rows import content_digest, lock_table
from mlops_tasks.state.tables import AlertDelivery, AlertEvent, AlertSilence, now

TOLD = "told"
"""Outcome of a delivery."""

Decide = Callable[[Episode | None, bool], Change | None]
"""Maps a key's newest episode, and whether it is silenced, to the step to take, if any."""


def advance(
    settings: Settings, key: Key, decide: Decide, at: datetime, told: tuple[str, Sequence[str]] = ("", ())
) -> AlertEvent | None:
    """Let a key's episode take a step, one writer at a time; return the event written.

    Parameters
    ----------
    told
        Token of the event, and the sinks that have already delivered it.
    """
    token, before = told
    with session(settings) as active:
        lock_table(active, AlertEvent.__tablename__)
        episode = fold(_events(active, key))
        change = decide(episode, _silenced(_silences(active), key, at))
        if change is None:
            return None
        row = _row(key, episode, change, token or uuid4().hex, at)
        row.sinks = " ".join(sinks_of(rule_of(settings, key.kind), change.step)) if change.tell else ""
        row.content_digest = content_digest(row)
        active.add(row)
        active.flush()
        for sink in before:
            delivery = AlertDelivery(event_id=row.id, sink=sink, attempt=1, outcome=TOLD, at=at)
            delivery.content_digest = content_digest(delivery)
            active.add(delivery)
    return row


def _row(key: Key, episode: Episode | None, change: Change, token: str, at: datetime) -> AlertEvent:
    number = 1 if episode is None else episode.number + (episode.state == "over")
    return AlertEvent(
        kind=key.kind,
        subject=key.subject,
        sequence=1 if episode is None else episode.sequence + 1,
        episode=number,
        step=str(change.step),
        severity=str(change.severity),
        message=change.message,
        by=change.by,
        tell=change.tell,
        token=token,
        at=at,
    )


def _events(active: Session, key: Key) -> list[AlertEvent]:
    """The events of a key's newest episode, in order."""
    own = AlertEvent.kind == key.kind, AlertEvent.subject == key.subject
    newest = select(func.max(AlertEvent.episode)).where(*own).scalar_subquery()
    query = select(AlertEvent).where(*own, AlertEvent.episode == newest).order_by(AlertEvent.sequence)
    return list(active.scalars(query))


def episode_of(settings: Settings, key: Key) -> Episode | None:
    """The newest episode of a key."""
    with reading(settings) as active:
        return fold(_events(active, key))


def running_episodes(settings: Settings) -> dict[Key, Episode]:
    """All episodes that are pending or open."""
    last = select(func.max(AlertEvent.id)).group_by(AlertEvent.kind, AlertEvent.subject)
    query = select(AlertEvent.kind, AlertEvent.subject).where(
        AlertEvent.id.in_(last), AlertEvent.step.not_in((Step.CLEARED, Step.RESOLVED))
    )
    with reading(settings) as active:
        keys = [Key(kind, subject) for kind, subject in active.execute(query)]
        found = {key: fold(_events(active, key)) for key in keys}
    return {key: episode for key, episode in found.items() if episode is not None}


def events_of(settings: Settings, key: Key) -> list[AlertEvent]:
    """All events of a key, in order."""
    query = select(AlertEvent).where(AlertEvent.kind == key.kind, AlertEvent.subject == key.subject)
    with reading(settings) as active:
        return list(active.scalars(query.order_by(AlertEvent.sequence)))


def newest_events(settings: Settings, limit: int) -> list[AlertEvent]:
    """The last events of all keys, newest first."""
    with reading(settings) as active:
        return list(active.scalars(select(AlertEvent).order_by(AlertEvent.id.desc()).limit(limit)))


def event_page(settings: Settings, kind: str, first: int, count: int) -> tuple[int, list[AlertEvent]]:
    """The number of events, of one kind if it is not empty, and some of them, the newest first."""
    total, query = select(func.count()).select_from(AlertEvent), select(AlertEvent)
    if kind:
        total, query = total.where(AlertEvent.kind == kind), query.where(AlertEvent.kind == kind)
    with reading(settings) as active:
        rows = active.scalars(query.order_by(AlertEvent.id.desc()).offset(first).limit(count))
        return active.scalar(total) or 0, list(rows)


def events_after(settings: Settings, after: int, limit: int) -> list[AlertEvent]:
    """Events of all keys with row ids above `after`, in order."""
    with reading(settings) as active:
        query = select(AlertEvent).where(AlertEvent.id > after).order_by(AlertEvent.id).limit(limit)
        return list(active.scalars(query))


def silence(settings: Settings, key: Key, lasting: timedelta, by: str, reason: str) -> AlertSilence:
    """Suppress notifications for a key (empty subject: for a whole kind) from now on; zero ends a silence."""
    moment = now()
    row = AlertSilence(kind=key.kind, subject=key.subject, until=moment + lasting, by=by, reason=reason, at=moment)
    row.content_digest = content_digest(row)
    with session(settings) as active:
        active.add(row)
    return row


def silences(settings: Settings) -> dict[Key, AlertSilence]:
    """Silences in force, by key."""
    with reading(settings) as active:
        return {key: row for key, row in _silences(active).items() if row.until > now()}


def _silences(active: Session) -> dict[Key, AlertSilence]:
    newest = select(func.max(AlertSilence.id)).group_by(AlertSilence.kind, AlertSilence.subject)
    rows = active.scalars(select(AlertSilence).where(AlertSilence.id.in_(newest)))
    return {Key(row.kind, row.subject): row for row in rows}


def _silenced(known: Mapping[Key, AlertSilence], key: Key, at: datetime) -> bool:
    """Whether a key is silenced, by itself or with its kind."""
    rows = (known.get(each) for each in (key, Key(key.kind, "")))
    return any(row is not None and row.until > at for row in rows)
