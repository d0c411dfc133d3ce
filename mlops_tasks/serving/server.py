"""The scoring service as a server."""

import sys

import uvicorn
from fastapi import FastAPI

from mlops_tasks.config import Settings
from mlops_tasks.serving.connections import limited_protocol

SWITCH_S = 0.0005


def make_server(app: FastAPI, settings: Settings) -> uvicorn.Server:
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
    return uvicorn.Server(config)
