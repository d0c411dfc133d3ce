"""The log of requests for a machine's memory and slots: asked, granted, at work, released.

Every row is a step of one request. The last row of a change also contains the queue after that change
(`payload["queue"]`), so the current state is read from one row, however long the log is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.rows import content_digest, lock_table
from mlops_tasks.state.tables import ResourceEvent

ASKED, GRANTED, WORKS, RELEASED = "asked", "granted", "works", "released"

Queue = Mapping[str, Any]


@dataclass(frozen=True)
class RequestStep:
    """A step of a request."""

    kind: str
    """`ASKED`, `GRANTED`, `WORKS` (a process that its holder did not start itself works for it) or `RELEASED`."""
    request_id: str
    owner: str
    details: Mapping[str, Any] = field(default_factory=dict)


def newest_queue(settings: Settings, host: str) -> Queue | None:
    """The queue of a machine after the newest change; None before the first one."""
    with reading(settings) as active:
        return _newest(active, host)


def change_queue(
    settings: Settings, host: str, decide: Callable[[Queue | None], tuple[Sequence[RequestStep], Queue]]
) -> Queue | None:
    """Let `decide` see the queue and decide what happens; record that in the same exclusive transaction.

    `decide` returns the steps, none if nothing happens, and the queue after them. Other trainings of this machine wait
    while it runs, and it must not use the database. Returns the queue after the change.
    """
    with session(settings) as active:
        lock_table(active, ResourceEvent.__tablename__)
        before = _newest(active, host)
        steps, after = decide(before)
        if not steps:
            return before
        for number, step in enumerate(steps, 1):
            payload = {"host": host, **step.details, **({"queue": dict(after)} if number == len(steps) else {})}
            row = ResourceEvent(request_id=step.request_id, kind=step.kind, owner=step.owner, payload=payload)
            row.content_digest = content_digest(row)
            active.add(row)
            active.flush()  # ids in the order of the steps
        return after


def resource_events(settings: Settings, request_id: str) -> list[ResourceEvent]:
    """The steps of one request, in order."""
    query = select(ResourceEvent).where(ResourceEvent.request_id == request_id).order_by(ResourceEvent.id)
    with reading(settings) as active:
        return list(active.scalars(query))


def _newest(active: Session, host: str) -> Queue | None:
    query = select(ResourceEvent.payload).where(ResourceEvent.payload["host"].as_string() == host)
    payload = active.scalars(query.order_by(ResourceEvent.id.desc()).limit(1)).first()
    return None if payload is None else payload["queue"]
