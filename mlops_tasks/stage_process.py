"""The process that a stage runs in: forked by the stage server where one serves this home, else a fresh interpreter.

Either way it leads a process group of its own, its standard input is the leash that its caller holds, its output is
one stream of lines, and it is given its whole environment.
"""

import contextlib
import errno
import json
import logging
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

log = logging.getLogger(__name__)

HEADER = struct.Struct("!Q")
"""Before a request: the length of its JSON text."""
IMPORT_TIME = (
    *("PYTHON", "LD_", "LANG", "LC_", "TZ", "HOME", "PATH", "VIRTUAL_ENV", "MALLOC_", "GLIBC_"),
    *("OMP_", "OPENBLAS_", "MKL_", "NUMEXPR_", "KMP_", "GOMP_", "NUMBA_", "CUDA_", "TORCH", "MPL", "XDG_"),
)
"""Beginnings of the variables that libraries read while they are imported: a stage whose environment has others than
the server's is not forked from it."""
BEGINS = "begins "
"""A stage's first word to its caller, before its number and the MB of memory that it shares with the server; anything
else says why it does not."""
_ANSWER_S = 60.0
"""How long the server may take to answer, its own renewal included."""


class StageProcess(Protocol):
    """What the caller of a stage holds of its process."""

    @property
    def pid(self) -> int:
        """The process, and the group that it leads."""

    @property
    def inherited_mb(self) -> float:
        """Of its resident memory what it had when it began and shares with the stage server; 0 of an interpreter."""

    @property
    def output(self) -> IO[str]:
        """What it writes, line by line, until it has ended."""

    @property
    def returncode(self) -> int | None:
        """Exit status once `wait` has returned; negative: the signal that ended it."""

    def wait(self) -> int:
        """Wait for its end; returns `returncode`."""

    def close(self) -> None:
        """Let go of the leash, of the output and of the process's number; it has ended."""


class FreshProcess:
    """An interpreter that imports what it needs."""

    inherited_mb = 0.0

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "mlops_tasks", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
            start_new_session=True,
            env=dict(environment),
        )
        assert self._child.stdout is not None
        self.pid, self.output = self._child.pid, self._child.stdout

    @property
    def returncode(self) -> int | None:
        """Of the interpreter."""
        return self._child.returncode

    def wait(self) -> int:
        """Of the interpreter."""
        return self._child.wait()

    def close(self) -> None:
        """Close both pipes."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self.output.close()


class ForkedProcess:
    """A child of the stage server, which tells its exit status and keeps its number from being used again.

    Where the server is gone meanwhile, the status is 0: what the stage has left as its result decides.
    """

    def __init__(self, connection: socket.socket, pid: int, inherited_mb: float, leash: int, output: IO[str]) -> None:
        self.pid, self.inherited_mb, self.output = pid, inherited_mb, output
        self.returncode: int | None = None
        self._connection, self._leash = connection, leash
        self._handle = os.pidfd_open(pid)
        self._waiting = threading.Lock()

    def wait(self) -> int:
        """Until the server says how it ended, or the process is gone and the server too."""
        with self._waiting:
            if self.returncode is None:
                told = _line(self._connection)
                if not told:
                    select.select([self._handle], [], [])
                self.returncode = int(told or 0)
            return self.returncode

    def close(self) -> None:
        """The server may forget it."""
        for each in (self._leash, self._handle):
            with contextlib.suppress(OSError):
                os.close(each)
        self._connection.close()
        self.output.close()


def start_process(words: Sequence[str], environment: Mapping[str, str], server: Path | None) -> StageProcess:
    """Start `python -m mlops_tasks <words>`.

    Parameters
    ----------
    environment
        All of its variables.
    server
        The stage server's socket; None, or nothing there: a fresh interpreter.
    """
    if server is not None and server.exists():
        with contextlib.suppress(OSError):
            if (forked := _forked(words, environment, server)) is not None:
                return forked
    return FreshProcess(words, environment)


def end_group(process: StageProcess) -> None:
    """Kill the process and all that it started; harmless when they are gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def is_listening(server: Path) -> bool:
    """Whether a stage server takes connections at this socket."""
    try:
        with socket.socket(socket.AF_UNIX) as connection, short_path(server) as address:
            connection.connect(address)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A path to the same socket of at most 107 bytes, which is all that one may have."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def import_time(environment: Mapping[str, str]) -> dict[str, str]:
    """Of an environment what libraries read while they are imported."""
    return {name: value for name, value in environment.items() if name.startswith(IMPORT_TIME)}


def _forked(words: Sequence[str], environment: Mapping[str, str], server: Path) -> ForkedProcess | None:
    """A process forked by the server; None where the server does not fork it, for a reason that is logged."""
    connection = socket.socket(socket.AF_UNIX)
    leash_read, leash = os.pipe()
    output, output_write = os.pipe()
    try:
        connection.settimeout(_ANSWER_S)
        with short_path(server) as address:
            connection.connect(address)
        request = {"words": list(words), "environment": dict(environment), "folder": str(Path.cwd())}
        text = json.dumps(request).encode()
        socket.send_fds(connection, [HEADER.pack(len(text))], [leash_read, output_write, output_write])
        connection.sendall(text)
        answer = _line(connection)
        connection.settimeout(None)
        if answer.startswith(BEGINS):
            pid, inherited_mb = answer.removeprefix(BEGINS).split()
            stream = os.fdopen(output, "r", errors="replace", buffering=1)
            return ForkedProcess(connection, int(pid), float(inherited_mb), leash, stream)
        log.info("a fresh interpreter: %s", answer or "the stage server has ended")
    except OSError as error:
        if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
            log.warning("a fresh interpreter: the stage server does not answer (%s)", error)
    finally:
        os.close(leash_read)
        os.close(output_write)
    os.close(leash)
    os.close(output)
    connection.close()
    return None


def _line(connection: socket.socket) -> str:
    """The next line that the server says; empty when it is gone."""
    said = b""
    while not said.endswith(b"\n"):
        try:
            more = connection.recv(1)
        except ConnectionResetError:
            return ""
        if not more:
            return ""
        said += more
    return said.decode().strip()
