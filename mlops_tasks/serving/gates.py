"""How many requests of a kind are under way at once, in all and of one key; one more is told to come again."""

from collections import Counter as Count
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import Counter

from mlops_tasks.errors import MlopsError
from mlops_tasks.serving.keys import Holder

RETRY_AFTER_S = 1


class BusyError(MlopsError, RuntimeError):
    """Too many requests of a kind are under way; ask again in `RETRY_AFTER_S`."""


@dataclass(frozen=True)
class Places:
    """How many there are, and how many of them one key may take."""

    limit: int
    share: float

    def of(self, holder: Holder) -> int:
        """How many this one may take."""
        return self.limit if holder.is_admin else max(1, int(self.limit * self.share))


class Gate:
    """A count of requests under way; used on one event loop only, so it needs no lock."""

    def __init__(self, kind: str, places: Places, refused: Counter) -> None:
        self.kind = kind
        self.places = places
        self._inside: Count[str] = Count()
        """By the holder's name."""
        self._refused = refused.labels(kind)

    @contextmanager
    def passing(self, holder: Holder) -> Iterator[None]:
        """One request of a holder inside while the block runs.

        Raises
        ------
        BusyError
            As many as allowed are inside.
        """
        own = self._inside[holder.name]
        if self._inside.total() >= self.places.limit or own >= self.places.of(holder):
            self._refused.inc()
            raise BusyError(
                f"{self._inside.total()} requests of the kind {self.kind} are under way, {own} of them of this key; "
                "ask again in a moment"
            )
        self._inside[holder.name] += 1
        try:
            yield
        finally:
            self._inside[holder.name] -= 1
