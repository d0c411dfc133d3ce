"""Runs a user's own class where it can reach only what it is given, and nothing of the store.

It learns in a thread that can read only the libraries and its own folders, and scores in a process of its own
(`isolation.py`): in a training, in the trials of a search and in the folds of a cross-validation alike.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mlops_tasks.config import Settings
from mlops_tasks.errors import IsolationError, TrainingError
from mlops_tasks.modeling.identity import is_own
from mlops_tasks.modeling.isolation import IsolatedPredictor, Isolation
from mlops_tasks.modeling.manifest import ArtefactManifest
from mlops_tasks.modeling.model_zoo.family import Predictor, find_family
from mlops_tasks.modeling.sandbox import SandboxError, close_off_thread
from mlops_tasks.modeling.session import Observer
from mlops_tasks.process import environment_of

T = TypeVar("T")

_VARIABLES = ("HOME", "TMPDIR", "MLOPS_HOME")


@dataclass(frozen=True)
class Confinement:
    """How users' own classes are closed off."""

    home: Path
    """The classes see nothing of it but what they are given."""
    memory_mb: float
    """The memory that a process in which one scores may take."""

    @classmethod
    def of(cls, settings: Settings) -> "Confinement":
        """As a home's settings say."""
        return cls(settings.home, settings.models.isolated_memory_mb)

    def learn(self, class_path: str | None, work: Callable[[], T], scratch: Path, writable: Sequence[Path]) -> T:
        """Do the work by which a class learns; a user's own class learns in a closed thread, see `in_closed_thread`."""
        if class_path is None or not is_own(class_path):
            return work()
        return in_closed_thread(work, scratch, writable, self.home)

    def predictor(self, folder: Path, manifest: ArtefactManifest, threads: int) -> Predictor:
        """The predictor of an artefact; a model of a user's own class, or whose files run code, gets its own process.

        Raises
        ------
        IsolationError
            It needs a process of its own, which cannot be closed off.
        """
        if not runs_foreign_code(folder, manifest):
            return find_family(manifest["family"]).load(folder, manifest, threads)
        return IsolatedPredictor(Isolation(folder, manifest, threads, self.memory_mb, self.home))


def runs_foreign_code(folder: Path, manifest: ArtefactManifest) -> bool:
    """Whether a model is of a user's own class, or its files run code when they are loaded."""
    class_path = manifest.get("class_path")
    return (class_path is not None and is_own(class_path)) or find_family(manifest["family"]).runs_code(folder)


@contextmanager
def called_from_outside(observers: Sequence[Observer]) -> Iterator[Sequence[Observer]]:
    """The observers, called in a thread that is not closed off, because they write to databases.

    What they raise passes through to the caller.
    """
    if not observers:
        yield observers
        return
    with ThreadPoolExecutor(1, thread_name_prefix="observers") as outside:
        outside.submit(int).result()  # started now, because a thread has the rights of the thread that starts it

        def passed_on(observer: Observer) -> Observer:
            return lambda done, metrics: outside.submit(observer, done, metrics).result()

        yield [passed_on(observer) for observer in observers]


def in_closed_thread(work: Callable[[], T], scratch: Path, writable: Sequence[Path], hidden: Path) -> T:
    """Do work in a thread that can read only the libraries and the folders `writable`; returns or raises as it does.

    Parameters
    ----------
    scratch
        A new folder for what libraries write to a home folder or as temporary files.
    hidden
        The home folder of the project; `writable` may lie in it.

    Raises
    ------
    IsolationError
        This system cannot close a thread off.
    TrainingError
        The work tried to reach something else.
    """
    for folder in (scratch, *writable):
        folder.mkdir(parents=True, exist_ok=True)

    def closed() -> T:
        try:
            close_off_thread([scratch, *writable], hidden)
        except SandboxError as error:
            raise IsolationError(
                f"your own class cannot be closed off on this system, so it is not run: {error}"
            ) from None
        try:
            return work()
        except PermissionError as error:
            raise TrainingError(
                f"your own class may read only the libraries and what it is given: {error}; remove that from its code"
            ) from error

    with _elsewhere(scratch), ThreadPoolExecutor(1, thread_name_prefix="own_class") as pool:
        return pool.submit(closed).result()


@contextmanager
def _elsewhere(scratch: Path) -> Iterator[None]:
    """Place the process's home folder and temporary files in `scratch`."""
    folder = tempfile.tempdir
    with environment_of(dict.fromkeys(_VARIABLES, str(scratch))):
        tempfile.tempdir = str(scratch)
        try:
            yield
        finally:
            tempfile.tempdir = folder
