"""Memory that the workers of one scoring service share: what each tells of itself, and how often each client has asked.

The supervisor makes it before it forks, and whoever replaces a worker finds what the one before left. A lock of the
system guards it, which a process that is killed lets go of.
"""

import fcntl
import math
import mmap
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

Bucket = tuple[float, float]
"""Permits that a client has left, and when they were counted, on the system's monotonic clock."""

CARD_BYTES = 16 * 2**10
"""What a worker may tell of itself."""
CLIENTS = 4096
_PROBED = 16
_CALL, _BEAT, _COUNT, _LENGTH = struct.Struct("<Q"), struct.Struct("<d"), struct.Struct("<Q"), struct.Struct("<I")
_CLIENT = struct.Struct("<16sdd")

Result = TypeVar("Result")


class Board:
    """Shared by the process that makes it and all that it forks.

    Parameters
    ----------
    workers
        How many there are, numbered from 0.
    folder
        Where the memory's file lies; it has no name.
    """

    def __init__(self, workers: int, folder: Path) -> None:
        self.workers = workers
        self._counts = _CALL.size + _BEAT.size * workers
        self._clients = self._counts + _COUNT.size * workers
        self._cards = self._clients + _CLIENT.size * CLIENTS
        size = self._cards + CARD_BYTES * workers
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - as long as the service runs
        self._file.truncate(size)
        self._memory = mmap.mmap(self._file.fileno(), size)
        self._threads = threading.Lock()

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._threads:  # the system's lock is the process's, whichever thread has it
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    @property
    def call(self) -> int:
        """How often all workers were called to look at what they serve."""
        return int(_CALL.unpack_from(self._memory, 0)[0])

    def raise_call(self) -> int:
        """Call all workers; returns the number of the call."""
        with self._held():
            number = self.call + 1
            _CALL.pack_into(self._memory, 0, number)
        return number

    def beat(self, worker: int) -> float:
        """When a worker's event loop was seen to turn, on the monotonic clock; 0: it has not begun."""
        return float(_BEAT.unpack_from(self._memory, _CALL.size + _BEAT.size * worker)[0])

    def set_beat(self, worker: int, moment: float) -> None:
        """For the worker itself."""
        _BEAT.pack_into(self._memory, _CALL.size + _BEAT.size * worker, moment)

    def set_connections(self, worker: int, count: int) -> None:
        """Show how many connections a worker has."""
        _COUNT.pack_into(self._memory, self._counts + _COUNT.size * worker, count)

    def fewest_connections(self, worker: int) -> float:
        """Of the others that answer requests; infinite where there are none."""
        others = [each for each in range(self.workers) if each != worker and self.beat(each)]
        counts = (_COUNT.unpack_from(self._memory, self._counts + _COUNT.size * each)[0] for each in others)
        return min(counts, default=math.inf)

    def tell(self, worker: int, card: bytes, answered: int | None = None) -> bool:
        """Show what a worker tells of itself.

        Parameters
        ----------
        answered
            The last call that the worker has followed: where there was another one since, nothing is shown.

        Returns
        -------
        Whether it is shown.
        """
        if len(card) > CARD_BYTES - _LENGTH.size:
            raise ValueError(f"a card of {len(card)} bytes is too large")
        begin = self._cards + CARD_BYTES * worker
        with self._held():
            if answered is not None and answered != self.call:
                return False
            _LENGTH.pack_into(self._memory, begin, 0)  # a worker that is killed in between has no card
            self._memory[begin + _LENGTH.size : begin + _LENGTH.size + len(card)] = card
            _LENGTH.pack_into(self._memory, begin, len(card))
        return True

    def cards(self) -> dict[int, bytes]:
        """What the workers tell that answer requests."""
        found = {}
        with self._held():
            for worker in range(self.workers):
                begin = self._cards + CARD_BYTES * worker
                (length,) = _LENGTH.unpack_from(self._memory, begin)
                if length:
                    found[worker] = self._memory[begin + _LENGTH.size : begin + _LENGTH.size + length]
        return found

    def forget(self, worker: int) -> None:
        """A worker is no more."""
        self.tell(worker, b"")
        self.set_beat(worker, 0.0)

    def exchange(self, client: str, draw: Callable[[Bucket | None], tuple[Bucket, Result]]) -> Result:
        """Replace a client's bucket by what `draw` makes of it, and return what else that gives.

        Of more clients than there is room for the one that has not asked for the longest time is forgotten.
        """
        digest = blake2b(client.encode(), digest_size=16).digest()
        first = int.from_bytes(digest[:4], "little")
        with self._held():
            places = [self._clients + _CLIENT.size * ((first + step) % CLIENTS) for step in range(_PROBED)]
            found = {place: _CLIENT.unpack_from(self._memory, place) for place in places}
            place = next((each for each, (name, *_) in found.items() if name == digest), None)
            bucket = None
            if place is None:
                place = min(found, key=lambda each: found[each][2])
            else:
                _, left, counted = found[place]
                bucket = (left, counted)
            (left, counted), result = draw(bucket)
            _CLIENT.pack_into(self._memory, place, digest, left, counted)
        return result
