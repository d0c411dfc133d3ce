"""Checkpoints: what a killed training continues from.

    training_checkpoints/<training_key>/<iteration>.<pid>/    checkpoint.json (session's state, digests), files/

A checkpoint is written to another folder and renamed, then earlier ones are removed. One whose bytes do not match its
digests is never used.
"""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlops_tasks.files import digest_of, digest_of_file, read_json, write_json
from mlops_tasks.modeling.session import SessionState

log = logging.getLogger(__name__)

_CONTENT = "checkpoint.json"
_FILES = "files"
_UNFINISHED = ".writing"
_RETRY_S = 0.2


class CheckpointFolder:
    """The newest checkpoint of one training, in a folder of its own. Its user holds `training_lock`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, iteration: int, state: SessionState, write: Callable[[Path], None]) -> None:
        """Let `write` fill a folder, and let it, with the session's own state, replace the previous checkpoint."""
        beside = self.folder / _UNFINISHED
        shutil.rmtree(beside, ignore_errors=True)
        files = beside / _FILES
        files.mkdir(parents=True)
        write(files)
        content = {"iteration": iteration, "state": state, "files": _digests(files)}
        write_json(beside / _CONTENT, {**content, "digest": digest_of(content, length=64)})
        # Another process may have left one of the same iteration, which stays until this one is complete.
        target = self.folder / f"{iteration:08d}.{os.getpid()}"
        shutil.rmtree(target, ignore_errors=True)
        beside.rename(target)
        for older in self._found():
            if older != target:
                shutil.rmtree(older, ignore_errors=True)

    def newest(self) -> tuple[int, SessionState, Path] | None:
        """Iteration, the session's state and the folder of the newest complete checkpoint."""
        for folder in reversed(self._found()):
            content = _verified(folder)
            if content is not None:
                return content["iteration"], content["state"], folder / _FILES
            log.warning("%s: a file is not what its digest says; this checkpoint is not used", folder)
        return None

    def remove(self) -> None:
        """Remove all checkpoints: the training is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*"))


def _digests(files: Path) -> dict[str, str]:
    return {p.relative_to(files).as_posix(): digest_of_file(p) for p in sorted(files.rglob("*")) if p.is_file()}


def _verified(folder: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = read_json(folder / _CONTENT)
        digest = content.pop("digest")
        whole = digest == digest_of(content, length=64) and content["files"] == _digests(folder / _FILES)
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return content if whole else None


@contextmanager
def training_lock(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the exclusive right to one training; the system frees it when the process ends, however it ends.

    While another process holds it, `on_wait` is called every fifth of a second; it may raise to give up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("w") as file:
            if _locked(file.fileno()) and _is_at(path, file.fileno()):
                try:
                    yield
                finally:
                    path.unlink()
                return
        on_wait()
        time.sleep(_RETRY_S)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, handle: int) -> bool:
    """Whether the open file is still the one with that name: the previous holder may have removed it when done."""
    try:
        return os.fstat(handle).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
