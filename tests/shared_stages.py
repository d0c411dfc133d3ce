"""One stage server for all tests of a run: trainings and other stages that tests start are forked, and import nothing.

A home that has a server of its own is served by that one. A test that changes what libraries read while they are
imported gets fresh interpreters, as everywhere.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mlops_tasks.config import PROJECT, Settings

SOCKET = "TESTS_STAGE_SOCKET"
"""Environment variable with the server's socket, by which the workers of a run find it."""
_END_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")


def start_shared_server() -> None:
    """In the process that starts the workers; the server ends with it, however that ends."""
    home = tempfile.mkdtemp(prefix="alphaops_tests_")
    environment = {**os.environ, "MLOPS_HOME": home, "PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0"}
    with Path(home, "log").open("wb") as log:
        subprocess.Popen(
            [*_END_WITH_PARENT, sys.executable, "-m", "mlops_tasks.stage_server"],
            cwd=PROJECT,
            env=environment,
            stdout=log,
            stderr=log,
        )
    os.environ[SOCKET] = str(Path(home, "run", "stages.sock"))


def use_shared_server() -> None:
    """In a worker: homes without a stage server have the shared one."""
    own = Settings.stage_socket.fget
    shared = Path(os.environ.pop(SOCKET))

    def socket_of(settings: Settings) -> Path:
        path: Path = own(settings)
        return path if path.exists() else shared

    Settings.stage_socket = property(socket_of)  # type: ignore[method-assign]
