"""One stage server for all tests of a run: stages and programs that tests start are forked, and import nothing.

A home that has a server of its own is served by that one. A test that changes what libraries read while they are
imported gets fresh interpreters, as everywhere.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlops_tasks import process
from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.private import private_folder
from mlops_tasks.stage_process import StageProcess
from tests import programs

SOCKET = "TESTS_STAGE_SOCKET"
"""Environment variable with the server's socket, by which the workers of a run find it."""
_END_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")


def start_shared_server() -> None:
    """In the process that starts the workers; the server ends with it, however that ends."""
    if shutil.which(_END_WITH_PARENT[0]) is None:
        return
    home = tempfile.mkdtemp(prefix="alphaops_tests_")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    environment = {**os.environ, "MLOPS_HOME": home, **programs.SERVED}
    with Path(home, "log").open("wb") as log:
        subprocess.Popen(
            [*_END_WITH_PARENT, sys.executable, "-m", programs.__name__],
            cwd=PROJECT,
            env=environment,
            stdout=log,
            stderr=log,
        )
    os.environ[SOCKET] = str(Path(home, "run", "stages.sock"))


def use_shared_server() -> None:
    """In a worker: stages of homes without a stage server are forked by the shared one."""
    shared = programs.server = Path(os.environ.pop(SOCKET))
    start = process.start_process

    def start_process(words: Sequence[str], environment: Mapping[str, str], server: Path | None) -> StageProcess:
        own = server is not None and server.exists()
        return start(words, environment, server if own else shared)

    process.start_process = start_process


def serve(home: Path) -> None:
    """Have the stages of a home forked by the run's server also where another process starts them."""
    if programs.server is not None:
        own = Settings(home=home).stage_socket
        private_folder(own.parent)
        own.symlink_to(programs.server)
