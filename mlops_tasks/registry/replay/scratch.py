"""The folder that a replay works in, `<home>/replays/<name>/`. It is gone when the replay ends, however it ends.

    request.json   what is replayed (`ReplayRequest`)
    artefact/      the registered artefact, fetched from MLflow
    home/          a home folder with a link to the vintage, and the features as they are rebuilt
    fit/           the model as it is trained again, and what its class writes meanwhile
    checkpoints/   where the training continues after it has given way to others

What a killed replay leaves is removed by the next one: its lock is free.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, vintage_path
from mlops_tasks.files import folder_lock, full_disk_named

_PREFIX = "replay."


@dataclass(frozen=True)
class Scratch:
    """The paths in a replay's folder."""

    path: Path

    @property
    def request(self) -> Path:
        """request.json."""
        return self.path / "request.json"

    @property
    def artefact(self) -> Path:
        """The registered artefact."""
        return self.path / "artefact"

    @property
    def fit(self) -> Path:
        """The training's workplace."""
        return self.path / "fit"

    @property
    def checkpoints(self) -> Path:
        """The training's checkpoints."""
        return self.path / "checkpoints"

    @property
    def settings(self) -> Settings:
        """Settings of the home folder in it, which has neither keys nor users' own files."""
        return Settings(home=self.path / "home")

    def link(self, vintage: Vintage) -> None:
        """Let the home in it have a vintage, without a copy."""
        link = vintage_path(self.settings, vintage.data_version)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(vintage.path)


@contextmanager
def scratch_folder(settings: Settings) -> Iterator[Scratch]:
    """A new folder, which this process holds a lock on; those that nobody holds any more are removed first."""
    root = settings.replays_dir
    with full_disk_named(root):
        with folder_lock(root):
            for left in root.glob(f"{_PREFIX}*"):
                _remove_unless_held(left)
            folder = Path(tempfile.mkdtemp(dir=root, prefix=_PREFIX))
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield Scratch(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _remove_unless_held(folder: Path) -> None:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
