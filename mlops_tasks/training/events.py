"""The event stream of a training run: written to a journal file first, and copied from there to the state database.

The processes of a run append lines to one journal file: that costs microseconds, waits for no database, takes no
memory, and what was appended survives `kill -9` of every process. A line's place in the journal is the event's sequence
number. One thread of the parent copies new lines to the database. If everything is killed, `end_lost_runs`
(`supervision.py`) copies what is left and adds the terminal event.

Kinds of events: `KINDS`; the last one of a run, and only it, is one of `states.TERMINAL`.
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from mlops_tasks.config import Settings
from mlops_tasks.errors import StoreError
from mlops_tasks.state.tables import TrainingEvent, TrainingRun
from mlops_tasks.state.training_runs import (
    NewEvent,
    RunEndedError,
    end_run,
    find_training_run,
    newest_training_events,
    record_events,
    training_events,
    training_runs,
    training_runs_of,
)
from mlops_tasks.states import TERMINAL, RunState

log = logging.getLogger(__name__)

KINDS: Mapping[str, str] = {
    "created": "the training was requested: pid, host",
    "queued": "it waits for memory or slots: position, reason",
    "stage": "what is being done now: stage",
    "restored": "it continues from a checkpoint: iteration",
    "iteration": "iteration, total, percent, eta_s, eta_stop_s, best (iteration, metric, value), metrics "
    "(<segment>.<metric>, None where undefined)",
    "checkpoint": "a checkpoint was written: iteration",
    "resources": "what its processes use, see `resources.py`; also the sign that they are alive",
    "decision": "why it stops early, or is thought to overfit",
    "warning": "explanation: what does not go as well as it could, and the remedy",
    "paused": "it waits; if its fit is under way, its state is in a checkpoint: iteration",
    "resumed": "it continues: iteration",
    RunState.FINISHED: "training_key, path, seconds, reused (the same training existed already)",
    RunState.FAILED: "error (its class), reason",
    RunState.CANCELLED: "asked_by, forced (its processes did not end by themselves and were killed)",
}
"""Kind of event to what its payload holds."""

_BATCH_BYTES = 1 << 20
_PAGE = 1000


class JournalReader:
    """Reads a journal from its beginning, each event once, up to the terminal one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ended = False
        self._offset = 0
        self._sequence = 0

    def read(self) -> list[NewEvent]:
        """The next events, at most about a megabyte of them; none when there is nothing new."""
        if self.ended or not self.path.is_file():
            return []
        with self.path.open("rb") as file:
            file.seek(self._offset)
            lines = file.readlines(_BATCH_BYTES)
        events = []
        for line in lines:
            if not line.endswith(b"\n"):
                break
            self._offset += len(line)
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                self._sequence += 1
                events.append(NewEvent.of(self._sequence, record))
                if events[-1].terminal:
                    self.ended = True
                    break
        return events


class Recorder:
    """Copies a journal into the state database; if that does not answer, the next call tries again."""

    def __init__(self, settings: Settings, run_id: str, reader: JournalReader) -> None:
        self.settings = settings
        self.run_id = run_id
        self.paused = False
        """According to the newest events."""
        self._reader = reader
        self._pending: list[NewEvent] = []
        self._complained = False

    def record(self) -> bool:
        """Record what is new; returns whether the database now holds everything that was in the journal.

        Raises
        ------
        RunEndedError
            Somebody else ended the run.
        """
        while batch := self._pending or self._reader.read():
            self._pending = batch
            for kind in (event.kind for event in batch if event.kind in ("paused", "resumed")):
                self.paused = kind == "paused"
            if not self._reach(partial(record_events, self.settings, self.run_id, batch)):
                return False
            self._pending = []
        return True

    def end(self, kind: str, payload: Mapping[str, Any]) -> bool:
        """Record what is new, then this end if the journal has none; returns whether the database now holds both.

        Raises
        ------
        RunEndedError
            As from `record`.
        """
        if not self.record():
            return False
        return self._reader.ended or self._reach(partial(end_run, self.settings, self.run_id, kind, payload))

    def _reach(self, change: Callable[[], object]) -> bool:
        """Whether the state database answered and took the change."""
        try:
            change()
        except RunEndedError:
            raise
        except (SQLAlchemyError, StoreError, OSError) as error:
            if not self._complained:
                log.warning("events of %s wait for the state database: %s", self.run_id, error)
            self._complained = True
            return False
        self._complained = False
        return True


def read_events(settings: Settings, run_id: str, after: int = 0, limit: int = _PAGE) -> list[TrainingEvent]:
    """Up to `limit` events of a run with sequence numbers above `after`, in order; none for an unknown run."""
    return training_events(settings, run_id, after, limit)


def follow(settings: Settings, run_id: str, after: int = 0, poll_s: float = 0.5) -> Iterator[TrainingEvent]:
    """Events of a run above `after`, as they come, until the terminal one.

    Raises
    ------
    StoreError
        There is no such run.
    """
    _known(settings, run_id)
    while True:
        events = read_events(settings, run_id, after)
        for event in events:
            yield event
            if event.terminal:
                return
            after = event.sequence
        if not events:
            time.sleep(poll_s)


@dataclass(frozen=True)
class RunProgress:
    """The progress of a run according to its newest events."""

    run_id: str
    model: str
    owner: str
    at: datetime
    state: RunState
    stage: str
    iteration: int
    total: int
    percent: float
    eta_s: float | None
    """Seconds until all iterations are done."""
    eta_stop_s: float | None
    """Seconds until early stopping ends it, if validation does not improve."""
    best: Mapping[str, Any] | None
    """The iteration that is, or would be, kept: iteration, metric and value; None where there is none."""
    metrics: Mapping[str, float | None]
    sequence: int
    """Of the newest event."""
    ending: Mapping[str, Any]
    """Payload of the terminal event; empty while the run is open."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "at": self.at.isoformat(), "state": self.state.value}


def run_progress(settings: Settings, run_id: str) -> RunProgress:
    """The progress of one run.

    Raises
    ------
    StoreError
        There is no such run.
    """
    return _progress(settings, [_known(settings, run_id)])[0]


def runs(settings: Settings, limit: int = 20) -> list[RunProgress]:
    """The latest runs, the newest first."""
    return _progress(settings, training_runs(settings, limit))


def trainings_of(settings: Settings, dag_id: str, dag_run_id: str) -> list[RunProgress]:
    """The runs that a run of a DAG has started, the newest first."""
    return _progress(settings, training_runs_of(settings, dag_id, dag_run_id))


def _known(settings: Settings, run_id: str) -> TrainingRun:
    run = find_training_run(settings, run_id)
    if run is None:
        raise StoreError(f"there is no training run {run_id!r}; `alphaops training list` shows them")
    return run


_STATE_OF = {"created": RunState.QUEUED, "queued": RunState.QUEUED, "paused": RunState.PAUSED}
_STATE_KINDS = (*_STATE_OF, "stage", "restored", "iteration", "resumed", *TERMINAL)


def _progress(settings: Settings, asked: Sequence[TrainingRun]) -> list[RunProgress]:
    """The progress of several runs, in as few queries as that of one."""
    names = [run.run_id for run in asked]
    newest = newest_training_events(settings, names)
    telling = newest_training_events(settings, names, _STATE_KINDS)
    iterations = newest_training_events(settings, names, ("iteration",))
    stages = newest_training_events(settings, names, ("stage",))
    return [_told(run, *(found.get(run.run_id) for found in (newest, telling, stages, iterations))) for run in asked]


def _told(
    run: TrainingRun,
    newest: TrainingEvent | None,
    telling: TrainingEvent | None,
    stage: TrainingEvent | None,
    iteration: TrainingEvent | None,
) -> RunProgress:
    """What the newest events of a run say: of all, of those that tell its state, of its stages, of its iterations."""
    reached = iteration.payload if iteration else {}
    kind = telling.kind if telling else "created"
    ending = telling.payload if telling and telling.terminal else {}
    return RunProgress(
        run_id=run.run_id,
        model=run.model,
        owner=run.owner,
        at=run.at,
        state=RunState(kind) if kind in TERMINAL else _STATE_OF.get(kind, RunState.RUNNING),
        stage=stage.payload["stage"] if stage else "",
        iteration=reached.get("iteration", 0),
        total=reached.get("total", 0),
        percent=100.0 if kind == RunState.FINISHED else reached.get("percent", 0.0),
        eta_s=None if ending else reached.get("eta_s"),
        eta_stop_s=None if ending else reached.get("eta_stop_s"),
        best=reached.get("best"),
        metrics=reached.get("metrics", {}),
        sequence=newest.sequence if newest else 0,
        ending=ending,
    )
