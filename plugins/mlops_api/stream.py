"""The live event stream: one WebSocket on which a client follows as many topics as it likes."""

import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import APIRouter, WebSocket
from fastapi.responses import JSONResponse

from mlops_api.broadcast import Broadcaster
from mlops_api.connection import Connection, close
from mlops_api.service import settings
from mlops_api.stream_limits import StreamLimits, TooManyStreamsError

log = logging.getLogger(__name__)
router = APIRouter()

CLOSE_S = 10.0
"""How long the other side may take to close as well."""
RETRY_AFTER_S = 30

broadcaster = Broadcaster(settings)
limits = StreamLimits(lambda: settings().streams)


@router.websocket("/stream")
async def stream_events(websocket: WebSocket) -> None:
    """Send the events of the topics that the client subscribes to, each in order, as they are recorded."""
    async with _answered(websocket), limits.place(websocket):
        await websocket.accept()
        await close(websocket, await Connection(websocket, broadcaster, limits, settings().streams).run(), CLOSE_S)


@contextlib.asynccontextmanager
async def _answered(websocket: WebSocket) -> AsyncIterator[None]:
    """Turn the reason why a stream is refused into an answer."""
    try:
        yield
    except TooManyStreamsError as error:
        answer = JSONResponse({"detail": str(error)}, error.status, {"Retry-After": str(RETRY_AFTER_S)})
        await websocket.send_denial_response(answer)
