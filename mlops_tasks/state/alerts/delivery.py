"""Pending notifications, their sinks, and the outcome of each attempt: an outbox in the state database.

Each step that is reported names its sinks. An attempt is claimed before and confirmed after it is made, both in the
database, so that only one process delivers, and another one delivers what a killed process has left; a repetition has
the same token. Each sink delivers in its own thread: one that fails or hangs delays no other.
"""

import atexit
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.state.alerts.journal import TOLD
from mlops_tasks.state.alerts.rules import configured_sinks
from mlops_tasks.state.alerts.sinks import Notice, Sink, SinkError, make_sink
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.rows import content_digest, lock_table
from mlops_tasks.state.tables import AlertDelivery, AlertEvent, now

log = logging.getLogger(__name__)

CLAIMED, FAILED, REFUSED = "claimed", "failed", "refused"
MOST_REFUSALS = 5
"""After this many refusals by the receiver a notice is given up, so that it does not block the others."""
KEEP_TRYING = timedelta(days=7)
"""A notice that could not be delivered for this long is given up."""
_FIRST_PAUSE_S = 1.0
"""Pause after a failure; each further one is twice as long, up to half an interval."""


@dataclass(frozen=True)
class Owed:
    """A step that a sink has not delivered yet."""

    event: AlertEvent
    attempts: int
    """Number of attempts so far."""
    due: datetime
    """When the next attempt may begin."""


def owed(active: Session, settings: Settings, sink: str, limit_s: float, moment: datetime) -> list[Owed]:
    """What a sink has to deliver, in order."""
    recent = select(AlertEvent).where(AlertEvent.at > moment - KEEP_TRYING, AlertEvent.sinks != "")
    events = [event for event in active.scalars(recent.order_by(AlertEvent.id)) if sink in event.sinks.split()]
    if not events:
        return []
    tries: dict[int, list[AlertDelivery]] = {event.id: [] for event in events}
    query = select(AlertDelivery).where(AlertDelivery.sink == sink, AlertDelivery.event_id >= events[0].id)
    for row in active.scalars(query.order_by(AlertDelivery.id)):
        tries.get(row.event_id, []).append(row)
    return [
        Owed(event, max((row.attempt for row in tries[event.id]), default=0), _due(settings, tries[event.id], limit_s))
        for event in events
        if not any(row.outcome == TOLD for row in tries[event.id])
        and sum(row.outcome == REFUSED for row in tries[event.id]) < MOST_REFUSALS
    ]


def _due(settings: Settings, tries: Sequence[AlertDelivery], limit_s: float) -> datetime:
    """When the next attempt may begin: a claim without an outcome lasts as long as a delivery may take."""
    if not tries:
        return datetime.min.replace(tzinfo=UTC)
    newest = max(tries, key=lambda row: (row.attempt, row.id))
    if newest.outcome == CLAIMED:
        return newest.at + timedelta(seconds=limit_s)
    pause = min(_FIRST_PAUSE_S * 2 ** min(newest.attempt - 1, 20), settings.alerts.interval_s / 2)
    return newest.at + timedelta(seconds=pause)


def tell_owed(settings: Settings, name: str, sink: Sink) -> None:
    """Deliver through one sink all that is due, in order; stop at the first failure, until the next call."""
    while True:
        claim = _claim(settings, name, sink)
        if claim is None:
            return
        event, attempt = claim
        if (event.token, name) not in _sent:
            try:
                sink.tell(Notice.of(event))
            except Exception as error:
                told = str(error) if isinstance(error, SinkError) else type(error).__name__
                log.warning("%s did not deliver %s %s: %s", name, event.kind, event.subject, told)
                is_refusal = not isinstance(error, SinkError) or error.is_refusal
                outcome = REFUSED if is_refusal else FAILED
                _write(settings, _row(event, name, attempt, outcome, told.partition(";")[0]))
                return
            _sent[event.token, name] = None
        _write(settings, _row(event, name, attempt, TOLD))
        _sent.pop((event.token, name), None)


_sent: dict[tuple[str, str], None] = {}
"""Token and sink of what this process has delivered but could not record."""


def _claim(settings: Settings, name: str, sink: Sink) -> tuple[AlertEvent, int] | None:
    """Claim the first step that a sink may deliver now; returns it and the number of the attempt."""
    moment = now()
    with session(settings) as active:
        lock_table(active, AlertDelivery.__tablename__)
        left = owed(active, settings, name, sink.limit_s, moment)
        if not left or left[0].due > moment:
            return None
        first = left[0]
        active.add(_row(first.event, name, first.attempts + 1, CLAIMED))
    return first.event, first.attempts + 1


def _write(settings: Settings, row: AlertDelivery) -> None:
    with session(settings) as active:
        active.add(row)


def _row(event: AlertEvent, sink: str, attempt: int, outcome: str, error: str = "") -> AlertDelivery:
    row = AlertDelivery(event_id=event.id, sink=sink, attempt=attempt, outcome=outcome, error=error[:200], at=now())
    row.content_digest = content_digest(row)
    return row


_guard = threading.Lock()
_working: dict[tuple[str, str], "_Worker"] = {}
"""Maps home and sink to the thread that delivers through it."""


class _Worker(threading.Thread):
    """Delivers through one sink until nothing more is due."""

    def __init__(self, settings: Settings, name: str) -> None:
        super().__init__(name=f"alerts by {name}", daemon=True)
        self.settings, self.sink = settings, name
        self.asked = True

    @property
    def key(self) -> tuple[str, str]:
        return str(self.settings.home), self.sink

    def run(self) -> None:
        while self._goes_on():
            try:
                tell_owed(self.settings, self.sink, make_sink(self.settings, self.sink))
            except Exception as error:  # whatever it is, it is retried at the next check
                log.warning("alerts were not delivered by %s: %s", self.sink, type(error).__name__)

    def _goes_on(self) -> bool:
        with _guard:
            if not self.asked:
                _working.pop(self.key, None)
                return False
            self.asked = False
        return True


def deliver(settings: Settings) -> None:
    """Deliver everything pending, in the background; a sink that is busy checks again when it is done."""
    for name in configured_sinks(settings):
        with _guard:
            worker = _working.get((str(settings.home), name))
            if worker is not None and worker.is_alive():
                worker.asked = True
                continue
            worker = _working[str(settings.home), name] = _Worker(settings, name)
            worker.start()


def is_owing(settings: Settings) -> bool:
    """Whether a configured sink still has something to deliver."""
    with reading(settings) as active:
        return any(owed(active, settings, name, 0.0, now()) for name in configured_sinks(settings))


def deliveries(settings: Settings, event: AlertEvent) -> list[AlertDelivery]:
    """The outcomes of an event's attempts, in order."""
    query = select(AlertDelivery).where(AlertDelivery.event_id == event.id).order_by(AlertDelivery.id)
    with reading(settings) as active:
        return list(active.scalars(query))


def finish(within_s: float | None = None) -> bool:
    """Wait for the deliveries of this process; False if they take longer."""
    ends = None if within_s is None else time.monotonic() + within_s
    workers = list(_working.values())
    for worker in workers:
        worker.join(None if ends is None else max(0.0, ends - time.monotonic()))
    return not any(worker.is_alive() for worker in workers)


def tell_now(settings: Settings, notice: Notice) -> tuple[str, ...]:
    """Deliver through all configured sinks at once, without the database; return the names of those that succeeded."""
    told: list[str] = []

    def tell(name: str, sink: Sink) -> None:
        try:
            sink.tell(notice)
        except Exception as error:
            said = str(error) if isinstance(error, SinkError) else type(error).__name__
            log.warning("%s did not deliver %s %s: %s", name, notice.kind, notice.subject, said)
        else:
            told.append(name)

    sinks: Mapping[str, Sink] = {name: make_sink(settings, name) for name in configured_sinks(settings)}
    threads = [threading.Thread(target=tell, args=each, daemon=True) for each in sinks.items()]
    for thread in threads:
        thread.start()
    ends = time.monotonic() + 3 * settings.alerts.timeout_s
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    return tuple(told)


def try_sink(settings: Settings, name: str, by: str) -> None:
    """Send a test message.

    Raises
    ------
    ConfigError
        There is no such sink, or it did not deliver.
    """
    notice = Notice(uuid4().hex, "test", "alerts", 1, "opened", "info", f"a test of this sink, by {by}", now())
    try:
        make_sink(settings, name).tell(notice)
    except SinkError as error:
        raise ConfigError(f"{name} did not deliver: {error}") from None


def _finish_at_exit() -> None:
    if not finish(_AT_EXIT_S):
        log.warning(
            "some alerts are still undelivered; the scoring service, or `alphaops alerts check`, will deliver them"
        )


_AT_EXIT_S = 20.0
"""How long a process waits for its sinks when it ends."""


def _begin_anew() -> None:
    """A forked child has none of its parent's threads, but possibly a lock that one of them held."""
    global _guard  # noqa: PLW0603
    _guard = threading.Lock()
    _working.clear()


atexit.register(_finish_at_exit)
os.register_at_fork(after_in_child=_begin_anew)
