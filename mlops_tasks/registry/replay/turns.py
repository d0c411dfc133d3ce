"""A replay's turn on the machine: it waits in the queue of trainings, and may give way to those that wait behind it."""

import logging
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from mlops_tasks.config import Settings
from mlops_tasks.errors import ErrorKind, MlopsError, StageError, StageTimeoutError, StoreError
from mlops_tasks.machine.admission import Admission, queue_info
from mlops_tasks.machine.memory_need import MemoryNeed
from mlops_tasks.process import run_stage
from mlops_tasks.stage_process import StageProcess, end_group

log = logging.getLogger(__name__)

REPLAY = "replay"
"""Owner of replays in the machine's queue."""
LOOK_S = 2.0
"""How often one that gives way looks whether somebody waits."""


class TimeIsUpError(MlopsError, TimeoutError):
    """A replay has not ended within its time."""

    kind = ErrorKind.TRANSIENT


@dataclass(frozen=True)
class Pace:
    """How long a replay may take, and what it does when others need the machine."""

    limit_s: float
    """Of all its turns, and of the time for which it waits or gives way."""
    gives_way: bool
    """Whether it takes a turn only while no training waits, and ends it when one does, to continue later."""


class Turns:
    """The turns of one replay; its name is shown in the queue."""

    def __init__(self, settings: Settings, name: str, need: MemoryNeed, pace: Pace) -> None:
        self.settings = settings
        self.name = f"{name}-{secrets.token_hex(3)}"
        self.need = need
        self.pace = pace
        self._deadline = time.monotonic() + pace.limit_s

    def run(self, stage: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Run a stage that can be killed and begun again, in one turn or, where it gives way, in several; its result.

        Raises
        ------
        TimeIsUpError
            It has not ended in time; nothing of it runs any more.
        CapacityError, StageError
            As `Admission.wait` and `run_stage`.
        """
        while True:
            while self.pace.gives_way and self._others_wait():
                self._check_time()
                time.sleep(LOOK_S)
            admission = Admission(self.settings, self.name, REPLAY)
            try:
                if admission.wait(self.need, lambda place: log.info("waits: %s", place.reason), self._is_over):
                    found = self._turn(admission, stage, arguments)
                    if found is not None:
                        return found
                    log.info("%s gives way to a training, and continues later", self.name)
            finally:
                admission.leave()
            self._check_time()

    def _turn(self, admission: Admission, stage: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """One turn; None if it has given way."""
        ended, gave_way = threading.Event(), threading.Event()

        def watch(child: StageProcess) -> None:
            while not ended.wait(LOOK_S):
                if self._others_wait():
                    gave_way.set()
                    end_group(child)
                    return

        def remember(child: StageProcess) -> None:
            if child.inherited_mb:
                admission.works_in(child.pid, child.inherited_mb)
            if self.pace.gives_way:
                threading.Thread(target=watch, args=(child,), name="replay-gives-way", daemon=True).start()

        left = max(1.0, self._deadline - time.monotonic())
        try:
            return run_stage(stage, arguments, time_limit_s=left, on_start=remember)
        except StageTimeoutError as error:
            raise self._time_is_up() from error
        except StageError:
            if gave_way.is_set():
                return None
            raise
        finally:
            ended.set()

    def _is_over(self) -> bool:
        return time.monotonic() > self._deadline or (self.pace.gives_way and self._others_wait())

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise self._time_is_up()

    def _time_is_up(self) -> TimeIsUpError:
        return TimeIsUpError(
            f"it has not ended within {self.pace.limit_s:.0f} s, waiting for the machine included; raise "
            "replay.time_limit_s, or replay it by hand"
        )

    def _others_wait(self) -> bool:
        try:
            waiting = queue_info(self.settings)["waiting"]
        except (SQLAlchemyError, StoreError, OSError) as error:
            log.warning("%s: the state database does not answer: %s", self.name, error)
            return False
        return any(each["request_id"] != self.name for each in waiting)
