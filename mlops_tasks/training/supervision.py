"""The parent's side of a training run: start its process, watch over it, and make sure that the run ends exactly once.

Whatever happens to the training process, the parent adds the terminal event. A run whose parent is gone too is ended by
`end_lost_runs`, at the start of the next training and by the command line.
"""

import logging
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from mlops_tasks import errors
from mlops_tasks.config import Settings
from mlops_tasks.errors import ErrorKind, MlopsError, StageError, TrainingCancelledError
from mlops_tasks.machine.admission import Admission, Place
from mlops_tasks.machine.liveness import is_gone, this_host
from mlops_tasks.machine.memory_need import MemoryNeed
from mlops_tasks.machine.resources import ResourceSampler
from mlops_tasks.process import run_stage
from mlops_tasks.stage_process import StageProcess, end_group
from mlops_tasks.state.tables import TrainingRun, now
from mlops_tasks.state.training_runs import RunEndedError, newest_training_event, open_training_runs
from mlops_tasks.states import RunState
from mlops_tasks.training.control import CommandRelay
from mlops_tasks.training.events import JournalReader, Recorder
from mlops_tasks.training.journal import Journal
from mlops_tasks.training.memory_need import memory_need
from mlops_tasks.training.run_folder import RunFolder

log = logging.getLogger(__name__)

FIT_STAGE = "mlops_tasks.training.fit:fit_stage"

TICK_S = 0.5
"""How often commands and limits are checked for, and a database that did not answer is asked again."""
COPY_S = 0.1
"""How often events are copied. A look at a journal that has not grown takes some microseconds."""
HEARTBEAT_S = 30.0
"""The longest time without an event."""
LEASE_S = 600.0
"""A run on another machine counts as lost after this long without an event."""
LAST_FLUSH_S = 60.0
"""How long recording the last events is retried; what is left after that waits in the journal for `end_lost_runs`."""


class Supervisor:
    """Watches over one run, in the process that requested it."""

    def __init__(self, settings: Settings, folder: RunFolder, admission: Admission) -> None:
        self.settings = settings
        self.folder = folder
        self._admission = admission
        self._need: MemoryNeed | None = None
        self._sampler: ResourceSampler | None = None
        self.journal = Journal(folder.journal)
        self._recorder = Recorder(settings, folder.run_id, JournalReader(folder.journal))
        self._relay = CommandRelay(settings, folder.run_id, folder.command)
        self._child: StageProcess | None = None
        self._killed_for: tuple[str, str] | None = None
        """Class of error and reason, when it was this process that killed the training."""
        self._kind = ErrorKind.TRANSIENT
        """Of the error that the training process ended with."""
        self._stopped = threading.Event()

    def run(self) -> Path:
        """Train in a process of its own; returns the training folder.

        Raises
        ------
        CapacityError
            It would not fit into the memory of this machine.
        TrainingError, ConfigError, StoreError
            The training process raised it.
        TrainingCancelledError
            Somebody cancelled it.
        StageTimeoutError, StageError
            The process ran past its time limit, or died.
        """
        watcher = threading.Thread(target=self._watch, name="training-supervisor", daemon=True)
        started = time.monotonic()
        watcher.start()
        try:
            outcome = self._train()
        except StageError as error:
            outcome = self._explain(error)
        except MlopsError as error:
            outcome = _failed(type(error).__name__, str(error))
        except BaseException as error:
            outcome = _failed("StageError", f"its caller was interrupted: {type(error).__name__} {error}".rstrip())
            raise
        finally:
            self._stopped.set()
            watcher.join()
            self._admission.leave()
            self._end({**outcome, "seconds": round(time.monotonic() - started, 3), **self._used()})
        return self._result(outcome)

    def _train(self) -> dict[str, Any]:
        if not self._admitted():
            return {"state": RunState.CANCELLED}
        # Pauses do not count, so the watcher keeps the time limit.
        arguments = {"folder": str(self.folder.path)}
        outcome = run_stage(FIT_STAGE, arguments, time_limit_s=threading.TIMEOUT_MAX, on_start=self._remember)
        self._kind = ErrorKind(outcome.pop("kind", self._kind))
        return outcome

    def _admitted(self) -> bool:
        """Wait until there is room; False when the run was cancelled first."""
        self._need = memory_need(self.settings, self.folder.read()[1])
        return self._admission.wait(self._need, self._tell_place, lambda: self._relay.cancelled_by is not None)

    def _tell_place(self, place: Place) -> None:
        self.journal.append("queued", {"position": place.position, "reason": place.reason})

    def _remember(self, child: StageProcess) -> None:
        self._sampler = ResourceSampler(child.pid, child.inherited_mb)
        self._child = child
        if child.inherited_mb:
            self._admission.works_in(child.pid, child.inherited_mb)

    def _used(self) -> dict[str, float]:
        """What the training was estimated to need and what it used, for the terminal event."""
        needed = {"estimated_memory_mb": round(self._need.total_mb, 1)} if self._need else {}
        return {**needed, **(self._sampler.totals() if self._sampler else {})}

    def _watch(self) -> None:
        worked_s, asked_at, last = 0.0, None, time.monotonic()
        sampled = last
        while self._copied_for_a_tick():
            self._exchange()
            moment = time.monotonic()
            worked_s += 0.0 if self._recorder.paused or self._child is None else moment - last
            last = moment
            if self._relay.cancelled_by is not None:
                asked_at = asked_at or moment
            if moment - sampled >= self.settings.training.sample_s or self.journal.silent_s > HEARTBEAT_S:
                sampled = moment
                self._sample()
            if asked_at is not None and moment - asked_at > self.settings.training.cancel_grace_s:
                self._kill("TrainingCancelledError", "it did not end by itself")
            if worked_s > (limit := self.settings.training.time_limit_s):
                reason = f"ended after its limit of {limit:.0f} s; raise training.time_limit_s or reduce the work"
                self._kill("StageTimeoutError", reason)

    def _sample(self) -> None:
        """Record what the training uses; while it waits in the queue, record a heartbeat now and then."""
        used = self._sampler.sample() if self._sampler is not None else {}
        if used or self.journal.silent_s > HEARTBEAT_S:
            self.journal.append("resources", used)

    def _copied_for_a_tick(self) -> bool:
        """Copy events as they come, for the length of a tick; returns False as soon as the training is over."""
        until = time.monotonic() + TICK_S
        while not self._stopped.wait(max(0.0, min(COPY_S, until - time.monotonic()))):
            if time.monotonic() >= until:
                return True
            if not self._copy():  # it is asked again at the next tick
                return not self._stopped.wait(max(0.0, until - time.monotonic()))
        return False

    def _copy(self) -> bool:
        """Copy events to the database; returns whether it has taken them all."""
        with self._database():
            return self._recorder.record()
        return False

    def _exchange(self) -> None:
        """Copy events to the database and commands from it."""
        with self._database():
            self._recorder.record()
            self._relay.relay()

    @contextmanager
    def _database(self) -> Iterator[None]:
        """A database that does not answer ends no training."""
        try:
            yield
        except RunEndedError as error:
            self._kill("StageError", f"somebody else ended the run: {error}")
        except (SQLAlchemyError, MlopsError, OSError) as error:
            log.warning("run %s: the state database does not answer: %s", self.folder.run_id, error)

    def _kill(self, error: str, reason: str) -> None:
        self._killed_for = self._killed_for or (error, reason)
        if self._child is not None:
            end_group(self._child)

    def _explain(self, error: StageError) -> dict[str, Any]:
        """The outcome of a training whose process ended without reporting one."""
        if self._relay.cancelled_by is not None:
            return {"state": RunState.CANCELLED, "forced": True}
        if self._killed_for is not None:
            return _failed(*self._killed_for)
        reason, self._kind = str(error), error.kind
        if self._child is not None and (status := self._child.wait()) < 0:
            name = signal.Signals(-status).name
            reason = f"the training process was ended by {name}, sent by somebody or for lack of memory: {error}"
        return _failed("StageError", reason)

    def _end(self, outcome: Mapping[str, Any]) -> None:
        """Add the terminal event and copy everything to the database; a full disk keeps it out of the journal only."""
        payload = {name: value for name, value in outcome.items() if name != "state"}
        if outcome["state"] == RunState.CANCELLED:
            payload = {"asked_by": self._relay.cancelled_by, "forced": False, **payload}
        self.journal.append(outcome["state"], payload)
        self.journal.close()
        deadline = time.monotonic() + LAST_FLUSH_S
        try:
            while not self._recorder.end(outcome["state"], payload):
                if time.monotonic() > deadline:
                    log.error("run %s: its last events wait in %s", self.folder.run_id, self.folder.path)
                    return
                time.sleep(TICK_S)
        except RunEndedError as error:
            log.warning("%s", error)
        shutil.rmtree(self.folder.path, ignore_errors=True)

    def _result(self, outcome: Mapping[str, Any]) -> Path:
        if outcome["state"] == RunState.FINISHED:
            return self.settings.home / str(outcome["path"])
        if outcome["state"] == RunState.CANCELLED:
            raise TrainingCancelledError(
                f"run {self.folder.run_id} was cancelled by {self._relay.cancelled_by}; train again to continue from "
                "its newest checkpoint"
            )
        said = f"run {self.folder.run_id}: {outcome['reason']}"
        known: type[MlopsError] = getattr(errors, outcome["error"], StageError)
        raise StageError(said, self._kind) if known is StageError else known(said)


def _failed(error: str, reason: str) -> dict[str, Any]:
    return {"state": RunState.FAILED, "error": error, "reason": reason}


def end_lost_runs(settings: Settings) -> list[str]:
    """End the runs whose parent is gone: copy what is left of their journals, add `failed`, and return their ids.

    On the run's own machine the parent's process decides whether it is gone, elsewhere the age of its newest event
    (`LEASE_S`). If the state database does not take a run's events now, the run and its journal wait for the next call.
    """
    ended = []
    reason = "lost: its processes were killed or ended with their machine; train again to continue"
    for run in (run for run in open_training_runs(settings) if _is_lost(settings, run)):
        folder = RunFolder.of(settings, run.run_id)
        recorder = Recorder(settings, run.run_id, JournalReader(folder.journal))
        try:
            if not recorder.end(RunState.FAILED, {"error": "StageError", "reason": reason}):
                continue
        except RunEndedError:
            log.info("run %s: somebody else ended it", run.run_id)
        log.warning("the processes of training run %s (%s) are gone; its record is now complete", run.run_id, run.model)
        shutil.rmtree(folder.path, ignore_errors=True)
        ended.append(run.run_id)
    return ended


def _is_lost(settings: Settings, run: TrainingRun) -> bool:
    parent = run.request["process"]
    if parent["host"] == this_host():
        return is_gone(parent)
    newest = newest_training_event(settings, run.run_id)
    return now() - (newest.at if newest else run.at) > timedelta(seconds=LEASE_S)
