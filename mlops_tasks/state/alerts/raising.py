"""Functions with which the code raises an alert."""

import logging
from dataclasses import dataclass, field
from datetime import datetime
from uuid import uuid4

from mlops_tasks.config import Settings
from mlops_tasks.state.alerts.delivery import deliver, tell_now
from mlops_tasks.state.alerts.episodes import Change, Episode, Key, Repeat, Step, notified
from mlops_tasks.state.alerts.journal import advance, episode_of
from mlops_tasks.state.alerts.rules import rule_of
from mlops_tasks.state.alerts.sinks import Notice
from mlops_tasks.state.tables import now

log = logging.getLogger(__name__)


def raise_alert(settings: Settings, *, kind: str, subject: str, message: str) -> bool:
    """Open an episode, or report something new in an open one; return whether it was new.

    An equal alert in the same episode is ignored. Notifications are sent in the background: a failing sink never fails
    or delays the caller, and the next check delivers the step.

    Raises
    ------
    StoreError
        The state database does not answer.
    """
    return _notify(settings, Key(kind, subject), message, Repeat.MESSAGE, _Held())


def raise_daily_alert(settings: Settings, *, kind: str, cause: str, message: str) -> bool:
    """Notify people once per episode and UTC day, whatever the message; return whether this was new.

    For callers that must continue: no exception is raised. While the state database does not answer, the alert is sent
    through all configured sinks at once and logged, once per process and day. It is recorded at the first call after
    the database is back.
    """
    key, moment = Key(kind, cause), now()
    held = _held.pop((str(settings.home), key), _Held())
    try:
        return _notify(settings, key, message, Repeat.DAY, held) and not held.token
    except Exception as error:
        log.warning("the state database cannot say whether this alert is known: %s: %s", type(error).__name__, error)
    again = bool(held.token) and held.at.date() == moment.date()
    if not again:
        log.error("alert %s, %s: %s", kind, cause, message)
        severity = rule_of(settings, kind).severity
        token = uuid4().hex
        told = tell_now(settings, Notice(token, kind, cause, 1, Step.OPENED, severity, message, moment))
        held = _Held(token, told, moment)
    _held[str(settings.home), key] = held
    return not again


def awaits_record(settings: Settings, *, kind: str, cause: str) -> bool:
    """Whether a daily alert was sent without the database and is still to be recorded: raise it again later."""
    return (str(settings.home), Key(kind, cause)) in _held


@dataclass(frozen=True)
class _Held:
    """An alert that was sent without the database, and is still to be recorded."""

    token: str = ""
    told: tuple[str, ...] = ()
    at: datetime = field(default_factory=now)


_held: dict[tuple[str, Key], _Held] = {}
"""Alerts still to be recorded, by home and key."""


def _notify(settings: Settings, key: Key, message: str, repeat: Repeat, held: _Held) -> bool:
    change = Change(Step.OPENED, rule_of(settings, key.kind).severity, message)

    def decide(episode: Episode | None, silenced: bool) -> Change | None:
        return notified(episode, change, repeat, silenced, moment)

    moment = now()
    if decide(episode_of(settings, key), False) is None:
        return False
    event = advance(settings, key, decide, moment, (held.token, held.told))
    if event is None:
        return False
    if not held.token:
        log.error("alert %s, %s: %s", key.kind, key.subject, message)
    deliver(settings)
    return True
