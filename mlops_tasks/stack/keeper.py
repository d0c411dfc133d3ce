"""The keeper: one supervisord per home that starts the services, restarts those that crash, and rotates their logs."""

import contextlib
import fcntl
import http.client
import os
import secrets
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.errors import StackError
from mlops_tasks.files import read_json, write_json, write_text
from mlops_tasks.private import UMASK, private_folder
from mlops_tasks.stack.environment import STACK_ID, base_environment
from mlops_tasks.stack.processes import ProcessId, identify, own_processes, sweep
from mlops_tasks.stack.services import SCHEDULER, Service, services

GROUP = "alphaops"
_LONGEST_SOCKET = 90
"""A socket's path is limited to 107 bytes, and supervisord first binds under a longer, temporary name."""
_START_S = 30.0
_IDLE_STATES = {"STOPPED", "EXITED", "FATAL"}


@dataclass(frozen=True)
class Record:
    """The content of `<home>/run/stack.json` about the running stack."""

    stack_id: str
    keeper: ProcessId | None = None
    configuration: str = ""


@dataclass(frozen=True)
class ServiceState:
    """The state of one service, as the keeper reports it."""

    name: str
    state: str
    pid: int
    since_s: float
    message: str


def read_record(settings: Settings) -> Record:
    """The record of this home; the first call generates its id."""
    path = settings.run_dir / "stack.json"
    if not path.exists():
        private_folder(settings.run_dir)
        record = Record(secrets.token_hex(16))
        _write_record(settings, record)
        return record
    content = read_json(path)
    keeper = content.get("keeper")
    return Record(content["stack_id"], ProcessId(**keeper) if keeper else None, content.get("configuration", ""))


def is_running(settings: Settings) -> bool:
    """Whether this home's keeper is running."""
    keeper = read_record(settings).keeper
    return keeper is not None and keeper.process() is not None


def own_pids(settings: Settings) -> set[int]:
    """The process numbers of this home's stack."""
    record = read_record(settings)
    return {process.pid for process in own_processes(record.stack_id, record.keeper)}


@contextlib.contextmanager
def exclusive(settings: Settings) -> Iterator[None]:
    """Hold the home's start-and-stop lock.

    Raises
    ------
    StackError
        Another `make up` or `make down` of this home holds it.
    """
    private_folder(settings.run_dir)
    with (settings.run_dir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"another `make up` or `make down` of {settings.home} is running; wait until it ends"
            ) from None
        yield


def start(settings: Settings, configuration: str) -> None:
    """Start the keeper in a session of its own, with every service under it.

    Raises
    ------
    StackError
        It ended immediately, or does not answer.
    """
    record = read_record(settings)
    private_folder(settings.run_dir)
    logs_dir(settings).mkdir(exist_ok=True)
    conf = settings.run_dir / "supervisord.conf"
    write_text(conf, configuration_text(settings))
    with (logs_dir(settings) / "keeper.out").open("w") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "--configuration", str(conf)],
            cwd=PROJECT,
            env={**base_environment(settings), STACK_ID: record.stack_id},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _write_record(settings, Record(record.stack_id, identify(child.pid), configuration))
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            break
        if service_states(settings):
            return
        time.sleep(0.1)
    raise StackError(
        f"the process keeper did not start; {logs_dir(settings) / 'keeper.out'} ends with:\n"
        + log_tail(logs_dir(settings) / "keeper.out")
    )


def revive(settings: Settings) -> list[str]:
    """Start the services that the keeper has given up on, or that somebody has stopped; returns their names."""
    revived = []
    for state in service_states(settings):
        if state.state in _IDLE_STATES:
            with contextlib.suppress(xmlrpc.client.Fault):  # it ended immediately; the health check says why
                keeper_client(settings).supervisor.startProcess(f"{GROUP}:{state.name}")
            revived.append(state.name)
    return revived


def stop(settings: Settings) -> int:
    """End whatever is left of this home's stack; returns how many processes had to be ended separately.

    The scheduler goes first, so that its tasks can still report to the API server that they were ended.
    """
    record = read_record(settings)
    if record.keeper is not None and (process := record.keeper.process()) is not None:
        with contextlib.suppress(OSError, xmlrpc.client.Error, http.client.HTTPException):
            keeper_client(settings).supervisor.stopProcess(f"{GROUP}:{SCHEDULER}")
        with contextlib.suppress(OSError, xmlrpc.client.Error, http.client.HTTPException):
            keeper_client(settings).supervisor.shutdown()
            with contextlib.suppress(Exception):
                process.wait(timeout=max(service.stop_s for service in services(settings)) + 10)
    swept = sweep(record.stack_id, record.keeper)
    _write_record(settings, Record(record.stack_id))
    return swept


def service_states(settings: Settings) -> list[ServiceState]:
    """The state of each service; empty if the keeper does not answer."""
    try:
        rows: Any = keeper_client(settings).supervisor.getAllProcessInfo()
    except (OSError, xmlrpc.client.Error, http.client.HTTPException):
        return []
    return [
        ServiceState(
            row["name"],
            row["statename"],
            row["pid"],
            max(0.0, row["now"] - row["start"]),
            row["spawnerr"] or row["description"],
        )
        for row in rows
    ]


def keeper_client(settings: Settings) -> xmlrpc.client.ServerProxy:
    """The keeper's interface over its socket, which only the owner can open."""
    from supervisor.xmlrpc import SupervisorTransport

    transport = SupervisorTransport(None, None, f"unix://{socket_path(settings)}")
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)


def configuration_text(settings: Settings) -> str:
    """supervisord's configuration; it contains no secret."""
    chosen = services(settings)
    logs = logs_dir(settings)
    sections = [
        "[supervisord]",
        f"logfile={_escaped(logs / 'keeper.log')}",
        "logfile_maxbytes=5MB",
        "logfile_backups=2",
        "silent=true",
        f"umask={UMASK:03o}",
        f"pidfile={_escaped(settings.run_dir / 'keeper.pid')}",
        f"identifier={GROUP}",
        *(["user=root"] if os.geteuid() == 0 else []),
        "",
        "[unix_http_server]",
        f"file={_escaped(socket_path(settings))}",
        "chmod=0700",
        "",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        "",
        "[supervisorctl]",
        f"serverurl=unix://{_escaped(socket_path(settings))}",
        "",
        f"[group:{GROUP}]",
        f"programs={','.join(service.name for service in chosen)}",
    ]
    return "\n".join([*sections, *(_program(service, logs, order) for order, service in enumerate(chosen)), ""])


def socket_path(settings: Settings) -> Path:
    """The keeper's socket: below the home, or in a private temporary folder if that path is too long."""
    path = settings.run_dir / "keeper.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET:
        return path
    return private_folder(Path("/tmp", f"alphaops-{read_record(settings).stack_id}")) / "keeper.sock"  # noqa: S108


def logs_dir(settings: Settings) -> Path:
    """Folder of the services' own output."""
    return settings.run_dir / "logs"


def log_tail(path: Path, lines: int = 25) -> str:
    """The last lines of a log, indented; empty if there is no log."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        text = file.read().decode(errors="replace")
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def _program(service: Service, logs: Path, order: int) -> str:
    command = f'"{_escaped(sys.executable)}" -m mlops_tasks.stack exec {service.name}'
    return "\n".join(
        [
            "",
            f"[program:{service.name}]",
            f"command={command}",
            f"directory={_escaped(PROJECT)}",
            f"priority={order}",
            f"umask={UMASK:03o}",
            "autostart=true",
            "autorestart=true",
            "startsecs=3",
            "startretries=5",
            f"stopwaitsecs={service.stop_s}",
            "stopasgroup=true",
            "killasgroup=true",
            f"stdout_logfile={_escaped(logs / service.name)}.log",
            "redirect_stderr=true",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=3",
        ]
    )


def _escaped(path: Path | str) -> str:
    """supervisord expands percent signs."""
    return str(path).replace("%", "%%")


def _write_record(settings: Settings, record: Record) -> None:
    write_json(settings.run_dir / "stack.json", asdict(record))
