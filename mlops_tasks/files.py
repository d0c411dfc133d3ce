"""Files that are never seen half-written: written beside and renamed, hashed by content, locked by folder."""

import ctypes
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from mlops_tasks.errors import BusyFolderError, DamagedJsonError, StoreError, excerpt

_PLAIN_NAME = re.compile(r"\w[\w. -]{0,199}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SQLITE_FULL = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_TRUNCATE", "SQLITE_IOERR_SHMSIZE")
_LOOK_S = 0.05
"""Between two looks at a lock that is not waited for without end."""
_SYNCED_ONE_BY_ONE = 64
"""Files that are brought to the disk each by itself: one step for all of them also waits for what others write."""


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, durably."""
    with full_disk_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
            sync(path.parent)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_json(path: Path, content: Any) -> None:
    """Replace `path` by `content` as JSON with sorted keys; NaN is refused (use None)."""
    write_text(path, json.dumps(content, sort_keys=True, indent=1, allow_nan=False) + "\n")


def finite_or_none(value: float | None) -> float | None:
    """A number as JSON can carry it: None for NaN and infinities."""
    return float(value) if value is not None and math.isfinite(value) else None


def read_json(path: Path) -> Any:
    """The JSON content of `path`.

    Raises
    ------
    DamagedJsonError
        It has none.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise DamagedJsonError(f"{path} cannot be read as JSON: it is damaged, or was changed by hand") from error


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield a hidden path beside `target` that becomes `target`, durably, when the block ends without an error."""
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    with full_disk_named(target):
        try:
            yield beside
            sync(beside)
            beside.replace(target)
            sync(target.parent)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` that becomes `target`, durably, when the block ends without an error.

    A folder that is there already stays: targets are named by their content, so both are the same.
    What an interrupted writer left beside it is removed by the next one.
    """
    with full_disk_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        for stale in target.parent.glob(f".{target.name}.*"):
            if not _is_in_use(stale):
                shutil.rmtree(stale, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.{os.getpid()}."))
        try:
            yield folder
            try:
                move_folder(folder, target)
            except OSError:
                if not target.is_dir():
                    raise
                shutil.rmtree(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def move_folder(folder: Path, target: Path) -> None:
    """Give a finished folder its name once all that lies in it is on the disk: no power failure leaves half of it."""
    _sync_tree(folder)
    folder.rename(target)
    sync(target.parent)


def retire_folder(folder: Path) -> None:
    """Remove a folder, if there is one, in one step: nobody finds half of it."""
    if folder.is_dir():
        away = tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.{os.getpid()}.")
        shutil.rmtree(folder.rename(away))


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    """The same for all that lies below a folder; thousands of files in one step, where the system has one."""
    paths = list(islice(chain([folder], folder.rglob("*")), _SYNCED_ONE_BY_ONE + 1))
    whole = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if len(paths) > _SYNCED_ONE_BY_ONE else None
    if whole is None:
        for path in chain([folder], folder.rglob("*")):
            sync(path)
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if whole(handle) != 0:
            raise OSError(ctypes.get_errno() or errno.EIO, f"{folder}: could not be written to the disk")
    finally:
        os.close(handle)


def _is_in_use(folder: Path) -> bool:
    """Whether the process that made this temporary folder still runs."""
    owner = folder.name.split(".")[-2]
    return owner.isdigit() and Path("/proc", owner).exists()


@contextmanager
def folder_lock(folder: Path, wait_s: float | None = None) -> Iterator[None]:
    """Hold an exclusive advisory lock on `folder`; the system frees it when the process ends, however it ends.

    Raises
    ------
    BusyFolderError
        Another process holds it for longer than `wait_s` seconds; None: it is waited for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        if wait_s is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            _try_lock(file, folder, time.monotonic() + wait_s)
        yield


def _try_lock(file: IO[str], folder: Path, until: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise BusyFolderError(f"{folder} is in use, by a sync perhaps; try again in a minute") from None
            time.sleep(_LOOK_S)
        else:
            return


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Name the disk that takes no more, whoever met it: this library, parquet, DVC or a database.

    Raises
    ------
    StoreError
        The disk is full, or a quota or file size limit is reached: says where, how much is free and what to do.
    """
    try:
        yield
    except Exception as error:
        place = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(place).free
        if isinstance(error, StoreError) or not _is_full(error, free):
            raise
        raise StoreError(
            f"{path}: no room to write it ({error}; {free:,} bytes are free there without it): make room "
            "(all of data/qlib may go, it is derived) and run this again; what was in use still is"
        ) from error


def _is_full(error: BaseException | None, free: int) -> bool:
    """Whether a full disk is behind an error, or behind what it was raised from. SQLite has two names for it."""
    words = ("disk is full", "disk I/O error") if free < 1 << 20 else ("disk is full",)
    while error is not None:
        known = getattr(error, "errno", None) in _FULL or getattr(error, "sqlite_errorname", None) in _SQLITE_FULL
        if known or any(word in str(error) for word in words):
            return True
        error = error.__cause__ or error.__context__
    return False


def plain_name(text: str, what: str) -> str:
    """An identifier that is about to name a file or folder of a store.

    Raises
    ------
    StoreError
        It has a separator, a leading dot or another character that no identifier has: it could lead out of the store.
    """
    if not isinstance(text, str) or not _PLAIN_NAME.fullmatch(text):
        raise StoreError(f"{excerpt(str(text))} is no {what}: letters, digits, `_`, `-`, dots and blanks make one")
    return text


def digest_of(content: Any, length: int = 16) -> str:
    """Short SHA-256 of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:length]


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return digest_of_open_file(file)


def digest_of_open_file(file: BufferedReader) -> str:
    """SHA-256 of what is left to read of a file, hex."""
    return hashlib.file_digest(file, "sha256").hexdigest()
