"""Pause, resume and cancel a training: from the state database to the training process.

A command is a row (`command_run`). The run's parent passes it on as a small file beside the journal, which the training
checks between iterations: the process that computes needs no connection, no thread and no signal.
"""

import time
from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.errors import TrainingCancelledError
from mlops_tasks.files import write_text

_LOOK_S = 0.2
"""How often the training checks for a command."""


def command_run(settings: Settings, run_id: str, command: str, asked_by: str) -> None:
    """Ask an open run to `pause`, `resume` or `cancel`.

    A pause or a cancellation takes effect at the end of the iteration under way, or before the next stage. A cancelled
    run that does not end by itself within `training.cancel_grace_s` is killed. It is never resumed.

    Raises
    ------
    StoreError
        The command or the run is unknown, or the run has ended.
    """
    from mlops_tasks.state.training_runs import record_command

    record_command(settings, run_id, command, asked_by)


class CommandRelay:
    """In the parent: passes new commands on to the training."""

    def __init__(self, settings: Settings, run_id: str, path: Path) -> None:
        self.cancelled_by: str | None = None
        self._settings = settings
        self._run_id = run_id
        self._path = path
        self._seen = 0

    def relay(self) -> None:
        """Look for new commands; the newest one counts, and a cancellation is final."""
        from mlops_tasks.state.training_runs import training_commands

        for row in training_commands(self._settings, self._run_id, self._seen):
            self._seen = row.id
            if self.cancelled_by is None:
                write_text(self._path, row.command)
                self.cancelled_by = row.asked_by if row.command == "cancel" else None


class FileControl:
    """In the training: the `Control` of its session."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._command = ""
        self._next_look = 0.0

    def check(self) -> None:
        """Raise TrainingCancelledError when the training was cancelled."""
        self._look()
        if self._command == "cancel":
            raise TrainingCancelledError("the training was cancelled")

    @property
    def pause_requested(self) -> bool:
        """Whether the training is to pause."""
        self._look()
        return self._command == "pause"

    def wait(self) -> None:
        """Return when the training is resumed; raise TrainingCancelledError when it is cancelled."""
        while self.pause_requested:
            time.sleep(_LOOK_S)
        self.check()

    def _look(self) -> None:
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_S
            try:
                self._command = self._path.read_text()
            except FileNotFoundError:
                self._command = ""
