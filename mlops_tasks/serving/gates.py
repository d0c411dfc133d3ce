"""Limits on the requests of a kind in progress, in total and per key; one more is told to retry."""

from collections import Counter as Count
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import Counter

from mlops_tasks.errors import ErrorKind, MlopsError
from mlops_tasks.serving.keys import Holder

RETRY_AFTER_S = 1


class BusyError(MlopsError, RuntimeError):
    """Too many requests of a kind are in progress; retry in `RETRY_AFTER_S`."""

    kind = ErrorKind.TRANSIENT


@dataclass(frozen=True)
class Places:
    """Number of slots, and the share of them that one key may use."""

    limit: int
    share: float

    def of(self, holder: Holder) -> int:
        """Number of slots that this key may use."""
        return self.limit if holder.is_admin else max(1, int(self.limit * self.share))


class Gate:
    """A count of requests in progress; used only on one event loop, so it needs no lock."""

    def __init__(self, kind: str, places: Places, refused: Counter) -> None:
        self.kind = kind
        self.places = places
        self._inside: Count[str] = Count()
        """Requests in progress, by the holder's name."""
        self._refused = refused.labels(kind)

    @contextmanager
    def passing(self, holder: Holder) -> Iterator[None]:
        """Count one request of a holder while the block runs.

        Raises
        ------
        BusyError
            The allowed number is in progress.
        """
        own = self._inside[holder.name]
        if self._inside.total() >= self.places.limit or own >= self.places.of(holder):
            self._refused.inc()
            raise BusyError(
                f"{self._inside.total()} requests of the kind {self.kind} are in progress, {own} of them of this key; "
                "retry in a moment"
            )
        self._inside[holder.name] += 1
        try:
            yield
        finally:
            self._inside[holder.name] -= 1
