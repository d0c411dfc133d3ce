"""A taken port is said before anything starts."""

import os
import socket

import pytest

from mlops_tasks.config import Settings
from mlops_tasks.errors import StackError
from mlops_tasks.stack.ports import check_ports, taken_ports


@pytest.fixture
def listener(settings: Settings):
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", settings.stack.mlflow_port))
        held.listen()
        yield held


def test_free_ports_pass(settings: Settings) -> None:
    """Nothing is said about free ports, and the check leaves them free."""
    check_ports(settings.stack, set())
    check_ports(settings.stack, set())


def test_a_taken_port_names_itself_its_holder_and_the_remedy(settings: Settings, listener: socket.socket) -> None:
    """The message has the port, the process that holds it, and the variable to change."""
    with pytest.raises(StackError) as caught:
        check_ports(settings.stack, set())
    message = str(caught.value)
    assert message.startswith("nothing was started:")
    assert f"port {settings.stack.mlflow_port}: already taken by" in message
    assert f"(pid {os.getpid()})" in message
    assert "MLOPS_STACK__MLFLOW_PORT=<port>" in message


def test_a_port_of_the_own_stack_is_no_error(settings: Settings, listener: socket.socket) -> None:
    """What our own processes hold is where it should be."""
    assert taken_ports(settings.stack, {os.getpid()}) == []


def test_a_listener_on_every_address_counts(settings: Settings) -> None:
    """A process that listens on 0.0.0.0 takes the port of 127.0.0.1 too."""
    with socket.socket() as held:
        held.bind(("0.0.0.0", settings.stack.scoring_port))
        held.listen()
        assert [taken.port for taken in taken_ports(settings.stack, set())] == [settings.stack.scoring_port]


def test_a_foreign_host_is_a_clear_error(settings: Settings) -> None:
    """An address that this machine does not have is named with the system's reason."""
    elsewhere = settings.stack.model_copy(update={"host": "192.0.2.1"})
    with pytest.raises(StackError, match=r"cannot listen on 192\.0\.2\.1 \(Cannot assign requested address\)"):
        check_ports(elsewhere, set())
