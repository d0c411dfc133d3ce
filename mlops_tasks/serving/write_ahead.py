"""A write-ahead log of one process: numbered records in files whose place on the disk is taken before it is needed.

`append` puts a record into the system's memory of the file before it returns: it outlives the process, however that
ends. `sync` brings to the disk what was appended before it: what a power failure may cost is what came after.

`<root>/<writer>/<number>.wal` holds records one after the other, then zeros. A record is its magic, the length of its
payload, its number in the log (from 1) and a CRC-32 of number and payload, then the payload. What ends a file early, a
write that was cut short, has no right checksum. `<root>/<writer>/.lock` is locked for as long as the process lives;
who finds it free takes the log over.
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
"""After so long a file is closed and a new one begun."""
RETRY_S = 1.0
"""For so long after a new file was not to be had, `appending` does not try again; `prepare` does."""
BAD = ".bad"
"""Suffix of the folder of a log that was set aside."""
_MAGIC = 0x314C5741
_HEAD = struct.Struct("<IIQI")
_NUMBER = struct.Struct("<Q")
_LOCK = ".lock"


@dataclass(frozen=True)
class Record:
    """What was appended, and which number it has in its writer's log."""

    sequence: int
    payload: bytes
    end: int
    """Where the next one begins in its file."""


class LogFullError(OSError):
    """The log may take no more of the disk, or there is none left."""


@dataclass
class Segment:
    """A file of a log."""

    path: Path
    handle: int
    size: int
    """What it takes on the disk."""
    end: int = 0
    """Where the next record goes."""
    taken: int = 0
    """Up to where its records are where they belong, and are needed no more."""
    synced: int = 0
    failed: bool = False
    """Whether the disk has not taken what it held; nothing more goes into it."""


class WriteAheadLog:
    """The log of this process; thread-safe.

    Parameters
    ----------
    root
        Folder of the logs of all processes.
    most_bytes
        What the logs may take of the disk together.
    """

    def __init__(self, root: Path, most_bytes: int) -> None:
        self.root = root
        self.most_bytes = most_bytes
        self.writer = uuid4().hex[:16]
        self.folder = root / self.writer
        self.sequence = 0
        """Number of the last record, or of what was skipped after it."""
        self.others_bytes = 0
        """What other processes' logs take of the disk, as it was seen last."""
        self._waiting = 0
        """How many records are needed still."""
        self._refusal: OSError | None = None
        """Why there was no new file."""
        self._refused = 0.0
        """When that was."""
        self._begun = 0.0
        self._number = 0
        self._named = 0
        """Up to which number the names of its files are on the disk."""
        self._segments: list[Segment] = []
        self._spare: Segment | None = None
        self._lock = threading.RLock()
        self._owner: IO[bytes] | None = None

    @property
    def size(self) -> int:
        """What it takes of the disk, in bytes."""
        with self._lock:
            kept = [*self._segments, *([self._spare] if self._spare else [])]
            return sum(each.size for each in kept)

    @property
    def backlog(self) -> int:
        """How many records are needed still."""
        with self._lock:
            return self._waiting

    @property
    def unsynced(self) -> bool:
        """Whether it holds records that are needed still and that the disk has not taken."""
        with self._lock:
            return any(each.failed and each.taken < each.end for each in self._segments)

    @contextmanager
    def appending(self, size: int) -> Iterator[int]:
        """While the block runs nobody else appends, and payloads up to `size` bytes go into one file.

        Yields that file's number.

        Raises
        ------
        LogFullError
            There is no room.
        """
        with self._lock:
            whole = _HEAD.size + size
            current = self._segments[-1] if self._segments else None
            if current is None or current.failed or current.end + whole > current.size or self._is_old(current):
                self._begin(whole)
            yield self._number

    def append(self, payload: bytes) -> int:
        """Add a record within `appending`, and return its number.

        Raises
        ------
        OSError
            The system does not take it; the log is as it was.
        """
        segment, number = self._segments[-1], self.sequence + 1
        checked = crc32(payload, crc32(_NUMBER.pack(number)))
        record = _HEAD.pack(_MAGIC, len(payload), number, checked) + payload
        if os.pwrite(segment.handle, record, segment.end) != len(record):
            raise LogFullError(f"{segment.path}: the disk took a part of a record")
        segment.end += len(record)
        self.sequence = number
        self._waiting += 1
        return number

    def skip(self) -> None:
        """Give a number away: of a record that could not be appended, and is missed thereby."""
        with self._lock:
            self.sequence += 1

    def _is_old(self, segment: Segment) -> bool:
        return segment.end > 0 and time.monotonic() - self._begun > KEPT_OPEN_S

    def _begin(self, least: int) -> None:
        spare, self._spare = self._spare, None
        if spare is not None and spare.size < least:
            _remove(spare)
            spare = None
        if spare is None and self._refusal is not None and time.monotonic() < self._refused + RETRY_S:
            raise LogFullError(str(self._refusal))
        made = spare or self._make(max(least, SEGMENT_BYTES))
        self._number += 1
        made.path = made.path.rename(self.folder / f"{self._number:08d}.wal")
        self._segments.append(made)
        self._begun = time.monotonic()

    def _make(self, size: int) -> Segment:
        """An empty file that has its place on the disk."""
        try:
            made = self._reserve(size)
        except OSError as error:
            self._refusal, self._refused = error, time.monotonic()
            raise
        self._refusal = None
        return made

    def _reserve(self, size: int) -> Segment:
        if self.size + self.others_bytes + size > self.most_bytes:
            raise LogFullError(f"{self.root}: {self.most_bytes} bytes (predictions.max_disk_mb) are taken")
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
        """Take the place of the next file before it is needed.

        Raises
        ------
        OSError
            There is none.
        """
        with self._lock:
            current = self._segments[-1] if self._segments else None
            needed = self._spare is None and (current is None or current.end > current.size // 2)
        if needed:
            made = self._make(SEGMENT_BYTES)
            with self._lock:
                if self._spare is None:
                    self._spare = made
                    return
            _remove(made)

    def sync(self) -> None:
        """Bring to the disk what was appended.

        Raises
        ------
        OSError
            The disk does not take it; what is appended from now on goes into a new file.
        """
        with self._lock:
            number = self._number
        if self._named < number:
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
                # The system drops what it could not write, and would call a second try a success.
                segment.failed, failure = True, error
            finally:
                os.close(handle)
            segment.synced = end
        if failure is not None:
            raise failure

    def waiting(self, most: int) -> list[Record]:
        """The oldest records that are needed still, of one file, at most so many.

        Raises
        ------
        DamagedFileError
            Somebody else has written into the file.
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
        """These records, which `waiting` gave, are needed no more; files of which none is needed go."""
        with self._lock:
            segment = next(each for each in self._segments if each.taken < each.end)
            segment.taken = batch[-1].end
            self._waiting -= len(batch)
            while len(self._segments) > 1 and self._segments[0].taken == self._segments[0].end:
                _remove(self._segments.pop(0))
                self._refusal = None

    def close(self) -> None:
        """End it; a log of which nothing is needed any more goes."""
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
    """The log of a process that is no more."""

    def __init__(self, folder: Path) -> None:
        self.writer = folder.name
        self.folder = folder
        self._files = sorted(folder.glob("*.wal"))

    def batches(self, most: int) -> Iterator[list[Record]]:
        """Its records in their order; a batch is of one file."""
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
        """Give back what its files took of the disk and do not hold; returns how many had an end that is no record."""
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
                        "%s: what follows byte %d is no record: an answer that was not given any more, or what a power "
                        "failure has cost",
                        path,
                        end,
                    )
                file.truncate(end)
        return torn

    def set_aside(self) -> Path:
        """Keep it for people to look at, under another name, where nobody takes it over."""
        return self.folder.rename(self.folder.with_suffix(BAD))

    def remove(self) -> None:
        """Of the disk."""
        shutil.rmtree(self.folder)


@contextmanager
def left_logs(root: Path) -> Iterator[list[LeftLog]]:
    """The logs of processes that are no more; nobody else takes them while the block runs."""
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
    """What the logs of other processes take of the disk."""
    total = 0
    for path in log.root.glob("*/*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512 if path.parent != log.folder else 0
    return total


def _own(root: Path, folder: Path) -> IO[bytes]:
    with folder_lock(root):  # nobody finds the folder before it is locked
        folder.mkdir(parents=True, exist_ok=True)  # it may be there from a try that got no lock
        lock = _locked(folder, create=True)
    if lock is None:
        raise LogFullError(f"{folder}: another process holds it")
    return lock


def _locked(folder: Path, *, create: bool = False) -> IO[bytes] | None:
    """The lock of a log, held; None where its process lives, or where there is no log."""
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
    """Of an open file, between two places; what follows a wrong one is not read."""
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
    segment.path.unlink(missing_ok=True)
