"""Programs that tests run in processes of their own: forked by the run's stage server, which has imported everything.

`python -m tests.programs` is that server: it forks stages as the stack's does, and `-c` programs beside them. Without
one, as in a run of a few tests by hand, and for an environment that differs in what libraries read while they are
imported, a program gets a fresh interpreter. So a test whose matter is a fresh interpreter starts one itself.
"""

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from mlops_tasks import cli
from mlops_tasks.stage_process import BEGINS, HEADER, short_path

server: Path | None = None
"""Socket of the run's stage server; None where there is none."""
SERVED = {"PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0"}
"""What the server's environment has beyond that of the tests."""


class Forked:
    """What a test needs of `subprocess.Popen[str]`, of a process that the server has forked; its stdin is a pipe."""

    def __init__(self, code: str, arguments: Sequence[str], environment: Mapping[str, str], stderr: int | None) -> None:
        ours: list[int] = []
        theirs: list[int] = []
        for stream in range(3):
            if stream == 2 and stderr is None:
                theirs.append(os.dup(2))
                continue
            pair = os.pipe()
            theirs.append(pair[stream > 0])
            ours.append(pair[stream == 0])
        self.stdin: IO[str] = os.fdopen(ours[0], "w")
        self.stdout: IO[str] = os.fdopen(ours[1])
        self.stderr: IO[str] | None = os.fdopen(ours[2]) if len(ours) > 2 else None
        self.args, self.returncode = ["-c", code, *arguments], None
        self._connection = socket.socket(socket.AF_UNIX)
        self._answers = self._connection.makefile("rb", buffering=0)  # what it has not read, `select` sees
        answer = self._asked(environment, theirs)
        for each in theirs:
            os.close(each)
        if not answer.startswith(BEGINS):
            self._let_go()
            raise NotForkedError(answer)
        self.pid = int(answer.split()[1])

    def _asked(self, environment: Mapping[str, str], streams: Sequence[int]) -> str:
        """The server's answer to the request; empty where it has gone to import the code anew."""
        request = {"words": self.args, "environment": {**environment, **SERVED}, "folder": str(Path.cwd())}
        text = json.dumps(request).encode()
        assert server is not None
        try:
            with short_path(server) as address:
                self._connection.connect(address)
            socket.send_fds(self._connection, [HEADER.pack(len(text))], streams)
            self._connection.sendall(text)
            return self._answers.readline().decode()
        except OSError:
            return ""

    def poll(self) -> int | None:
        """Exit status, None while it runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.returncode = int(self._answers.readline())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Exit status; negative: the signal that ended it."""
        if self.returncode is None and not select.select([self._connection], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, sent: int) -> None:
        """Unless it has ended. Its number stays its own until this object lets go of the connection."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sent)

    def kill(self) -> None:
        """With SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        """Write to it, and read all that it writes; it has ended then."""
        if input:
            self.stdin.write(input)
        self.stdin.close()
        said: dict[IO[str], list[str]] = {stream: [] for stream in (self.stdout, self.stderr) if stream is not None}
        open_streams = set(said)
        while open_streams:
            ready = select.select(open_streams, [], [], timeout)[0]
            if not ready:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            for stream in ready:
                more = os.read(stream.fileno(), 1 << 16)
                said[stream].append(more.decode(errors="replace"))
                if not more:
                    open_streams.remove(stream)
        self.wait(timeout)
        told = ["".join(parts) for parts in said.values()]
        return told[0], told[1] if len(told) > 1 else ""

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdout, self.stderr, self.stdin):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self.wait()
        self._let_go()

    def _let_go(self) -> None:
        self._answers.close()
        self._connection.close()


class NotForkedError(Exception):
    """The server's answer."""


Program = Forked | subprocess.Popen[str]


def start(
    code: str, *arguments: object, environment: Mapping[str, str] = os.environ, stderr: int | None = None
) -> Program:
    """A process that runs `python -c <code> <arguments>`; stdin and stdout are pipes of text.

    `stderr` is `subprocess.PIPE`, or None: it goes where that of this process goes.
    """
    words = [str(argument) for argument in arguments]
    if server is not None and server.exists():
        with contextlib.suppress(NotForkedError):
            return Forked(code, words, environment, stderr)
    streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": stderr}
    return subprocess.Popen([sys.executable, "-c", code, *words], env=dict(environment), text=True, **streams)


def run(
    code: str, *arguments: object, environment: Mapping[str, str] = os.environ, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -c <code> <arguments>` to its end, whatever that is."""
    with start(code, *arguments, environment=environment, stderr=subprocess.PIPE) as program:
        said, errors = program.communicate(timeout=timeout)
        status = program.wait()
    return subprocess.CompletedProcess(["-c", code, *arguments], status, said, errors)


def module(name: str) -> str:
    """The code that does what `python -m <name>` does."""
    return f"import runpy; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"


def stages_of(pid: int) -> list[psutil.Process]:
    """The stages that run for a process: interpreters that it has started, forks of a server whose titles name it."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = each.cmdline()
            is_fork = re.fullmatch(rf"alphaops run \S+ for {pid}", " ".join(words).strip())
            if is_fork or (words[1:4] == ["-m", "mlops_tasks", "run"] and each.ppid() == pid):
                found.append(each)
    return found


def _main(words: Sequence[str]) -> int:
    """In a child of the server: a program, or what the command line is asked for."""
    if words[0] != "-c":
        return _command_line(words)
    sys.argv = ["-c", *words[2:]]
    exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    return 0


_command_line = cli.main

if __name__ == "__main__":
    import pytest  # noqa: F401  for programs that use parts of tests

    from mlops_tasks import stage_server

    cli.main = _main
    stage_server.main()
