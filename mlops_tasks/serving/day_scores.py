"""Scores of days, kept in memory; each is computed once, however many requests ask for it at once.

The newest days have their own cache and thread, so that requests for other dates can neither evict them nor make them
wait.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date

from prometheus_client import Counter

from mlops_tasks.serving.gates import BusyError, Places
from mlops_tasks.serving.keys import NOBODY, Holder
from mlops_tasks.serving.score_table import ScoreTable

NEWEST_KEPT = 8
"""Enough for a model in each slot, on a vintage and the previous one, with some to spare."""


@dataclass(frozen=True)
class DayKey:
    """What scores of a day depend on; neither can change."""

    model_digest: str
    feature_version: str
    date: date


class _Shelf:
    """Futures of scores: the last `kept` that were requested, computed by one thread."""

    def __init__(self, name: str, kept: int) -> None:
        self.kept = kept
        self.found: OrderedDict[DayKey, Future[ScoreTable]] = OrderedDict()
        self.asked_by: dict[DayKey, str] = {}
        """Who requested it first."""
        self.thread = ThreadPoolExecutor(1, f"{name} day scores")

    def under_way(self) -> list[str]:
        """Who requested the scores that are not available yet."""
        return [self.asked_by[key] for key, future in self.found.items() if not future.done()]

    def trim(self) -> None:
        done = [key for key, future in self.found.items() if future.done()]
        for key in done[: max(0, len(self.found) - self.kept)]:
            del self.found[key], self.asked_by[key]


class DayScores:
    """Tables of scores by day; thread-safe."""

    def __init__(self, kept: int, cold_at_once: Places, refused: Counter) -> None:
        self.cold_at_once = cold_at_once
        self._newest, self._others = _Shelf("newest", NEWEST_KEPT), _Shelf("cold", kept)
        self._refused = refused.labels("cold_date")
        self._lock = threading.Lock()

    def ask(
        self, key: DayKey, compute: Callable[[], ScoreTable], *, newest: bool, holder: Holder = NOBODY
    ) -> "Future[ScoreTable]":
        """The scores of a day, immediately if they are in memory, else as soon as `compute` has them.

        Raises
        ------
        BusyError
            They are not in memory, and the allowed number of other dates, in total or for this holder, is being loaded.
        """
        with self._lock:
            for shelf in (self._newest, self._others):
                if key in shelf.found and not _failed(shelf.found[key]):
                    shelf.found.move_to_end(key)
                    return shelf.found[key]
            shelf = self._newest if newest else self._others
            under_way = shelf.under_way()
            own, limit = under_way.count(holder.name), self.cold_at_once
            if not newest and (len(under_way) >= limit.limit or own >= limit.of(holder)):
                self._refused.inc()
                raise BusyError(
                    f"{len(under_way)} dates are being loaded already, {own} of them for this key, and {key.date} is "
                    "not in memory; retry in a moment"
                )
            shelf.found[key] = shelf.thread.submit(compute)
            shelf.asked_by[key] = holder.name
            shelf.found.move_to_end(key)
            shelf.trim()
            return shelf.found[key]

    def has(self, key: DayKey) -> bool:
        """Whether the scores of a day are in memory."""
        with self._lock:
            futures = [shelf.found[key] for shelf in (self._newest, self._others) if key in shelf.found]
        return any(future.done() and not _failed(future) for future in futures)

    def stop(self) -> None:
        """End the threads; running computations are finished, waiting ones are not."""
        for shelf in (self._newest, self._others):
            shelf.thread.shutdown(wait=False, cancel_futures=True)


def _failed(future: "Future[ScoreTable]") -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)
