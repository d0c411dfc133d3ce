"""What `make up` says of services that are not there yet: that they start."""

import socket
from collections.abc import Iterator

import pytest

from mlops_tasks.config import Settings
from mlops_tasks.errors import StackError
from mlops_tasks.stack import health
from mlops_tasks.stack.console import Progress
from mlops_tasks.stack.credentials import ensure_credentials
from mlops_tasks.stack.health import NOT_YET, Reply, get, wait_until_healthy
from mlops_tasks.stack.services import services
from tests.operation import free_ports


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_an_address_that_does_not_answer_is_no_error(silent: str) -> None:
    """Whether nothing listens or nobody has time."""
    (port,) = free_ports(1)
    assert get(f"http://127.0.0.1:{port}") == get(silent, timeout_s=0.2) == Reply(0, NOT_YET)


def test_waiting_is_told_as_waiting(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Services that have not come up yet are named as starting, without the words of a failed connection; at the end of
    the time the first of them is."""
    monkeypatch.setattr(health, "_REMIND_S", 0.0)
    monkeypatch.setattr(health, "HEALTH_LIMIT_S", 1.0)
    with pytest.raises(StackError, match=r"^\S+ did not come up: does not answer yet"):
        wait_until_healthy(settings, ensure_credentials(settings), Progress())
    lines = capsys.readouterr().out.splitlines()
    starting = "still starting: " + ", ".join(service.name for service in services(settings))
    assert lines and all(line.endswith(starting) for line in lines)
