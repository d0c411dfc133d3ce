"""Ports are settings; a taken port is an error before anything starts."""

import errno
import socket
from collections.abc import Collection
from dataclasses import dataclass

import psutil

from mlops_tasks.config import StackSettings
from mlops_tasks.errors import StackError


@dataclass(frozen=True)
class TakenPort:
    """A port that the stack needs and cannot use."""

    port: int
    variable: str
    reason: str

    def __str__(self) -> str:
        return f"port {self.port}: {self.reason}; choose another port with {self.variable}=<port>"


PORT_VARIABLES = {
    "airflow_port": "MLOPS_STACK__AIRFLOW_PORT",
    "mlflow_port": "MLOPS_STACK__MLFLOW_PORT",
    "scoring_port": "MLOPS_STACK__SCORING_PORT",
}


def check_ports(stack: StackSettings, own_pids: Collection[int]) -> None:
    """Raise unless every port is free, or held by a process in `own_pids`.

    Raises
    ------
    StackError
        A port is taken. The message names each, its holder if visible, and the variable to change.
    """
    if taken := taken_ports(stack, own_pids):
        raise StackError("nothing was started:\n  " + "\n  ".join(map(str, taken)))


def taken_ports(stack: StackSettings, own_pids: Collection[int]) -> list[TakenPort]:
    """The ports that cannot be bound and are not held by one of `own_pids`."""
    taken = []
    for field, variable in PORT_VARIABLES.items():
        port: int = getattr(stack, field)
        error = _bind_error(stack.host, port)
        if error is None:
            continue
        if error.errno != errno.EADDRINUSE:
            taken.append(TakenPort(port, variable, f"cannot listen on {stack.host} ({error.strerror})"))
            continue
        holder = port_holder(port)
        if holder is None or holder.pid not in own_pids:
            taken.append(TakenPort(port, variable, f"already taken by {_describe(holder)}"))
    return taken


def port_holder(port: int) -> psutil.Process | None:
    """The process that listens on `port`, or None if the system does not show it."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            try:
                return psutil.Process(connection.pid)
            except psutil.NoSuchProcess:
                continue
    return None


def _bind_error(host: str, port: int) -> OSError | None:
    """The error that prevents listening there; with SO_REUSEADDR, sockets that are only closing do not count."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None


def _describe(holder: psutil.Process | None) -> str:
    if holder is None:
        return "a process of another user"
    try:
        return f"{holder.name()} (pid {holder.pid})"
    except psutil.Error:
        return f"pid {holder.pid}"
