"""The scoring service as a server."""

import asyncio
import contextlib
import logging
import socket
import sys

import uvicorn
from fastapi import FastAPI

from mlops_tasks.config import Settings
from mlops_tasks.serving.board import Board
from mlops_tasks.serving.connections import limited_protocol
from mlops_tasks.serving.workers import ALONE, Worker

log = logging.getLogger(__name__)

SWITCH_S = 0.0005
GIVE_WAY_S = 0.002
"""How long a worker leaves a new connection to one that has fewer."""
NO_ROOM_S = 0.5
"""Before it tries again where the system has no room for one more."""


class WorkerServer(uvicorn.Server):
    """The server of one of several workers.

    It takes connections from the socket that all inherit, one by one, and leaves a new one to whoever has fewer. It
    ends as by a signal when its leash becomes readable: the supervisor, which holds the other end, is no more.
    """

    def __init__(self, config: uvicorn.Config, number: int, board: Board, leash: int) -> None:
        super().__init__(config)
        self.number = number
        self.board = board
        self.leash = leash
        self._accepting: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer requests."""
        asyncio.get_running_loop().add_reader(self.leash, self._end)
        await super().startup([])
        self._accepting = [asyncio.create_task(self._accept(each)) for each in sockets or ()]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and end those that there are when they are answered."""
        for each in self._accepting:
            each.cancel()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        self._count()
        return await super().on_tick(counter)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self.leash)
        self.should_exit = True

    def _count(self) -> int:
        count = len(self.server_state.connections)
        self.board.set_connections(self.number, count)
        return count

    async def _accept(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        while True:
            await _readable(listener)
            if self._count() > self.board.fewest_connections(self.number):
                await asyncio.sleep(GIVE_WAY_S)
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            except OSError as error:
                log.error("a connection cannot be taken: %s", error)
                await asyncio.sleep(NO_ROOM_S)
                continue
            with contextlib.suppress(OSError):  # it has gone already
                await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


async def _readable(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(listener, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(listener)


def make_server(app: FastAPI, settings: Settings, worker: Worker = ALONE, leash: int = -1) -> uvicorn.Server:
    """A server of the service's app, at the settings' address; a worker's is given its sockets when it is run."""
    # Threads that load dates or score rows give way ten times sooner than by default to the one that answers.
    sys.setswitchinterval(SWITCH_S)
    config = uvicorn.Config(
        app,
        host=settings.stack.host,
        port=settings.stack.scoring_port,
        http=limited_protocol(settings.serving, app.state.service.metrics),
        ws="none",
        log_level="info",
        access_log=False,
        timeout_graceful_shutdown=10,
    )
    if worker.board is None:
        return uvicorn.Server(config)
    return WorkerServer(config, worker.number, worker.board, leash)
