"""A model whose files run code, in a process of its own that has no secrets to give away.

The process gets none of this one's environment variables. It can read only the libraries and the artefact, and reach no
network and no other process; its memory is limited (`sandbox.py`). Rows go in and numbers come out (`frames.py`). A
process that dies is started again.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlops_tasks.errors import IsolationError, TrainingError
from mlops_tasks.modeling.frames import OK, read_answer, write_matrix
from mlops_tasks.modeling.manifest import ArtefactManifest
from mlops_tasks.modeling.model_zoo.row_scores import BLOCK
from mlops_tasks.modeling.windows import FloatArray

log = logging.getLogger(__name__)

START_S, ANSWER_S, END_S = 180.0, 120.0, 10.0
"""How long the process may take to load a model, to score `AT_ONCE` rows, and to end."""
AT_ONCE = 16 * BLOCK
"""Rows of one request: whole blocks, so that a row's score does not depend on where requests are divided."""
SHOWN = 300
"""Characters of a message that are passed on, at most."""

_KEPT = ("LANG", "LC_ALL", "TZ", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Isolation:
    """What a process is started for."""

    folder: Path
    """A verified artefact."""
    manifest: ArtefactManifest
    threads: int
    memory_mb: float
    home: Path
    """The process sees nothing else of it."""

    def command(self) -> list[str]:
        """The words of the command that starts the process."""
        given = {"folder": str(self.folder.resolve()), "threads": self.threads, "memory_mb": self.memory_mb}
        words = json.dumps({**given, "home": str(self.home.resolve())})
        return [sys.executable, "-P", "-m", "mlops_tasks.modeling.isolated", words]

    def environment(self) -> dict[str, str]:
        """All of its environment variables; a user's own class is found where this process finds it."""
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        paths = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)  # an empty one is this folder
        python = {"PYTHONPATH": paths, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        return {**kept, **python, "HOME": "/nonexistent"}


class IsolatedPredictor:
    """A `Predictor` whose model lives in another process; thread-safe, one request at a time.

    Raises
    ------
    IsolationError
        The process cannot be closed off, or cannot load the model.
    """

    def __init__(self, isolation: Isolation) -> None:
        self._isolation = isolation
        self._lock = threading.Lock()
        self._child = _Child(isolation)

    def predict(self, features: FloatArray) -> FloatArray:
        """Shape (n,), float64.

        Raises
        ------
        TrainingError
            The model's code failed.
        IsolationError
            Its process died twice while scoring these rows.
        """
        parts = [features[begin : begin + AT_ONCE] for begin in range(0, len(features), AT_ONCE)]
        with self._lock:
            return np.concatenate([self._scores(part) for part in parts]) if parts else np.empty(0)

    def close(self) -> None:
        """End the process; it ends with this object in any case."""
        self._child.end()

    def _scores(self, part: FloatArray) -> FloatArray:
        try:
            return self._child.scores(part)
        except IsolationError as error:
            log.warning("%s; it is started again", error)
            self._child = _Child(self._isolation)
            return self._child.scores(part)


class _Child:
    """One process; it ends with this object."""

    def __init__(self, isolation: Isolation) -> None:
        self._folder = isolation.folder
        self._process = subprocess.Popen(
            isolation.command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=isolation.environment(),
        )
        self.end = weakref.finalize(self, _end, self._process)
        try:
            self._receive(0, START_S)
        except TrainingError as error:
            raise IsolationError(str(error)) from None

    def scores(self, part: FloatArray) -> FloatArray:
        assert self._process.stdin is not None
        try:
            with _limit(self._process, ANSWER_S):
                write_matrix(self._process.stdin, part)
        except (OSError, ValueError):  # it has died, or was ended here
            raise IsolationError(f"{self._folder}: the process of this model is gone") from None
        return np.frombuffer(self._receive(len(part) * 8, ANSWER_S), dtype="<f8")

    def _receive(self, expected: int, limit_s: float) -> bytes:
        assert self._process.stdout is not None
        try:
            with _limit(self._process, limit_s):
                status, content = read_answer(self._process.stdout, expected)
        except (EOFError, OSError):
            _end(self._process)
            raise IsolationError(
                f"{self._folder}: the process of this model ended (status {self._process.returncode}); it may need "
                f"more than models.isolated_memory_mb, or have taken more than {limit_s:.0f} s"
            ) from None
        except ValueError as error:
            _end(self._process)
            raise IsolationError(f"{self._folder}: the process of this model gave {error}; it was ended") from None
        if status != OK:
            said = ascii(content.decode(errors="replace")[:SHOWN])
            raise TrainingError(f"{self._folder}: this model's own code, in its process: {said}")
        return content


@contextlib.contextmanager
def _limit(process: subprocess.Popen[bytes], seconds: float) -> Any:
    """Kill the process when it takes longer; what waits for it then meets the end of its stream."""
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(process: subprocess.Popen[bytes]) -> None:
    # This may run, by garbage collection, in a closed-off thread that must not kill a process. The end of its input
    # also ends the process.
    with contextlib.suppress(PermissionError):
        process.kill()
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(OSError, ValueError):
            stream.close()  # type: ignore[union-attr]
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
