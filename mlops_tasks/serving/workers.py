"""The workers of one scoring service as one of them sees them: what each serves, and what all of them together do."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from mlops_tasks.serving.board import CARD_BYTES, Board
from mlops_tasks.serving.shared_days import SharedDays

log = logging.getLogger(__name__)

TICK_S = 0.05
"""How often a worker looks whether it is called, and shows that it is well."""
CALL_S = 30.0
"""How long a refresh waits for workers that have not followed the call."""
_MOST_ERROR = 300


@dataclass(frozen=True)
class WorkerState:
    """What a worker serves, and what is wrong with it."""

    worker: int
    since: float
    """Since when it serves this model, or none, on the system's monotonic clock."""
    answered: int
    """The last call that it has followed."""
    lacking: str
    """What the newest day's scores wait for; empty: they are there."""
    errors: Sequence[str]
    model_version: int | None
    training_key: str | None
    standing: str | None
    slot: str | None
    candidate: dict[str, Any] | None
    newest_date: str | None
    data_version: str | None
    feature_version: str | None

    @property
    def served(self) -> tuple[Any, ...]:
        """What must be the same for all workers."""
        return self.model_version, self.training_key, self.standing, self.data_version, self.feature_version

    def to_card(self) -> bytes:
        """For the board; long errors are cut there."""
        card = to_json(dataclasses.asdict(self))
        if len(card) < CARD_BYTES - 64:
            return card
        cut = [each[:_MOST_ERROR] for each in self.errors[:10]]
        return to_json(dataclasses.asdict(dataclasses.replace(self, errors=cut, candidate=None)))


@dataclass(frozen=True)
class Worker:
    """Which worker a process is; alone where it has no board."""

    number: int = 0
    board: Board | None = None
    folder: Path | None = None
    """For files that the workers share."""

    @property
    def counts(self) -> Path | None:
        """Folder of what the workers count."""
        return None if self.folder is None else self.folder / "counts"

    @property
    def days(self) -> SharedDays | None:
        """Features that the workers share."""
        return None if self.folder is None else SharedDays(self.folder / "days")

    @property
    def leads(self) -> bool:
        """Whether it does what one of the workers has to do."""
        return self.number == 0

    def with_others(self, own: WorkerState) -> list[WorkerState]:
        """What the workers serve that answer requests; of itself the worker knows it best."""
        cards = {} if self.board is None else self.board.cards()
        others = [WorkerState(**from_json(card)) for number, card in cards.items() if number != self.number]
        return sorted([own, *others], key=lambda each: each.worker)

    @property
    def count(self) -> int:
        """Of the workers that there should be."""
        return 1 if self.board is None else self.board.workers


ALONE = Worker()


def health_of(states: Sequence[WorkerState], count: int) -> dict[str, Any]:
    """What /health says of `count` workers, some of which may be starting.

    Where they do not agree, what the one serves that has not switched for the longest time.
    """
    shown = min(states, key=lambda each: each.since)
    errors = list(dict.fromkeys(chain.from_iterable(each.errors for each in states)))
    if len(states) < count:
        errors.append(f"{len(states)} of {count} workers answer requests; the others are being started")
    if len({each.served for each in states}) > 1:
        told = (f"worker {each.worker} version {each.model_version} on {each.data_version}" for each in states)
        errors.append(f"the workers do not serve the same yet: {', '.join(told)}")
    return {
        "status": "no_model" if shown.model_version is None else "degraded" if errors else "ok",
        "errors": errors,
        "model_version": shown.model_version,
        "training_key": shown.training_key,
        "standing": shown.standing,
        "slot": shown.slot,
        "candidate": shown.candidate,
        "newest_date": shown.newest_date,
        "data_version": shown.data_version,
        "feature_version": shown.feature_version,
        "workers": [
            {"worker": each.worker, "model_version": each.model_version, "newest_date": each.newest_date}
            for each in states
        ],
    }


class InStep:
    """Keeps a worker in step with the others: it shows what it serves, looks when it is called, and calls when it has
    found something new by itself.

    Parameters
    ----------
    state
        What it serves, given the last call that it has followed.
    look
        Finds out what is to be served now; called in a thread of its own, once at a time.
    """

    def __init__(self, worker: Worker, board: Board, state: Callable[[int], WorkerState], look: Callable[[], None]):
        self.worker = worker
        self.board = board
        self._state = state
        self._look = look
        self._answered = 0
        self._shown = b""
        self._seen: tuple[Any, ...] = ()
        self._looking: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "look")

    def join(self, pause: Callable[[], None]) -> None:
        """Look, until this worker answers as the others do; `pause` is called in between.

        Where the others have nothing either, it answers that.
        """
        while True:
            called = self.board.call
            self._look()
            own = self._state(called)
            others = [each for each in self.worker.with_others(own) if each.worker != self.worker.number]
            ready = not own.lacking or all(each.lacking for each in others)
            if ready and self.board.tell(self.worker.number, own.to_card(), called):
                self._answered, self._seen = called, self._served()
                self.board.set_beat(self.worker.number, time.monotonic())
                return
            pause()

    async def run(self, on_call: Callable[[], None]) -> None:
        """Until it is cancelled; `on_call` is told of each call too, and must not wait."""
        with self._thread:
            while True:
                self.board.set_beat(self.worker.number, time.monotonic())
                try:
                    self._tick(on_call)
                except Exception:  # without it a worker would follow no call any more, and be taken for one that hangs
                    log.exception("the worker cannot say what it serves")
                await asyncio.sleep(TICK_S)

    def _tick(self, on_call: Callable[[], None]) -> None:
        called, served = self.board.call, self._served()
        if self._looking is None:
            if called != self._answered:
                self._looking = asyncio.create_task(self._follow(called))
                on_call()
            elif served != self._seen:
                self.board.raise_call()
        self._seen = served
        self._show()

    async def _follow(self, called: int) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._look)
        except Exception:
            log.exception("the look that the workers were called to failed")
        self._answered, self._seen, self._looking = called, self._served(), None
        self._show()

    def _served(self) -> tuple[Any, ...]:
        state = self._state(self._answered)
        return *state.served, state.candidate

    def _show(self) -> None:
        card = self._state(self._answered).to_card()
        if card != self._shown:
            self.board.tell(self.worker.number, card)
            self._shown = card

    async def refresh(self) -> None:
        """Let all workers look, and wait until they have."""
        called = self.board.raise_call()
        until = time.monotonic() + CALL_S
        while time.monotonic() < until:
            states = self.worker.with_others(self._state(self._answered))
            if all(each.answered >= called for each in states):
                return
            await asyncio.sleep(TICK_S / 2)
