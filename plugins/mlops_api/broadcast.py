"""New training events for all streams of this process: one reader asks the database, and what it finds goes to all.

A stream holds no events of its own, only the number of its newest one. A run's newest events are kept once for all
streams that follow it. A stream that is further behind gets older events from the database, page by page.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from mlops_api.messages.training import Event
from mlops_tasks.config import Settings
from mlops_tasks.state.tables import TrainingEvent
from mlops_tasks.state.training_runs import find_training_run, new_training_events, newest_training_event
from mlops_tasks.training.events import read_events

log = logging.getLogger(__name__)

POLL_S = 0.5
"""Seconds between two looks: events are copied to the database as often."""
PAGE = 500
KEPT = 500
"""Newest events of a run that are kept for the streams that follow it."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Message:
    """An event as it is sent."""

    sequence: int
    terminal: bool
    text: str

    @classmethod
    def of(cls, event: TrainingEvent) -> "Message":
        """From a row."""
        return cls(event.sequence, event.terminal, Event.of(event).model_dump_json())


@dataclass(eq=False)
class Feed:
    """A run that is followed."""

    run_id: str
    head: int
    """Number of the newest event that was found."""
    ended: bool
    """Whether that event is the terminal one."""
    recent: deque[Message] = field(default_factory=lambda: deque(maxlen=KEPT))
    """Events up to `head`, without gaps."""
    followers: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set and replaced with each new event."""

    def add(self, message: Message) -> None:
        """Add the next event. A known one is ignored."""
        if message.sequence <= self.head:
            return
        self.recent.append(message)
        self.head, self.ended = message.sequence, message.terminal
        self.news.set()
        self.news = asyncio.Event()

    def after(self, sequence: int) -> list[Message] | None:
        """Events above a number. None if some of them are older than those kept."""
        if sequence >= self.head:
            return []
        if not self.recent or self.recent[0].sequence > sequence + 1:
            return None
        return [message for message in self.recent if message.sequence > sequence]


class Broadcaster:
    """All feeds of a process, for use on one event loop."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self.settings = settings
        self.feeds: dict[str, Feed] = {}
        self._reader = ThreadPoolExecutor(1, "training event reader")
        self._poller: asyncio.Task[None] | None = None
        self._complained = False
        self._one_opens = asyncio.Lock()
        """Held while a feed is looked up: the first stream of a run asks the database, and the others find its feed."""

    @asynccontextmanager
    async def follow(self, run_id: str) -> AsyncIterator[Feed | None]:
        """A run's feed while the block runs. None when there is no such run."""
        async with self._one_opens:
            feed = self.feeds.get(run_id) or await self._open(run_id)
        if feed is None:
            yield None
            return
        feed.followers += 1
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())
        try:
            yield feed
        finally:
            feed.followers -= 1
            if not feed.followers:
                self.feeds.pop(run_id, None)

    async def messages(self, feed: Feed, after: int) -> AsyncIterator[Message]:
        """Events above a number, as they come, up to the terminal one.

        Raises
        ------
        StoreError, SQLAlchemyError
            The database does not answer when older events are to be read.
        """
        while True:
            news, found = feed.news, feed.after(after)
            if found is None:
                found = await self._read(partial(self._page, feed.run_id, after))
            for message in found:
                yield message
                after = message.sequence
                if message.terminal:
                    return
            if not found:
                if feed.ended:
                    return
                await news.wait()

    async def _open(self, run_id: str) -> Feed | None:
        made = await self._read(partial(self._new_feed, run_id))
        if made is not None:
            self.feeds[run_id] = made
        return made

    def _new_feed(self, run_id: str) -> Feed | None:
        if find_training_run(self.settings(), run_id) is None:
            return None
        newest = newest_training_event(self.settings(), run_id)
        return Feed(run_id, newest.sequence, newest.terminal) if newest else Feed(run_id, 0, ended=False)

    def _page(self, run_id: str, after: int) -> list[Message]:
        return [Message.of(event) for event in read_events(self.settings(), run_id, after, PAGE)]

    async def _poll(self) -> None:
        """Look for new events of all followed runs, in one query, until no run is followed."""
        try:
            while self.feeds:
                wanted = {run_id: feed.head for run_id, feed in self.feeds.items() if not feed.ended}
                found = await self._look(wanted) if wanted else []
                for run_id, message in found:
                    if run_id in self.feeds:
                        self.feeds[run_id].add(message)
                if len(found) < PAGE:
                    await asyncio.sleep(POLL_S)
        finally:
            self._poller = None

    async def _look(self, wanted: dict[str, int]) -> list[tuple[str, Message]]:
        try:
            found = await self._read(partial(self._new_events, wanted))
        except Exception as error:
            # All streams depend on this one task: whatever is wrong with the database, it is asked again soon.
            if not self._complained:
                log.warning("new training events cannot be read: %s: %s", type(error).__name__, error)
            self._complained = True
            return []
        self._complained = False
        return found

    def _new_events(self, wanted: dict[str, int]) -> list[tuple[str, Message]]:
        events: Iterable[TrainingEvent] = new_training_events(self.settings(), wanted, PAGE)
        return [(event.run_id, Message.of(event)) for event in events]

    async def _read(self, ask: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._reader, ask)
