"""The live event streams: of a run, and of all alerts."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from fastapi import APIRouter, WebSocket
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import WebSocketException
from starlette.websockets import WebSocketDisconnect

from mlops_api.alert_feed import AlertFeed
from mlops_api.broadcast import Broadcaster, Message
from mlops_api.service import After, settings
from mlops_api.stream_limits import ADMISSION_S, StreamLimits, TooManyStreamsError
from mlops_tasks.errors import MlopsError

log = logging.getLogger(__name__)
router = APIRouter()

CLOSE_S = 10.0
"""How long the other side may take to close as well."""
RETRY_AFTER_S = 30


class Ending(NamedTuple):
    """Why a stream is closed: the WebSocket's code, and the reason in words."""

    code: int
    reason: str


COMPLETE = Ending(1000, "the run has ended")
GONE = Ending(1000, "")
TOO_SLOW = Ending(1008, "you read too slowly")
SAYS_SOMETHING = Ending(1008, "this stream takes no messages")
UNREADABLE = Ending(1011, "events cannot be read; connect again later")
TOO_OLD = Ending(1013, "the stream has lasted long enough; connect again")
TOO_QUIET = Ending(1013, "nothing has happened for a long time; connect again")


broadcaster = Broadcaster(settings)
alert_feed = AlertFeed(settings)
limits = StreamLimits(lambda: settings().streams)


@router.websocket("/training/runs/{run_id}/stream")
async def stream_events(websocket: WebSocket, run_id: str, after: After = 0) -> None:
    """Send each event numbered above `after` as a JSON message, in order, up to the terminal one. Then code 1000."""
    async with _answered(websocket, run_id), limits.place(websocket), broadcaster.follow(run_id) as feed:
        if feed is None:
            detail = f"there is no training run {run_id!r}; GET training/runs lists them"
            await websocket.send_denial_response(JSONResponse({"detail": detail}, 404))
            return
        await websocket.accept()
        await _close(websocket, await Stream(websocket, partial(broadcaster.messages, feed), after).run())


@router.websocket("/alerts/stream")
async def stream_alerts(websocket: WebSocket, after: After = 0) -> None:
    """Send each event of alerts with an id above `after` as a JSON message, in order, as it is recorded."""
    async with _answered(websocket, "alerts"), limits.place(websocket):
        with alert_feed.follow():
            await websocket.accept()
            await _close(websocket, await Stream(websocket, alert_feed.messages, after).run())


@contextlib.asynccontextmanager
async def _answered(websocket: WebSocket, what: str) -> AsyncIterator[None]:
    """Turn the reason why a stream is refused into an answer."""
    try:
        yield
    except TooManyStreamsError as error:
        answer = JSONResponse({"detail": str(error)}, error.status, {"Retry-After": str(RETRY_AFTER_S)})
        await websocket.send_denial_response(answer)
    except (MlopsError, SQLAlchemyError) as error:
        log.warning("a stream of %s was refused: %s", what, error)
        detail = "the state database does not answer; ask again later"
        await websocket.send_denial_response(JSONResponse({"detail": detail}, 503))


@dataclass
class Stream:
    """An open WebSocket, and the number of the newest event that was sent on it."""

    websocket: WebSocket
    messages: Callable[[int], AsyncIterator[Message]]
    """From the number of an event, the later ones as they come."""
    sent: int

    async def run(self) -> Ending:
        """Send until one side ends it."""
        tasks = [asyncio.create_task(each) for each in (self._send(), self._listen(), self._watch())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in tasks if task in done).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self) -> Ending:
        limit = settings().streams.send_timeout_s
        try:
            async for message in self.messages(self.sent):
                # The server buffers 64 KiB for a reader and then waits for it.
                async with asyncio.timeout(limit):
                    await self.websocket.send_text(message.text)
                self.sent = message.sequence
        except TimeoutError:
            return TOO_SLOW
        except WebSocketDisconnect:
            return GONE
        except (MlopsError, SQLAlchemyError):
            return UNREADABLE
        return COMPLETE

    async def _listen(self) -> Ending:
        """Notice that the other side has closed, or does not answer the server's pings."""
        message = await self.websocket.receive()
        return GONE if message["type"] == "websocket.disconnect" else SAYS_SOMETHING

    async def _watch(self) -> Ending:
        """Check the user's token and the clock from time to time."""
        most, clock = settings().streams, asyncio.get_running_loop().time
        began = looked = happened = clock()
        seen = self.sent
        while True:
            await asyncio.sleep(min(1.0, most.idle_s / 2, most.lifetime_s / 2))
            now = clock()
            if self.sent != seen:
                seen, happened = self.sent, now
            if now - began > most.lifetime_s:
                return TOO_OLD
            if now - happened > most.idle_s:
                return TOO_QUIET
            if now - looked > ADMISSION_S:
                try:
                    await limits.admit(self.websocket)
                except WebSocketException as error:
                    return Ending(error.code, error.reason)
                looked = now


async def _close(websocket: WebSocket, ending: Ending) -> None:
    """Say why, and make sure that the connection ends even if nobody reads the reason."""
    asyncio.get_running_loop().call_later(CLOSE_S, cut, websocket)
    if ending is not GONE:
        with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(CLOSE_S):
                await websocket.close(ending.code, ending.reason)


def cut(websocket: WebSocket) -> None:
    """Abort a connection, and discard whatever waits to be read from it.

    ASGI has no message for this: closing waits until everything has been read, for ever if need be. Uvicorn's protocol,
    of which `receive` is a method, has the transport. With another server its own time limits apply.
    """
    transport = getattr(getattr(websocket._receive, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()
