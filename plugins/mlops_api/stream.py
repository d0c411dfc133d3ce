"""The live event stream of a run."""

import asyncio
import contextlib
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, WebSocket
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.websockets import WebSocketDisconnect

from mlops_api.access import admit_stream
from mlops_api.messages import Event
from mlops_api.service import known_run, settings
from mlops_tasks.training.events import read_events

router = APIRouter(prefix="/training/runs")

POLL_S = 0.5
"""As often as events are carried over to the database."""
ADMISSION_S = 60.0
"""How long a stream may go on before its token is looked at again."""


@router.websocket("/{run_id}/stream")
async def stream_events(websocket: WebSocket, run_id: str, after: Annotated[int, Query(ge=0)] = 0) -> None:
    """Each event with a number above `after` as one JSON message, in order, up to the terminal one; then code 1000."""
    await admit_stream(websocket)
    try:
        await run_in_threadpool(known_run, run_id)
    except HTTPException as error:
        await websocket.send_denial_response(JSONResponse({"detail": error.detail}, error.status_code))
        return
    await websocket.accept()
    listener = asyncio.create_task(_until_gone(websocket))
    try:
        await _send_events(websocket, run_id, after, listener)
    finally:
        listener.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listener


async def _send_events(websocket: WebSocket, run_id: str, after: int, listener: "asyncio.Task[None]") -> None:
    admitted = asyncio.get_running_loop().time()
    while not listener.done():
        events = await run_in_threadpool(read_events, settings(), run_id, after)
        for event in events:
            with contextlib.suppress(WebSocketDisconnect):
                await websocket.send_text(Event.of(event).model_dump_json())
            if event.terminal:
                await websocket.close()
                return
            after = event.sequence
        if asyncio.get_running_loop().time() - admitted > ADMISSION_S:
            await admit_stream(websocket)
            admitted = asyncio.get_running_loop().time()
        if not events:
            await asyncio.wait([listener], timeout=POLL_S)


async def _until_gone(websocket: WebSocket) -> None:
    """Return when the other side has closed; what it says is nothing to us."""
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.receive_text()
