"""Faults at the edges of a process: its requests, its calls of MLflow, its commits to the state database, its locks."""

import errno
import fcntl
import json
import os
import random
import resource
import signal
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from mlops_tasks.config import Settings
from mlops_tasks.state.database import engine

MLFLOW_CALLS = (
    "get_model_version_by_alias",
    "get_model_version",
    "search_model_versions",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_model_version_tag",
)

KINDS = (
    "kill",
    "interrupt",
    "os_error",
    "database_error",
    "mlflow_error",
    "service_away",
    "mlflow_away",
    "mlflow_read_only",
    "database_away",
    "full_disk",
)
"""`*_error` happen once; what is away, read-only or full stays so until the process ends."""


@dataclass(frozen=True)
class Fault:
    """One fault at one edge."""

    kind: str
    at: int
    """At which edge of the process, from 1; 0 for never."""
    after: bool = False
    """Whether the edge is crossed first, so that only its answer is lost."""
    service_pid: int = 0


ScenarioT = TypeVar("ScenarioT")


@dataclass(frozen=True)
class Trial(Generic[ScenarioT]):
    """One scenario with one fault in one of its processes."""

    scenario: ScenarioT
    process: str
    fault: Fault
    edge: str
    by: str
    """Who looks first afterwards: `service` or `status`."""


def draw(groups: list[list[Trial[ScenarioT]]], count: int, generator: random.Random) -> list[Trial[ScenarioT]]:
    """So many trials, each group having its share."""
    for group in groups:
        generator.shuffle(group)
    generator.shuffle(groups)
    rounds = max(map(len, groups))
    return [group[turn] for turn in range(rounds) for group in groups if turn < len(group)][:count]


class Edges:
    """Counts a process's edges, and strikes at one of them."""

    def __init__(self, fault: Fault, count_file: Path | None = None) -> None:
        self.fault = fault
        self.seen: list[str] = []
        self.down: tuple[str, ...] = ()
        self.count_file = count_file

    def install(self, settings: Settings) -> None:
        """From now on every edge of this process is counted."""
        self._wrap(httpx.Client, "send", lambda _, request, **__: f"http {request.url.path}")
        for call in MLFLOW_CALLS:
            self._wrap(MlflowClient, call, lambda *_, call=call, **__: f"mlflow {call}")
        self._wrap(fcntl, "flock", lambda *_: "lock")
        state = engine(settings.state_database)
        self._wrap(state.dialect, "do_commit", lambda *_: "state commit")
        event.listen(state, "do_connect", lambda *_: self.cross("state connect", lambda: None))

    def _wrap(self, owner: Any, attribute: str, name: Callable[..., str]) -> None:
        original = getattr(owner, attribute)

        def crossed(*args: Any, **kwargs: Any) -> Any:
            return self.cross(name(*args, **kwargs), lambda: original(*args, **kwargs))

        setattr(owner, attribute, crossed)

    def cross(self, edge: str, do: Callable[[], Any]) -> Any:
        """Cross one edge, unless something is in the way."""
        self.seen.append(edge)
        if self.count_file is not None:
            beside = self.count_file.with_suffix(f".{threading.get_ident()}")
            beside.write_text(json.dumps(self.seen))
            beside.replace(self.count_file)  # whoever kills this process finds it whole
        struck = len(self.seen) == self.fault.at
        if struck and not self.fault.after:
            self._strike()
        if edge.startswith(self.down):
            raise sqlite3.OperationalError("unable to open database file") if edge.startswith("state") else _mlflow()
        result = do()
        if struck and self.fault.after:
            self._strike()
        return result

    def _strike(self) -> None:
        kind = self.fault.kind
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "interrupt":
            raise KeyboardInterrupt
        elif kind == "os_error":
            raise OSError(errno.EIO, "input/output error")
        elif kind == "database_error":
            raise OperationalError("COMMIT", {}, sqlite3.OperationalError("database is locked"))
        elif kind == "mlflow_error":
            raise _mlflow()
        elif kind == "service_away":
            os.kill(self.fault.service_pid, signal.SIGKILL)
        elif kind == "full_disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        else:
            self.down = {
                "mlflow_away": ("mlflow",),
                "mlflow_read_only": ("mlflow set", "mlflow delete"),
                "database_away": ("state",),
            }[kind]


def _mlflow() -> MlflowException:
    return MlflowException("connection refused")
