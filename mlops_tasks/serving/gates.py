"""How many requests of a kind are under way at once; one more is told to come again."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter

from mlops_tasks.errors import MlopsError

RETRY_AFTER_S = 1


class BusyError(MlopsError, RuntimeError):
    """Too many requests of a kind are under way; ask again in `RETRY_AFTER_S`."""


class Gate:
    """A count of requests under way; used on one event loop only, so it needs no lock."""

    def __init__(self, kind: str, limit: int, refused: Counter) -> None:
        self.kind = kind
        self.limit = limit
        self._inside = 0
        self._refused = refused.labels(kind)

    @contextmanager
    def passing(self) -> Iterator[None]:
        """One request inside while the block runs.

        Raises
        ------
        BusyError
            As many as allowed are inside.
        """
        if self._inside >= self.limit:
            self._refused.inc()
            raise BusyError(f"{self.limit} requests of the kind {self.kind} are under way; ask again in a moment")
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
