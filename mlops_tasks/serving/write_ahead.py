"""A write-ahead log of one process: numbered records in files whose disk space is reserved before it is needed.

`append` puts a record into the system's page cache before it returns, so that it survives the process, however that
ends. `sync` flushes to disk what was appended before it; a power failure can lose only what came after.

`<root>/<writer>/<number>.wal` contains consecutive records, then zeros. A record is its magic, the length of its
payload, its number in the log (from 1) and a CRC-32 of number and payload, then the payload. A record whose write was
cut short, at the end of a file, has a wrong checksum. `<root>/<writer>/.lock` is locked while the process lives; a
process that finds it free takes over the log.

On a full disk a file whose records are no longer needed is used again. Where there is none, records are kept in memory,
up to a limit; they do not survive the process.
"""

import fcntl
import logging
import os
import shutil
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4
from zlib import crc32

from mlops_tasks.errors import DamagedFileError
from mlops_tasks.files import folder_lock, sync

log = logging.getLogger(__name__)

SEGMENT_BYTES = 4 << 20
KEPT_OPEN_S = 86_400.0
"""After this time a file is closed and a new one begun."""
RETRY_S = 1.0
"""How long `appending` does not retry after a new file could not be created; `prepare` does."""
BAD = ".bad"
"""Suffix of the folder of a log that was set aside."""
_MAGIC = 0x314C5741
_HEAD = struct.Struct("<IIQI")
_NUMBER = struct.Struct("<Q")
_LOCK = ".lock"


@dataclass(frozen=True)
class Record:
    """A payload, and its number in the writer's log."""

    sequence: int
    payload: bytes
    end: int
    """Offset of the next record in its file."""


class LogFullError(OSError):
    """The log may use no more disk space, or there is none left."""


@dataclass
class Segment:
    """A file of a log, or a piece of memory that stands in for one."""

    path: Path | None
    """None: it is in memory."""
    handle: int
    size: int
    """Space that it uses."""
    end: int = 0
    """Where the next record goes."""
    taken: int = 0
    """Offset up to which its records have been transferred and are no longer needed."""
    synced: int = 0
    failed: bool = False
    """Whether the disk failed to store its content; nothing more is written to it."""


class WriteAheadLog:
    """The log of this process; thread-safe.

    Parameters
    ----------
    root
        Folder of the logs of all processes.
    most_bytes
        Disk space that the logs may use together.
    most_memory
        Memory, in bytes, that this log may use where the disk takes no new file.
    """

    def __init__(self, root: Path, most_bytes: int, most_memory: int = 0) -> None:
        self.root = root
        self.most_bytes = most_bytes
        self.most_memory = most_memory
        self.writer = uuid4().hex[:16]
        self.folder = root / self.writer
        self.sequence = 0
        """Number of the last record, or a later number that was skipped."""
        self.others_bytes = 0
        """Disk space of other processes' logs, as last measured."""
        self._waiting = 0
        """Number of records that are still needed."""
        self._refusal: OSError | None = None
        """Why there was no new file."""
        self._refused = 0.0
        """When that was."""
        self._begun = 0.0
        self._number = 0
        self._named = 0
        """Number up to which the names of its files are on disk."""
        self._segments: list[Segment] = []
        self._spare: Segment | None = None
        self._lock = threading.RLock()
        self._owner: IO[bytes] | None = None

    @property
    def size(self) -> int:
        """Disk space that it uses, in bytes."""
        with self._lock:
            kept = [*self._segments, *([self._spare] if self._spare else [])]
            return sum(each.size for each in kept if each.path is not None)

    @property
    def backlog(self) -> int:
        """Number of records that are still needed."""
        with self._lock:
            return self._waiting

    @property
    def unsynced(self) -> bool:
        """Whether it contains records that are still needed but that the disk failed to store."""
        with self._lock:
            return any(each.failed and each.taken < each.end for each in self._segments)

    @property
    def in_memory(self) -> bool:
        """Whether records that are still needed are in memory alone."""
        with self._lock:
            return any(each.path is None and each.taken < each.end for each in self._segments)

    @contextmanager
    def appending(self, size: int) -> Iterator[int]:
        """Append exclusively while the block runs; payloads of up to `size` bytes go into one file.

        Yields that file's number.

        Raises
        ------
        LogFullError
            There is no room.
        """
        with self._lock:
            whole = _HEAD.size + size
            current = self._segments[-1] if self._segments else None
            if current is None or current.end + whole > current.size or self._is_to_be_left(current):
                self._begin(whole)
            yield self._number

    def append(self, payload: bytes) -> int:
        """Add a record within `appending`, and return its number.

        Raises
        ------
        OSError
            The system does not accept it; the log is unchanged.
        """
        segment, number = self._segments[-1], self.sequence + 1
        checked = crc32(payload, crc32(_NUMBER.pack(number)))
        record = _HEAD.pack(_MAGIC, len(payload), number, checked) + payload
        if os.pwrite(segment.handle, record, segment.end) != len(record):
            raise LogFullError(f"{segment.path}: the disk stored only a part of a record")
        segment.end += len(record)
        self.sequence = number
        self._waiting += 1
        return number

    def skip(self) -> None:
        """Skip a number, so that a record that could not be appended is seen to be missing."""
        with self._lock:
            self.sequence += 1

    def _is_to_be_left(self, segment: Segment) -> bool:
        is_old = segment.end > 0 and time.monotonic() - self._begun > KEPT_OPEN_S
        return segment.failed or is_old or (segment.path is None and self._spare is not None)

    def _begin(self, least: int) -> None:
        try:
            made = self._next_file(least)
        except OSError as error:
            made = self._memory(least, error)
        self._number += 1
        self._segments.append(made)
        self._begun = time.monotonic()

    def _next_file(self, least: int) -> Segment:
        spare, self._spare = self._spare, None
        if spare is not None and spare.size < least:
            _remove(spare)
            spare = None
        if spare is None and self._refusal is not None and time.monotonic() < self._refused + RETRY_S:
            raise LogFullError(str(self._refusal))
        made = spare or self._make(max(least, SEGMENT_BYTES))
        assert made.path is not None
        made.path = made.path.rename(self.folder / f"{self._number + 1:08d}.wal")
        return made

    def _memory(self, least: int, refusal: OSError) -> Segment:
        """Memory in place of a file that the disk refused; raises this refusal where there may be no more of it."""
        size = max(least, SEGMENT_BYTES)
        used = sum(each.size for each in self._segments if each.path is None)
        if used + size > self.most_memory:
            raise refusal
        handle = os.memfd_create("write-ahead log")
        os.ftruncate(handle, size)
        return Segment(None, handle, size)

    def _make(self, size: int) -> Segment:
        """An empty file with its disk space reserved."""
        try:
            made = self._reserve(size)
        except OSError as error:
            self._refusal, self._refused = error, time.monotonic()
            raise
        self._refusal = None
        return made

    def _reserve(self, size: int) -> Segment:
        if self.size + self.others_bytes + size > self.most_bytes:
            raise LogFullError(f"{self.root}: {self.most_bytes} bytes (predictions.max_disk_mb) are used")
        with self._lock:
            if self._owner is None:
                self._owner = _own(self.root, self.folder)
        path = self.folder / f".spare.{uuid4().hex[:8]}"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError:
            os.close(handle)
            path.unlink()
            raise
        return Segment(path, handle, size)

    def prepare(self) -> None:
        """Reserve the space of the next file before it is needed: a disk that fills up later takes nothing from it.

        Raises
        ------
        OSError
            There is no space.
        """
        if self._spare is None:
            self._keep(self._make(SEGMENT_BYTES))

    def _keep(self, made: Segment) -> None:
        """For the next file, unless there is one already."""
        with self._lock:
            if self._spare is None:
                self._spare = made
                return
        _remove(made)

    def sync(self) -> None:
        """Flush appended records to disk.

        Raises
        ------
        OSError
            The disk fails; later records go into a new file.
        """
        with self._lock:
            number, has_files = self._number, any(each.path is not None for each in self._segments)
        if has_files and self._named < number:
            for folder in (self.folder, self.root):
                sync(folder)
            self._named = number
        with self._lock:
            owed = [(each, os.dup(each.handle), each.end) for each in self._segments if each.synced < each.end]
        failure: OSError | None = None
        for segment, handle, end in owed:
            try:
                os.fdatasync(handle)
            except OSError as error:
                # The system drops what it could not write, and would report a second attempt as a success.
                segment.failed, failure = True, error
            finally:
                os.close(handle)
            segment.synced = end
        if failure is not None:
            raise failure

    def waiting(self, most: int) -> list[Record]:
        """The oldest records of one file that are still needed, up to a number.

        Raises
        ------
        DamagedFileError
            Another process has written to the file.
        """
        with self._lock:
            segment = next((each for each in self._segments if each.taken < each.end), None)
            if segment is None:
                return []
            handle, first, end = os.dup(segment.handle), segment.taken, segment.end
        try:
            found = _first(records(handle, first, end), most)
        finally:
            os.close(handle)
        if not found:
            raise DamagedFileError(f"{segment.path}: no record begins at byte {first}; what follows it is not read")
        return found

    def take(self, batch: Sequence[Record]) -> None:
        """Release these records, which `waiting` returned, and files without needed records."""
        with self._lock:
            segment = next(each for each in self._segments if each.taken < each.end)
            segment.taken = batch[-1].end
            self._waiting -= len(batch)
            needless = []
            while len(self._segments) > 1 and self._segments[0].taken == self._segments[0].end:
                needless.append(self._segments.pop(0))
        for each in needless:
            self._release(each)

    def _release(self, segment: Segment) -> None:
        """Remove a file, or use it as the next one where the disk has no space for another."""
        if segment.path is not None and self._spare is None:
            try:
                self._keep(self._make(SEGMENT_BYTES))
            except OSError:
                if (blank := self._blanked(segment)) is not None:
                    self._keep(blank)
                    return
        _remove(segment)

    def _blanked(self, segment: Segment) -> Segment | None:
        """The same file without its records; None: the disk does not take that."""
        if segment.path is None or segment.failed:
            return None
        try:
            segment.path = segment.path.rename(self.folder / f".spare.{uuid4().hex[:8]}")
            if os.pwrite(segment.handle, bytes(segment.end), 0) != segment.end:
                return None
            os.fdatasync(segment.handle)
        except OSError:
            return None
        return Segment(segment.path, segment.handle, segment.size)

    def close(self) -> None:
        """End it; a log without needed records is removed."""
        with suppress(OSError):
            self.sync()
        with self._lock:
            empty = not self.backlog
            for segment in [*self._segments, *([self._spare] if self._spare else [])]:
                os.close(segment.handle)
            self._segments, self._spare = [], None
            if self._owner is not None:
                if empty:
                    shutil.rmtree(self.folder, ignore_errors=True)
                self._owner.close()
                self._owner = None


class LeftLog:
    """The log of an ended process."""

    def __init__(self, folder: Path) -> None:
        self.writer = folder.name
        self.folder = folder
        self._files = sorted(folder.glob("*.wal"))

    def batches(self, most: int) -> Iterator[list[Record]]:
        """Its records in order; each batch comes from one file."""
        for path in self._files:
            handle = os.open(path, os.O_RDWR)
            try:
                first, size = 0, os.fstat(handle).st_size
                while batch := _first(records(handle, first, size), most):
                    yield batch
                    first = batch[-1].end
            finally:
                os.close(handle)

    def shrink(self) -> int:
        """Release unused disk space of its files; returns the number of files with a torn end."""
        torn = 0
        for spare in self.folder.glob(".spare.*"):
            spare.unlink()
        for path in self._files:
            with path.open("r+b") as file:
                end = max((each.end for each in records(file.fileno(), 0, path.stat().st_size)), default=0)
                file.seek(end)
                if any(file.read()):
                    torn += 1
                    log.warning(
                        "%s: no record follows byte %d: an answer that was never sent, or answers lost in a power "
                        "failure",
                        path,
                        end,
                    )
                file.truncate(end)
        return torn

    def set_aside(self) -> Path:
        """Keep it for inspection, under another name, so that no process takes it over."""
        return self.folder.rename(self.folder.with_suffix(BAD))

    def remove(self) -> None:
        """Disk space that it uses."""
        shutil.rmtree(self.folder)


@contextmanager
def left_logs(root: Path) -> Iterator[list[LeftLog]]:
    """The logs of ended processes; no other process takes them while the block runs."""
    held: list[tuple[LeftLog, IO[bytes]]] = []
    try:
        if root.is_dir():
            with folder_lock(root):
                folders = sorted(folder for folder in root.iterdir() if folder.suffix != BAD)
                held = [(LeftLog(folder), lock) for folder in folders if (lock := _locked(folder))]
        yield [log for log, _ in held]
    finally:
        for _, lock in held:
            lock.close()


def bytes_beside(log: WriteAheadLog) -> int:
    """Disk space used by the logs of other processes."""
    total = 0
    for path in log.root.glob("*/*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512 if path.parent != log.folder else 0
    return total


def _own(root: Path, folder: Path) -> IO[bytes]:
    with folder_lock(root):  # no process finds the folder before it is locked
        folder.mkdir(parents=True, exist_ok=True)  # it may exist from an attempt that got no lock
        lock = _locked(folder, create=True)
    if lock is None:
        raise LogFullError(f"{folder}: another process holds it")
    return lock


def _locked(folder: Path, *, create: bool = False) -> IO[bytes] | None:
    """The lock of a log, held; None if its process lives or there is no log."""
    path = folder / _LOCK
    if not folder.is_dir() or not (create or path.is_file()):
        return None
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def records(handle: int, first: int, end: int) -> Iterator[Record]:
    """Records of an open file between two offsets; nothing after an invalid record is read."""
    at = first
    while at + _HEAD.size <= end:
        magic, length, number, checked = _HEAD.unpack(os.pread(handle, _HEAD.size, at))
        if magic != _MAGIC or at + _HEAD.size + length > end:
            return
        payload = os.pread(handle, length, at + _HEAD.size)
        if crc32(payload, crc32(_NUMBER.pack(number))) != checked:
            return
        at += _HEAD.size + length
        yield Record(number, payload, at)


def _first(found: Iterator[Record], most: int) -> list[Record]:
    batch = []
    for record in found:
        batch.append(record)
        if len(batch) == most:
            break
    return batch


def _remove(segment: Segment) -> None:
    os.close(segment.handle)
    if segment.path is not None:
        segment.path.unlink(missing_ok=True)
