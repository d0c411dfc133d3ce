"""New events of alerts for all streams of this process: one reader asks the database whether there are any."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from mlops_api.broadcast import Message
from mlops_api.messages.alerts import AlertEvent
from mlops_tasks.config import Settings
from mlops_tasks.state.alerts.journal import events_after, newest_events

log = logging.getLogger(__name__)

POLL_S = 1.0
PAGE = 200

Result = TypeVar("Result")


class AlertFeed:
    """The events of all alerts, for use on one event loop. Ids ascend in the order in which events are recorded."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self.settings = settings
        self._reader = ThreadPoolExecutor(1, "alert event reader")
        self._followers = 0
        self._poller: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        """Set and replaced when there is a new event."""

    @contextmanager
    def follow(self) -> Iterator[None]:
        """Count a listener while the block runs."""
        self._followers += 1
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())
        try:
            yield
        finally:
            self._followers -= 1

    async def messages(self, after: int) -> AsyncIterator[Message]:
        """Events above an id, as they come, without end.

        Raises
        ------
        StoreError, SQLAlchemyError
            The database does not answer when events are to be read.
        """
        while True:
            news = self._news
            found = await self._read(partial(self._page, after))
            for message in found:
                yield message
                after = message.sequence
            if not found:
                await news.wait()

    def _page(self, after: int) -> list[Message]:
        rows = events_after(self.settings(), after, PAGE)
        read = [AlertEvent.model_validate(row, from_attributes=True) for row in rows]
        return [Message(event.id, False, event.model_dump_json()) for event in read]

    async def _poll(self) -> None:
        """Look for new events until nobody listens any more."""
        head, complained = None, False
        try:
            while self._followers:
                try:
                    newest = await self._read(self._head)
                except Exception as error:
                    # All streams depend on this one task: whatever is wrong with the database, it is asked again.
                    if not complained:
                        log.warning("new events of alerts cannot be read: %s: %s", type(error).__name__, error)
                    complained = True
                else:
                    complained = False
                    if newest != head:
                        head = newest
                        self._news.set()
                        self._news = asyncio.Event()
                await asyncio.sleep(POLL_S)
        finally:
            self._poller = None

    def _head(self) -> int:
        newest = newest_events(self.settings(), 1)
        return newest[0].id if newest else 0

    async def _read(self, ask: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._reader, ask)
