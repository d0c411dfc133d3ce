"""A user's own class learns where it can read nothing but what it is given, and nothing of the store."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from mlops_tasks.errors import IsolationError, TrainingError
from mlops_tasks.process import environment_of
from mlops_tasks.training.sandbox import SandboxError, close_off_thread

T = TypeVar("T")

_VARIABLES = ("HOME", "TMPDIR", "MLOPS_HOME")


def in_closed_thread(work: Callable[[], T], scratch: Path, writable: Sequence[Path], hidden: Path) -> T:
    """Do work in a thread that reads the libraries and the folders `writable` only; its result, or what it raised.

    Parameters
    ----------
    scratch
        A new folder for what libraries keep in a home folder or among temporary files.
    hidden
        The home folder of the project; `writable` may lie in it.

    Raises
    ------
    IsolationError
        This system cannot close a thread off.
    TrainingError
        The work has tried to reach something else.
    """
    for folder in (scratch, *writable):
        folder.mkdir(parents=True, exist_ok=True)

    def closed() -> T:
        try:
            close_off_thread([scratch, *writable], hidden)
        except SandboxError as error:
            raise IsolationError(
                f"an own class cannot be closed off on this system, so it is not run: {error}"
            ) from None
        try:
            return work()
        except PermissionError as error:
            raise TrainingError(
                f"an own class may read the libraries and what it is given, and nothing else: {error}; take that out "
                "of its code"
            ) from error

    with _elsewhere(scratch), ThreadPoolExecutor(1, thread_name_prefix="own_class") as pool:
        return pool.submit(closed).result()


@contextmanager
def _elsewhere(scratch: Path) -> Iterator[None]:
    """Let the process's home and temporary files be in `scratch`."""
    folder = tempfile.tempdir
    with environment_of(dict.fromkeys(_VARIABLES, str(scratch))):
        tempfile.tempdir = str(scratch)
        try:
            yield
        finally:
            tempfile.tempdir = folder
