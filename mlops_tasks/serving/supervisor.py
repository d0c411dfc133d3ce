"""Several workers behind one address: a process that owns it, forks the workers, and replaces those that end.

It answers nobody and reads no request. A worker inherits the listening socket, so what waits there when one dies is
answered by another; all of them end when the supervisor does, however that ends.
"""

import contextlib
import logging
import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.forking import import_before_forks
from mlops_tasks.private import private_folder
from mlops_tasks.serving.app import create_app
from mlops_tasks.serving.board import Board
from mlops_tasks.serving.metrics import count_for_worker, forget_gauges
from mlops_tasks.serving.secret import scoring_token
from mlops_tasks.serving.server import make_server
from mlops_tasks.serving.workers import InStep, Worker

log = logging.getLogger(__name__)

PRELOADED = (
    *("mlflow", "mlflow.store.tracking.rest_store", "mlflow.store.model_registry.rest_store", "requests", "lightgbm"),
    *("mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store"),
    *("sqlalchemy", "sqlalchemy.dialects.sqlite", "alembic.command", "pyarrow.parquet", "pyarrow.dataset"),
    "mlops_tasks.modeling.model_zoo.lightgbm",
)
"""What a worker imports while it finds its first champion, beside the modules of the service."""
BACKLOG = 2048
RETRY_S = 1.0
"""Before a worker that ended without having answered anybody is started again."""
HUNG_S = 60.0
"""A worker whose event loop stands still for so long is killed."""
END_S = 25.0
"""How long workers have to end: for requests under way and the log of predictions, and some to spare."""
_LOOK_S = 0.5


def serve_by_workers(settings: Settings) -> int:
    """Serve until a signal; returns the exit status, 1 where no worker could begin.

    Raises
    ------
    ConfigError, OSError
        There is no token; the address is taken.
    """
    scoring_token(settings)
    stack = settings.stack
    family = socket.AF_INET6 if ":" in stack.host else socket.AF_INET
    listener = socket.create_server((stack.host, stack.scoring_port), family=family, backlog=BACKLOG)
    folder = private_folder(settings.run_dir) / "scoring"
    shutil.rmtree(folder, ignore_errors=True)  # who has the address is the only one
    private_folder(folder)
    import_before_forks(PRELOADED)
    return Supervisor(settings, listener, folder).run()


class Supervisor:
    """Keeps the workers of one service."""

    def __init__(self, settings: Settings, listener: socket.socket, folder: Path) -> None:
        self.settings = settings
        self.board = Board(settings.serving.workers, folder)
        self._listener = listener
        self._folder = folder
        self._pids: dict[int, int] = {}
        """Of the workers that run, by number."""
        self._due = dict.fromkeys(range(self.board.workers), 0.0)
        """When those that do not run are to be started, on the monotonic clock."""
        self._ending = False
        self._has_served = False
        self._status = 0
        self._leash, self._leash_of_workers = os.pipe()
        """Its end tells the workers that this process is no more."""

    def run(self) -> int:
        """Until it is told to end; returns the exit status."""
        with _waking_on_signals(self._end) as awake:
            while not self._ending:
                self._start_those_due()
                select.select([awake], [], [], _LOOK_S)
                _drain(awake)
                self._note_ended()
                self._kill_hung()
            self._end_all()
        return self._status

    def _end(self) -> None:
        self._ending = True

    def _start_those_due(self) -> None:
        for number, moment in list(self._due.items()):
            if time.monotonic() >= moment:
                self._start(number)

    def _start(self, number: int) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            log.error("worker %d cannot be started: %s", number, error)
            self._due[number] = time.monotonic() + RETRY_S
            return
        if pid == 0:
            _become(self._work, number)
        self._pids[number] = pid
        del self._due[number]

    def _work(self, number: int) -> None:
        """In the worker: serve until it is told to end, or the supervisor is no more."""
        os.close(self._leash_of_workers)
        settings = self.settings.model_copy(update={"serving": self.settings.serving.of_one_worker()})
        worker = Worker(number, self.board, self._folder)
        assert worker.counts is not None
        count_for_worker(number, worker.counts)
        app = create_app(settings, worker)
        step: InStep = app.state.step
        step.join(self._pause)
        log.info("worker %d answers requests", number)
        make_server(app, settings, worker, self._leash).run([self._listener])

    def _pause(self) -> None:
        if select.select([self._leash], [], [], min(RETRY_S, self.settings.serving.poll_s))[0]:
            sys.exit(0)

    def _note_ended(self) -> None:
        for number, pid in list(self._pids.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._forget(number, os.waitstatus_to_exitcode(status))

    def _forget(self, number: int, status: int) -> None:
        del self._pids[number]
        served = self.board.beat(number) > 0
        self._has_served |= served
        self.board.forget(number)
        forget_gauges(number, self._folder / "counts")
        if self._ending:
            return
        log.warning("worker %d ended (%d); another one takes its place", number, status)
        self._due[number] = time.monotonic() + (0.0 if served else RETRY_S)
        if not served and not self._has_served and not any(map(self.board.beat, self._pids)):
            log.error("no worker could begin; see above why")
            self._ending, self._status = True, 1

    def _kill_hung(self) -> None:
        for number, pid in self._pids.items():
            beat = self.board.beat(number)
            if 0 < beat < time.monotonic() - HUNG_S:
                log.error("worker %d has done nothing for %.0f s and is killed", number, HUNG_S)
                os.kill(pid, signal.SIGKILL)

    def _end_all(self) -> None:
        self._listener.close()
        for pid in self._pids.values():
            os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + END_S
        while self._pids and time.monotonic() < until:
            self._note_ended()
            time.sleep(0.02)
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        shutil.rmtree(self._folder, ignore_errors=True)


def _become(work: Callable[[int], None], number: int) -> None:
    """In a forked process: be a worker to its end."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(each, signal.SIG_DFL)
        work(number)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        log.exception("worker %d failed", number)
    finally:
        with contextlib.suppress(BaseException):
            logging.shutdown()
        os._exit(status)


@contextlib.contextmanager
def _waking_on_signals(end: Callable[[], None]) -> Iterator[int]:
    """A descriptor that becomes readable when a child ends, or the process is told to, which calls `end`."""
    awake, woken = os.pipe()
    for descriptor in (awake, woken):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: end())
    yield awake


def _drain(awake: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(awake, 1024):
            pass
