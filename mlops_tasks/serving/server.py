"""The scoring service as a server."""

import asyncio
import socket
import sys

import uvicorn
from fastapi import FastAPI

from mlops_tasks.config import Settings
from mlops_tasks.serving.connections import limited_protocol

SWITCH_S = 0.0005


class Server(uvicorn.Server):
    """Ends as by a signal when its leash becomes readable: what holds the other end is no more."""

    leash: int | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer requests."""
        if self.leash is not None:
            asyncio.get_running_loop().add_reader(self.leash, self._end, self.leash)
        await super().startup(sockets)

    def _end(self, leash: int) -> None:
        asyncio.get_running_loop().remove_reader(leash)
        self.should_exit = True


def make_server(app: FastAPI, settings: Settings, leash: int | None = None) -> Server:
    """A server of the service's app, at the settings' address."""
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
    server = Server(config)
    server.leash = leash
    return server
