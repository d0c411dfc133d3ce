"""One open stream: what its client asks for, and what it is sent."""

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import WebSocketException
from starlette.websockets import WebSocket, WebSocketDisconnect

from mlops_api.broadcast import Broadcaster, Feed
from mlops_api.messages.stream import ASKED, LONGEST_ASKED, Subscribe, said
from mlops_api.stream_limits import ADMISSION_S, StreamLimits
from mlops_tasks.config import StreamSettings
from mlops_tasks.errors import MlopsError

BURST, PER_SECOND = 200, 20.0
"""Messages that a client may send at once, and afterwards per second."""

NO_TOPIC = "there is no such topic; there are runs/<run id>, alerts, deployments, rollouts"


class Ending(NamedTuple):
    """Why a stream is closed: the WebSocket's code, and the reason in words."""

    code: int
    reason: str


GONE = Ending(1000, "")
TOO_SLOW = Ending(1008, "you read too slowly")
UNCLEAR = Ending(1008, 'send {"type": "subscribe" or "unsubscribe", "topic": ..., "after": ...}')
TOO_BUSY = Ending(1008, "you send too many messages")
UNREADABLE = Ending(1011, "events cannot be read; connect again later")
TOO_OLD = Ending(1013, "the stream has lasted long enough; connect again")
TOO_QUIET = Ending(1013, "nothing has happened for a long time; connect again")


@dataclass(eq=False)
class Cursor:
    """A topic that this stream follows, and the number of the newest event that was sent."""

    feed: Feed
    sent: int


@dataclass
class Connection:
    """An accepted WebSocket.

    It holds a number for each topic and the answers to what its client has asked, but no event: whatever the client
    does not read is not fetched.
    """

    websocket: WebSocket
    broadcaster: Broadcaster
    limits: StreamLimits
    most: StreamSettings
    _cursors: dict[str, Cursor] = field(default_factory=dict)
    _answers: deque[str] = field(default_factory=deque)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _happened: float = field(init=False)

    def __post_init__(self) -> None:
        self._happened = _clock()

    async def run(self) -> Ending:
        """Serve until one side ends it."""
        tasks = [asyncio.create_task(each) for each in (self._send(), self._listen(), self._watch())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in tasks if task in done).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for cursor in self._cursors.values():
                self.broadcaster.leave(cursor.feed, self._news)

    async def _send(self) -> Ending:
        """Send answers, events in turn by topic, and a heartbeat where there are none."""
        try:
            while True:
                self._news.clear()
                while self._answers:
                    await self._tell(self._answers.popleft())
                if not any([await self._advance(topic) for topic in list(self._cursors)]):
                    await self._wait()
        except TimeoutError:
            return TOO_SLOW
        except (MlopsError, SQLAlchemyError):
            return UNREADABLE
        except (WebSocketDisconnect, RuntimeError):  # the latter is uvicorn's, for a connection that it has ended
            return GONE

    async def _advance(self, topic: str) -> bool:
        """Send the next events of a topic; whether there were any, or there will be none any more."""
        cursor = self._cursors.get(topic)
        if cursor is None:
            return False
        frame = await self.broadcaster.frame(cursor.feed, cursor.sent)
        if self._cursors.get(topic) is not cursor:  # the client has changed its mind meanwhile
            return False
        if frame is not None:
            cursor.sent, self._happened = frame.last, _clock()
            await self._tell(frame.text)
        ended = frame.ended if frame is not None else cursor.feed.ended
        if ended and self._cursors.get(topic) is cursor:
            self._drop(topic)
            self._answers.append(said("ended", topic, last=cursor.sent))
        return ended or frame is not None

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self.most.heartbeat_s):
                await self._news.wait()
        except TimeoutError:
            self._answers.append(said("heartbeat"))

    async def _tell(self, text: str) -> None:
        # The server buffers 64 KiB for a reader and then waits for it.
        async with asyncio.timeout(self.most.send_timeout_s):
            await self.websocket.send_text(text)

    async def _listen(self) -> Ending:
        """Take what the client asks for. Notice that it has closed, or does not answer the server's pings."""
        allowance, refilled = float(BURST), _clock()
        while (message := await self.websocket.receive())["type"] != "websocket.disconnect":
            now = _clock()
            allowance, refilled = min(BURST, allowance + (now - refilled) * PER_SECOND) - 1, now
            if allowance < 0 or len(self._answers) > BURST:
                return TOO_BUSY
            text = message.get("text") or ""
            try:
                asked = ASKED.validate_json(text) if len(text) <= LONGEST_ASKED else None
            except ValidationError:
                asked = None
            if asked is None:
                return UNCLEAR
            try:
                await (self._subscribe(asked) if isinstance(asked, Subscribe) else self._unsubscribe(asked.topic))
            except (MlopsError, SQLAlchemyError):
                return UNREADABLE
        return GONE

    async def _subscribe(self, asked: Subscribe) -> None:
        self._drop(asked.topic)
        if len(self._cursors) >= self.most.topics:
            self._refuse(asked.topic, 429, f"{self.most.topics} topics are followed; unsubscribe from one")
            return
        feed = await self.broadcaster.follow(asked.topic, self._news)
        if feed is None:
            self._refuse(asked.topic, 404, NO_TOPIC)
            return
        self._cursors[asked.topic] = Cursor(feed, asked.after)
        self._answer(said("subscribed", asked.topic, after=asked.after, newest=feed.head))

    async def _unsubscribe(self, topic: str) -> None:
        self._drop(topic)
        self._answer(said("unsubscribed", topic))

    def _drop(self, topic: str) -> None:
        cursor = self._cursors.pop(topic, None)
        if cursor is not None:
            self.broadcaster.leave(cursor.feed, self._news)

    def _refuse(self, topic: str, status: int, detail: str) -> None:
        self._answer(said("refused", topic, status=status, detail=detail))

    def _answer(self, text: str) -> None:
        self._happened = _clock()
        self._answers.append(text)
        self._news.set()

    async def _watch(self) -> Ending:
        """Check the user's token and the clock from time to time."""
        began = looked = _clock()
        while True:
            await asyncio.sleep(min(1.0, self.most.idle_s / 2, self.most.lifetime_s / 2))
            now = _clock()
            if now - began > self.most.lifetime_s:
                return TOO_OLD
            if now - self._happened > self.most.idle_s:
                return TOO_QUIET
            if now - looked > ADMISSION_S:
                try:
                    await self.limits.admit(self.websocket)
                except WebSocketException as error:
                    return Ending(error.code, error.reason)
                looked = now


def _clock() -> float:
    return asyncio.get_running_loop().time()


async def close(websocket: WebSocket, ending: Ending, within_s: float) -> None:
    """Say why, and make sure that the connection ends even if nobody reads the reason."""
    asyncio.get_running_loop().call_later(within_s, cut, websocket)
    if ending is not GONE:
        with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(within_s):
                await websocket.close(ending.code, ending.reason)


def cut(websocket: WebSocket) -> None:
    """Abort a connection, and discard whatever waits to be read from it.

    ASGI has no message for this: closing waits until everything has been read, for ever if need be. Uvicorn's protocol,
    of which `receive` is a method, has the transport. With another server its own time limits apply.
    """
    transport = getattr(getattr(websocket._receive, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()
