"""A scoring service with a champion and tight limits, and raw connections to it."""

import re
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlops_tasks.authorities import trusted_authorities
from mlops_tasks.config import ServingSettings
from mlops_tasks.serving.client import ScoringClient
from tests.operation import make_champion
from tests.registry.conftest import Operation, new_home, new_operation
from tests.registry.trainings import Spec
from tests.serving.conftest import RunningService

LIMITS: Mapping[str, Any] = {
    "poll_s": 0.5,
    "max_body_mb": 1.0,
    "max_rows": 50,
    "max_names": 60_000,
    "requests_at_once": 3,
    "large_at_once": 2,
    "cold_dates_at_once": 2,
    "dates_kept": 4,
    "connections": 12,
    "header_timeout_s": 1.0,
    "body_timeout_s": 1.0,
    "idle_timeout_s": 1.0,
    "answer_timeout_s": 1.0,
}
TOKEN = b"Authorization: Bearer token-of-the-tests\r\n"


@dataclass(frozen=True)
class Served:
    """An operation whose champion is in service."""

    operation: Operation
    running: RunningService

    @property
    def port(self) -> int:
        """Of the service."""
        return self.operation.settings.stack.scoring_port

    def connect(self, first: bytes = b"") -> socket.socket:
        """A connection on which something was sent."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        made.sendall(first)
        return made

    def client(self) -> httpx.Client:
        """An honest client."""
        headers = {"Authorization": "Bearer token-of-the-tests"}
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=60, verify=trusted_authorities()
        )

    def metric(self, name: str) -> float:
        """The value of one line of /metrics; 0 where there is none."""
        with self.client() as client:
            found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0


def serve(home: Path, migrated_mlflow: Path, vintage_template: tuple[Path, str, str]) -> Iterator[Served]:
    """One service with `LIMITS`, warm."""
    with pytest.MonkeyPatch.context() as patch:
        settings = new_home(home, migrated_mlflow, patch)
        settings = settings.model_copy(update={"serving": ServingSettings.model_validate(LIMITS)})
        operation = new_operation(settings, vintage_template)
        make_champion(settings, operation.register(Spec(key="a" * 16)))
        running = RunningService(settings)
        with ScoringClient(settings) as client:
            client.refresh()
        yield Served(operation, running)
        running.stop()


def seconds_until_closed(connection: socket.socket) -> float:
    """How long the other side takes to end a connection; what it still says is read."""
    began = time.monotonic()
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - began
