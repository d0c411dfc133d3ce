"""Training runs, their events and their commands.

Events are numbered 1, 2, 3, ... in each run. A run is open until its terminal event, after which nothing is added.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import and_, func, insert, or_, select, text
from sqlalchemy.orm import Session, aliased

from mlops_tasks.config import Settings
from mlops_tasks.errors import StoreError
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.rows import content_digest
from mlops_tasks.state.tables import TrainingCommand, TrainingEvent, TrainingRun, now
from mlops_tasks.states import TERMINAL, RunState

COMMANDS = ("pause", "resume", "cancel")


@dataclass(frozen=True)
class NewEvent:
    """An event to be recorded under a known number."""

    sequence: int
    kind: str
    at: datetime
    payload: Mapping[str, Any]

    @classmethod
    def of(cls, sequence: int, record: Mapping[str, Any]) -> "NewEvent":
        """Build it from a record with `kind`, `at` (seconds since the epoch) and `payload`."""
        return cls(sequence, record["kind"], datetime.fromtimestamp(record["at"], UTC), record["payload"])

    @property
    def terminal(self) -> bool:
        """Whether it ends the run."""
        return self.kind in TERMINAL

    def row(self, run_id: str) -> dict[str, Any]:
        """The columns of its row."""
        content = json.dumps([run_id, self.sequence, self.kind, dict(self.payload)], sort_keys=True)
        return {
            "run_id": run_id,
            "sequence": self.sequence,
            "kind": self.kind,
            "terminal": self.terminal,
            "payload": dict(self.payload),
            "at": self.at,
            "content_digest": hashlib.sha256(content.encode()).hexdigest(),
            "recorded_at": now(),
        }


class RunEndedError(StoreError):
    """An event was to be added to a run that has ended."""


def record_training_run(settings: Settings, run: TrainingRun) -> None:
    """Add a run."""
    run.content_digest = content_digest(run)
    with session(settings) as active:
        active.add(run)


def record_events(settings: Settings, run_id: str, events: Sequence[NewEvent]) -> None:
    """Add events with consecutive numbers, in one transaction; those already recorded are skipped.

    Raises
    ------
    RunEndedError
        The run ended before the first new event.
    StoreError
        A number would be left out, or there is no such run.
    """
    with session(settings) as active:
        newest = _newest(active, run_id)
        rows = [event.row(run_id) for event in events if event.sequence > (newest.sequence if newest else 0)]
        if not rows:
            return
        _check_follows(run_id, newest, rows[0]["sequence"])
        active.execute(insert(TrainingEvent), rows)


def end_run(settings: Settings, run_id: str, kind: str, payload: Mapping[str, Any]) -> bool:
    """Add a terminal event after the newest; False if the run has ended."""
    with session(settings) as active:
        newest = _newest(active, run_id)
        if newest is not None and newest.terminal:
            return False
        event = NewEvent(newest.sequence + 1 if newest else 1, kind, now(), payload)
        active.execute(insert(TrainingEvent), [event.row(run_id)])
    return True


def _newest(active: Session, run_id: str) -> TrainingEvent | None:
    """The newest event; other writers of the run wait until the transaction ends (SQLite has one writer anyway)."""
    known = active.scalar(select(TrainingRun.id).where(TrainingRun.run_id == run_id).with_for_update())
    if known is None:
        raise StoreError(f"there is no training run {run_id!r}; `alphaops training list` shows them")
    query = select(TrainingEvent).where(TrainingEvent.run_id == run_id).order_by(TrainingEvent.sequence.desc()).limit(1)
    return active.scalars(query).first()


def _check_follows(run_id: str, newest: TrainingEvent | None, first: int) -> None:
    if newest is not None and newest.terminal:
        raise RunEndedError(
            f"training run {run_id} ended with event {newest.sequence} ({newest.kind}); start a new run"
        )
    last = newest.sequence if newest else 0
    if first != last + 1:
        raise StoreError(f"training run {run_id}: event {first} would follow event {last}; record those between first")


def training_events(settings: Settings, run_id: str, after: int = 0, limit: int | None = None) -> list[TrainingEvent]:
    """Events of a run with numbers above `after`, in order."""
    query = select(TrainingEvent).where(TrainingEvent.run_id == run_id, TrainingEvent.sequence > after)
    with reading(settings) as active:
        return list(active.scalars(query.order_by(TrainingEvent.sequence).limit(limit)))


def new_training_events(settings: Settings, after: Mapping[str, int], limit: int) -> list[TrainingEvent]:
    """Events of several runs, each above its own number, in the order in which they were recorded."""
    wanted = [and_(TrainingEvent.run_id == run, TrainingEvent.sequence > number) for run, number in after.items()]
    with reading(settings) as active:
        return list(active.scalars(select(TrainingEvent).where(or_(*wanted)).order_by(TrainingEvent.id).limit(limit)))


def sampled_training_events(settings: Settings, run_id: str, kind: str, until: int, most: int) -> list[TrainingEvent]:
    """About `most` events of a kind up to a number, evenly spread, the newest among them, in order."""
    wanted = (TrainingEvent.run_id == run_id, TrainingEvent.kind == kind, TrainingEvent.sequence <= until)
    place = func.row_number().over(order_by=TrainingEvent.sequence.desc()) - 1
    numbered = select(TrainingEvent.id, place.label("place")).where(*wanted).subquery()
    with reading(settings) as active:
        count = active.scalar(select(func.count()).select_from(TrainingEvent).where(*wanted)) or 0
        every = max(1, math.ceil(count / most))
        query = select(TrainingEvent).join(numbered, TrainingEvent.id == numbered.c.id)
        query = query.where(numbered.c.place % every == 0).order_by(TrainingEvent.sequence)
        return list(active.scalars(query))


def last_training_events(
    settings: Settings, run_id: str, until: int, limit: int, without: Sequence[str] = ()
) -> list[TrainingEvent]:
    """The last events up to a number, the newest first, but for these kinds."""
    query = select(TrainingEvent).where(TrainingEvent.run_id == run_id, TrainingEvent.sequence <= until)
    query = query.where(TrainingEvent.kind.not_in(without)).order_by(TrainingEvent.sequence.desc()).limit(limit)
    with reading(settings) as active:
        return list(active.scalars(query))


def newest_training_event(settings: Settings, run_id: str, kinds: Sequence[str] = ()) -> TrainingEvent | None:
    """The newest event of a run, of the given kinds if any."""
    query = select(TrainingEvent).where(TrainingEvent.run_id == run_id)
    if kinds:
        query = query.where(TrainingEvent.kind.in_(kinds))
    with reading(settings) as active:
        return active.scalars(query.order_by(TrainingEvent.sequence.desc()).limit(1)).first()


def newest_training_events(
    settings: Settings, run_ids: Sequence[str], kinds: Sequence[str] = ()
) -> dict[str, TrainingEvent]:
    """The newest event of each of these runs, of the given kinds if any; runs that have none are left out."""
    event = aliased(TrainingEvent)
    newest = select(event.id).where(event.run_id == TrainingRun.run_id)
    if kinds:
        newest = newest.where(event.kind.in_(kinds))
    wanted = newest.order_by(event.sequence.desc()).limit(1).correlate(TrainingRun).scalar_subquery()
    query = select(TrainingEvent).join(TrainingRun, TrainingEvent.id == wanted)
    with reading(settings) as active:
        return {row.run_id: row for row in active.scalars(query.where(TrainingRun.run_id.in_(run_ids)))}


def training_runs(settings: Settings, limit: int) -> list[TrainingRun]:
    """The last runs, newest first."""
    with reading(settings) as active:
        return list(active.scalars(select(TrainingRun).order_by(TrainingRun.id.desc()).limit(limit)))


def training_runs_of(settings: Settings, dag_id: str, dag_run_id: str, limit: int = 200) -> list[TrainingRun]:
    """The runs that a run of a DAG has started, newest first."""
    started = TrainingRun.request["dag_run"]
    wanted = (started["dag_id"].as_string() == dag_id, started["run_id"].as_string() == dag_run_id)
    with reading(settings) as active:
        return list(active.scalars(select(TrainingRun).where(*wanted).order_by(TrainingRun.id.desc()).limit(limit)))


def finished_trainings(settings: Settings, model: str, limit: int) -> list[dict[str, Any]]:
    """What the last runs of a model that have finished said at their end, the newest first."""
    query = select(TrainingEvent.payload).join(TrainingRun, TrainingRun.run_id == TrainingEvent.run_id)
    query = query.where(TrainingRun.model == model, TrainingEvent.kind == RunState.FINISHED.value)
    with reading(settings) as active:
        return list(active.scalars(query.order_by(TrainingEvent.id.desc()).limit(limit)))


def find_training_run(settings: Settings, run_id: str) -> TrainingRun | None:
    """The run with this id."""
    with reading(settings) as active:
        return active.scalars(select(TrainingRun).where(TrainingRun.run_id == run_id)).first()


def open_training_runs(settings: Settings) -> list[TrainingRun]:
    """Runs without a terminal event, oldest first."""
    end = aliased(TrainingEvent, name="ending")
    ended = and_(end.run_id == TrainingRun.run_id, text("ending.terminal"))  # as its partial index has it
    query = select(TrainingRun).outerjoin(end, ended).where(end.id.is_(None)).order_by(TrainingRun.id)
    with reading(settings) as active:
        return list(active.scalars(query))


def record_command(settings: Settings, run_id: str, command: str, asked_by: str) -> None:
    """Add a command to an open run.

    Raises
    ------
    StoreError
        The command is not in `COMMANDS`, or the run is unknown or has ended.
    """
    if command not in COMMANDS:
        raise StoreError(f"command {command!r} is unknown; use one of {', '.join(COMMANDS)}")
    row = TrainingCommand(run_id=run_id, command=command, asked_by=asked_by)
    row.content_digest = content_digest(row)
    with session(settings) as active:
        newest = _newest(active, run_id)
        if newest is not None and newest.terminal:
            raise RunEndedError(f"training run {run_id} has ended ({newest.kind}): there is nothing to {command}")
        active.add(row)


def training_commands(settings: Settings, run_id: str, after: int = 0) -> list[TrainingCommand]:
    """Commands of a run with row ids above `after`, in order."""
    query = select(TrainingCommand).where(TrainingCommand.run_id == run_id, TrainingCommand.id > after)
    with reading(settings) as active:
        return list(active.scalars(query.order_by(TrainingCommand.id)))
