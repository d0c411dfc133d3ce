"""The stage server: an interpreter that has imported everything, and forks a child for each stage.

`python -m mlops_tasks.stage_server` is a service of the stack; `process.run_stage` asks it by the socket in the home's
folder `run`. It never reads a request: the child does, which alone learns the stage's arguments and secrets. It runs no
thread, as a fork takes none along, and keeps nothing open but its socket. The child is what a fresh interpreter would
be: it gets its whole environment, its folder, a session of its own; a request whose environment a library would have
read while it was imported, and that differs there, is refused, and its caller starts a fresh interpreter.

It imports everything anew, by executing itself, as soon as the code or the environment's packages change; what runs
goes on and is reported when it ends.
"""

import atexit
import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import struct
import sys
import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from setproctitle import getproctitle, setproctitle

from mlops_tasks.config import PROJECT, load_settings
from mlops_tasks.errors import ConfigError, StackError
from mlops_tasks.forking import import_before_forks
from mlops_tasks.lean_imports import import_late
from mlops_tasks.machine.resources import mark_inherited
from mlops_tasks.private import be_private, private_folder
from mlops_tasks.process import STAGES
from mlops_tasks.stage_process import BEGINS, HEADER, import_time, short_path

PRELOADED = (
    *("pandas", "pyarrow.parquet", "pyarrow.dataset", "scipy.stats", "scipy.optimize", "numba", "requests"),
    *("sqlalchemy", "alembic.command", "exchange_calendars", "great_expectations", "matplotlib.figure"),
    *("lightgbm", "xgboost", "sklearn.linear_model", "torch", "optuna", "mlflow", "mlflow.pyfunc"),
    *("qlib", "qlib.data.dataset.handler", "qlib.workflow", "qlib.contrib.evaluate", "mlops_tasks.cli"),
    *("mlops_tasks.modeling.metrics", "mlops_tasks.modeling.label_processors"),
    *("mlops_tasks.evaluation.qlib_market", "mlops_tasks.plots.evaluation", "matplotlib.style"),
    *("mlops_tasks.features.kernels", "mlops_tasks.features.indicators.kernels"),
    "mlops_tasks.data.validation.measure_kernels",
)
"""What stages import while they work, beside the modules of their functions."""
_BACKLOG = 64
_REQUEST_S = 60.0
_PEER = struct.Struct("3i")
"""Process, user and group of who has connected."""
_STATE = "MLOPS_STAGE_SERVER_STATE"
"""Carries the open connections over a renewal."""


def main() -> NoReturn:
    """Serve until ended."""
    be_private()
    getproctitle()  # it finds the place of the title by the environment as it was
    state = json.loads(os.environ.pop(_STATE, "null"))
    server = StageServer.open() if state is None else StageServer.resumed(state)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _say(f"serves {server.path}")
    server.serve()


@dataclass
class Child:
    """A stage that was forked."""

    pid: int
    connection: socket.socket | None
    """To its caller; None once that is gone."""
    handle: int
    """Of the process; becomes readable when it ends."""
    ended: bool = False


class StageServer:
    """Forks a child for whoever connects, and tells each caller how its child ended.

    A child's number stays taken until its caller has closed the connection, so that no other process is ever killed in
    its place.
    """

    def __init__(self, path: Path, listener: socket.socket) -> None:
        self.path = path
        self._listener = listener
        self._stamp = code_stamp()
        self._environment = dict(os.environ)
        self._set_by_imports: dict[str, str] = {}
        """Variables that modules set when they are imported, as MLflow's limits of time."""
        self._children: dict[int, Child] = {}
        """By the file descriptors of their handles, and of their connections."""
        self._refusal = ""
        """Why nothing may be forked; empty where it may."""
        self._poll = select.epoll()
        self._poll.register(listener, select.EPOLLIN)

    @classmethod
    def open(cls) -> "StageServer":
        """A server at the home's socket."""
        path = load_settings().stage_socket
        private_folder(path.parent)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        with short_path(path) as address:
            listener.bind(address)
        listener.listen(_BACKLOG)
        return cls(path, listener)

    @classmethod
    def resumed(cls, state: dict[str, Any]) -> "StageServer":
        """The server that another one became by `_renew`."""
        made = cls(Path(state["path"]), socket.socket(fileno=state["listener"]))
        for pid, connection in state["children"]:
            made._watch(pid, None if connection is None else socket.socket(fileno=connection))
        return made

    def serve(self) -> NoReturn:
        """Import everything, then answer who connects and report what ends."""
        try:
            preload()
        except StackError as error:
            self._refusal = str(error)
            _say(self._refusal)
        self._set_by_imports = {
            name: value for name, value in os.environ.items() if self._environment.get(name) != value
        }
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._listener.fileno():
                    self._accept()
                elif (child := self._children.get(descriptor)) is not None:
                    self._ended(child) if descriptor == child.handle else self._left(child)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        changed = code_stamp() != self._stamp
        if _has_left(connection) or _caller(connection) == 0 or changed or self._refusal:
            with contextlib.suppress(OSError):
                connection.sendall(f"{'the code has changed' if changed else self._refusal}\n".encode())
            connection.close()
            if changed:
                self._renew()
            return
        pid = os.fork()
        if pid == 0:
            self._become(connection)
        self._watch(pid, connection)

    def _renew(self) -> NoReturn:
        """Become a server of the code as it is now; the callers of what runs keep their connections."""
        kept = []
        for child in self._known():
            if child.connection is not None:
                child.connection.set_inheritable(True)
            kept.append((child.pid, None if child.connection is None else child.connection.fileno()))
        self._listener.set_inheritable(True)
        state = {"path": str(self.path), "listener": self._listener.fileno(), "children": kept}
        _say("the code has changed: everything is imported anew")
        environment = {**self._environment, _STATE: json.dumps(state)}
        os.execve(sys.executable, sys.orig_argv, environment)  # noqa: S606  its own command

    def _watch(self, pid: int, connection: socket.socket | None) -> None:
        """Look for the child's end and, by the connection's, for its caller's; the request is for the child to read."""
        child = Child(pid, connection, os.pidfd_open(pid))
        self._children[child.handle] = child
        self._poll.register(child.handle, select.EPOLLIN)
        if connection is not None:
            self._children[connection.fileno()] = child
            self._poll.register(connection, select.EPOLLRDHUP)

    def _ended(self, child: Child) -> None:
        self._poll.unregister(child.handle)
        child.ended = True
        if child.connection is None:
            self._forget(child)
            return
        end = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert end is not None
        status = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
        with contextlib.suppress(OSError):
            child.connection.sendall(f"{status}\n".encode())

    def _left(self, child: Child) -> None:
        assert child.connection is not None
        del self._children[child.connection.fileno()]
        self._poll.unregister(child.connection)
        child.connection.close()
        child.connection = None
        if child.ended:
            self._forget(child)

    def _forget(self, child: Child) -> None:
        os.waitpid(child.pid, 0)
        del self._children[child.handle]
        os.close(child.handle)

    def _become(self, connection: socket.socket) -> NoReturn:
        """In the child: be the stage's process, from its request to its end."""
        status = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._let_go()
            status = self._run(connection)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                atexit._run_exitfuncs()
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _let_go(self) -> None:
        """Close what is the server's."""
        self._listener.close()
        self._poll.close()
        for child in self._known():
            os.close(child.handle)
            if child.connection is not None:
                child.connection.close()

    def _known(self) -> list[Child]:
        return [child for descriptor, child in self._children.items() if descriptor == child.handle]

    def _run(self, connection: socket.socket) -> int:
        words, environment, folder = _request(connection)
        asked = dict(import_time(environment).items() - self._set_by_imports.items())
        if unlike := sorted(dict(asked.items() ^ import_time(self._environment).items())):
            connection.sendall(f"the stage server has another {', '.join(unlike)}\n".encode())
            return 0
        os.environ.clear()
        os.environ.update({**self._set_by_imports, **environment})
        os.chdir(folder)
        sys.path[0] = folder  # as of `python -m`
        sys.argv = ["mlops_tasks", *words]
        setproctitle(f"alphaops {' '.join(words[:2])} for {_caller(connection)}")
        connection.sendall(f"{BEGINS}{os.getpid()} {mark_inherited():.1f}\n".encode())
        connection.close()
        from mlops_tasks import cli

        return cli.main(words)


def preload() -> None:
    """Import what stages import, load the compiled kernels, and read the zoo. Errors as `import_before_forks`."""
    from mlops_tasks.modeling.model_zoo.zoo import model_zoo

    with contextlib.suppress(ConfigError):  # the stages that ask for it will say so
        model_zoo()
    import_late("cvxpy")  # of a strategy that is not traded
    functions = (stage.function.partition(":")[0] for stage in STAGES.values())
    import_before_forks(dict.fromkeys((*functions, *PRELOADED)))


def code_stamp() -> str:
    """Changes with the code, with the configuration that comes with it, and with the installed packages."""
    digest = hashlib.blake2b(str(Path(sysconfig.get_paths()["purelib"]).stat().st_mtime_ns).encode())
    folders = [str(PROJECT / "mlops_tasks"), str(PROJECT / "include")]
    while folders:
        for entry in sorted(os.scandir(folders.pop()), key=lambda entry: entry.name):
            if entry.is_dir():
                folders += [entry.path] if entry.name != "__pycache__" else []
                continue
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat()
                digest.update(f"{entry.path} {status.st_mtime_ns} {status.st_size}\n".encode())
    return digest.hexdigest()


def _request(connection: socket.socket) -> tuple[list[str], dict[str, str], str]:
    """What the caller asks for; its leash and the place of the output become the standard streams."""
    connection.settimeout(_REQUEST_S)
    head, streams, _, _ = socket.recv_fds(connection, HEADER.size, 3)
    if len(head) < HEADER.size or len(streams) != 3:
        raise StackError("no request")
    (length,) = HEADER.unpack(head)
    text = bytearray()
    while len(text) < length:
        if not (more := connection.recv(min(1 << 16, length - len(text)))):
            raise StackError("the caller has gone")
        text += more
    os.setsid()
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    request = json.loads(text)
    return request["words"], request["environment"], request["folder"]


def _has_left(connection: socket.socket) -> bool:
    """Whether who connected has gone already: it only looked whether somebody is here."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


def _caller(connection: socket.socket) -> int:
    """Number of the process that connected; 0 where it is another user's."""
    pid, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(pid) if user == os.geteuid() else 0


def _say(line: str) -> None:
    """To the service's log; whatever logging does is left to the children."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
