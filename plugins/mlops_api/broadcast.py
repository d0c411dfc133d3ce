"""New events for all streams of this process: one reader asks the database, and what it finds goes to all.

A stream holds no events of its own, only the number of its newest one in each topic. A topic's newest events are kept
once for all streams that follow it, and so are the texts in which they are sent. A stream that is further behind gets
older events from the database, page by page.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from mlops_api.messages.stream import Frame, Message
from mlops_api.topics import head_of, new_events, page_of
from mlops_tasks.config import Settings
from mlops_tasks.state.database import FileStates, settled_files

log = logging.getLogger(__name__)

POLL_S = 0.1
"""Seconds between two looks: events are copied to the database as often. One at a SQLite database to which nothing was
written takes some microseconds, any other about a millisecond."""
PAGE = 500
KEPT = 500
"""Newest events of a topic that are kept for the streams that follow it."""

Result = TypeVar("Result")


@dataclass(eq=False)
class Feed:
    """A topic that is followed."""

    topic: str
    head: int
    """Number of the newest event that was found."""
    ended: bool
    """Whether that event is the terminal one."""
    recent: deque[Message] = field(default_factory=lambda: deque(maxlen=KEPT))
    """Events up to `head`, without gaps."""
    floor: int = field(init=False)
    """The number before the oldest one that is kept."""
    followers: list[asyncio.Event] = field(default_factory=list)
    """One for each stream; set when there is news."""
    _frames: dict[int, Frame] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.floor = self.head

    def add(self, messages: list[Message]) -> None:
        """Add the next events, and wake who waits for them. Known ones are ignored."""
        new = [message for message in messages if message.sequence > self.head]
        if not new:
            return
        for message in new:
            if len(self.recent) == KEPT:
                self.floor = self.recent[0].sequence
            self.recent.append(message)
        self.head, self.ended = new[-1].sequence, new[-1].terminal
        self._frames.clear()
        for follower in self.followers:
            follower.set()

    def holds(self, after: int) -> bool:
        """Whether all events above a number are kept."""
        return after >= self.floor

    def frame(self, after: int) -> Frame | None:
        """The events above a number; None when there are none yet. Streams at the same number share it."""
        if after >= self.head:
            return None
        if after not in self._frames:
            self._frames[after] = Frame.of(self.topic, [each for each in self.recent if each.sequence > after])
        return self._frames[after]


class Broadcaster:
    """All feeds of a process, for use on one event loop."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self.settings = settings
        self.feeds: dict[str, Feed] = {}
        self._reader = ThreadPoolExecutor(1, "event reader")
        self._poller: asyncio.Task[None] | None = None
        self._complained = False
        self._opened = 0
        """Number of feeds that were ever opened."""
        self._seen: tuple[FileStates, int] | None = None
        """What the database looked like before the last complete look, and how many feeds were opened by then."""
        self._one_opens = asyncio.Lock()
        """Held while a feed is looked up: the first stream of a topic asks the database, and the others find it."""

    async def follow(self, topic: str, follower: asyncio.Event) -> Feed | None:
        """A topic's feed, until `leave`; it sets `follower` when there is news. None when there is no such topic.

        Raises
        ------
        StoreError, SQLAlchemyError
            The database does not answer.
        """
        async with self._one_opens:
            feed = self.feeds.get(topic) or await self._open(topic)
        if feed is not None:
            feed.followers.append(follower)
            if self._poller is None:
                self._poller = asyncio.create_task(self._poll())
        return feed

    def leave(self, feed: Feed, follower: asyncio.Event) -> None:
        """Follow a feed no longer; nothing is kept of one that nobody follows."""
        feed.followers.remove(follower)
        if not feed.followers and self.feeds.get(feed.topic) is feed:
            del self.feeds[feed.topic]

    async def frame(self, feed: Feed, after: int) -> Frame | None:
        """The next events of a feed above a number; None when there are none yet. Errors as for `follow`."""
        if feed.holds(after):
            return feed.frame(after)
        found = await self._read(partial(page_of, self.settings(), feed.topic, after, PAGE))
        return Frame.of(feed.topic, found) if found else None

    async def _open(self, topic: str) -> Feed | None:
        head = await self._read(partial(head_of, self.settings(), topic))
        if head is None:
            return None
        self._opened += 1
        self.feeds[topic] = Feed(topic, head.sequence, head.ended)
        return self.feeds[topic]

    async def _poll(self) -> None:
        """Look for new events of all topics that are followed, until none is."""
        try:
            while self.feeds:
                if not await self._look():
                    await asyncio.sleep(POLL_S)
        finally:
            self._poller = None

    async def _look(self) -> bool:
        """Whether there may be more at once."""
        wanted = {topic: feed.head for topic, feed in self.feeds.items() if not feed.ended}
        try:
            found = await self._read(partial(self._find, wanted, self._opened)) if wanted else {}
        except Exception as error:
            # All streams depend on this one task: whatever is wrong with the database, it is asked again soon.
            if not self._complained:
                log.warning("new events cannot be read: %s: %s", type(error).__name__, error)
            self._complained = True
            return False
        self._complained = False
        for topic, messages in found.items():
            if topic in self.feeds:
                self.feeds[topic].add(messages)
        return any(len(messages) >= PAGE for messages in found.values())

    def _find(self, wanted: Mapping[str, int], opened: int) -> dict[str, list[Message]]:
        """New events, without a query where nothing was written since the last look."""
        files = settled_files(self.settings().state_database)
        seen = None if files is None else (files, opened)
        if seen is not None and seen == self._seen:
            return {}
        found = dict(new_events(self.settings(), wanted, PAGE))
        self._seen = seen if all(len(messages) < PAGE for messages in found.values()) else None
        return found

    async def _read(self, ask: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._reader, ask)
