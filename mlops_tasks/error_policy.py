"""The one error policy: of which kind an error is, and what follows from it.

Operators decide by `DECISIONS` alone: whether a task is tried again, and which alert says that it failed.
docs/operations.md shows the same table.
"""

import errno
import socket
import sqlite3
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.error import HTTPError, URLError

from mlops_tasks.errors import ErrorKind, MlopsError


@dataclass(frozen=True)
class Decision:
    """What follows from an error of a kind; the texts are sentences for people."""

    retries: int
    """How often a task is tried again, each time after twice the pause (`stack.retry_delay_s`)."""
    alert: str
    """Kind of the alert once the task has failed for good; its severity is in alerts.yaml."""
    kept: str
    """What is set aside, and what stays in use."""
    remedy: str
    """What a person does."""


DECISIONS: Mapping[ErrorKind, Decision] = MappingProxyType({
    ErrorKind.TRANSIENT: Decision(
        retries=3,
        alert="run_failed_transient",
        kept="What was done is kept, and the next try does the rest.",
        remedy="Bring back what the message names (a service, a database, a worker, room on a disk), and clear the "
        "failed task.",
    ),
    ErrorKind.DATA: Decision(
        retries=0,
        alert="run_failed_data",
        kept="Nothing of it is used: rejected rows are in quarantine, and the last good vintage and the champion stay "
        "in use.",
        remedy="Correct the data, or release what is right after all (`alphaops quarantine`), and clear the failed "
        "task or run the DAG again.",
    ),
    ErrorKind.CONFIGURATION: Decision(
        retries=0,
        alert="run_failed_configuration",
        kept="Nothing was changed; the champion stays in use.",
        remedy="Correct the setting, the form or the package that the message names, and clear the failed task or run "
        "the DAG again.",
    ),
    # The stages are deterministic: another try would fail like the first, for the length of a training, and tell
    # people later. What passes by itself is in `kind_of`.
    ErrorKind.BUG: Decision(
        retries=0,
        alert="run_failed_bug",
        kept="What was done is kept; the champion stays in use.",
        remedy="Look at the traceback in the task's log, correct the code or report it, and clear the failed task.",
    ),
    ErrorKind.DECIDED: Decision(
        retries=0,
        alert="run_ended",
        kept="What stands stays as it is.",
        remedy="Nothing needs to be done; ask anew if it is wanted after all.",
    ),
})  # fmt: skip
MOST_RETRIES = max(each.retries for each in DECISIONS.values())
RUN_FAILED = "run_failed"
"""Kind of the alert about a failed run whose tasks could not say why, as when a worker is gone with its machine."""
FAILURES = (RUN_FAILED, *(each.alert for kind, each in DECISIONS.items() if kind is not ErrorKind.DECIDED))
"""Kinds of alerts that say that a run failed."""

_ALWAYS = (ConnectionError, TimeoutError, socket.gaierror, MemoryError, BrokenProcessPool, SystemExit)
"""A task exits by itself where its worker is told to end."""
_ERRNOS = frozenset({
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),  # a full disk is made room on, and the rest of the work is done then
    *(errno.ENOMEM, errno.EAGAIN, errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE),
    *(errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN),
})  # fmt: skip
_SQLITE = frozenset({
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL),
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOMEM),
})  # fmt: skip
_PASSING = frozenset({
    *("requests.exceptions.ConnectionError", "requests.exceptions.Timeout"),
    *("requests.exceptions.ChunkedEncodingError", "urllib3.exceptions.MaxRetryError"),
    *("urllib3.exceptions.TimeoutError", "urllib3.exceptions.ProtocolError", "urllib3.exceptions.NewConnectionError"),
    "airflow.sdk.exceptions.AirflowRuntimeError",  # Airflow's own server
    *("httpx.TransportError", "psycopg2.OperationalError", "psycopg2.InterfaceError"),
    *("redis.exceptions.ConnectionError", "redis.exceptions.TimeoutError", "kombu.exceptions.OperationalError"),
    *("botocore.exceptions.ConnectionError", "botocore.exceptions.HTTPClientError"),
})  # fmt: skip
"""Foreign errors that are transient, by name: none of their libraries is imported for a question."""
_DATABASE = "sqlalchemy.exc.DBAPIError"
_PASSING_STATUS = frozenset({429, *range(500, 600)})


def kind_of(error: BaseException) -> ErrorKind:
    """The kind of an error: its own if it is ours; transient if it is known to pass by itself; else it is a bug.

    Of an error that was raised from another one (`raise ... from`), the kind of that one counts if the outer one is
    unknown.
    """
    known: BaseException | None = error
    while known is not None:
        if isinstance(known, MlopsError):
            return known.kind
        if _passes(known):
            return ErrorKind.TRANSIENT
        known = known.__cause__
    return ErrorKind.BUG


def _passes(error: BaseException) -> bool:
    """Whether an error that is not ours is known to be transient."""
    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        return isinstance(error.reason, BaseException) and _passes(error.reason)
    names = {f"{each.__module__}.{each.__qualname__}" for each in type(error).__mro__}
    return (
        isinstance(error, _ALWAYS)
        or bool(names & _PASSING)
        or (isinstance(error, OSError) and error.errno in _ERRNOS)
        or getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE  # extended codes keep theirs in the low byte
        or (_DATABASE in names and _database_passes(error))
        or _status_of(error, names) in _PASSING_STATUS
    )


def _database_passes(error: Any) -> bool:
    """Whether the driver's error behind SQLAlchemy's passes."""
    return bool(error.connection_invalidated) or (error.orig is not None and _passes(error.orig))


def _status_of(error: Any, names: set[str]) -> int | None:
    """The HTTP status that an error carries: MLflow's, or that of a client."""
    if "mlflow.exceptions.MlflowException" in names:
        return int(error.get_http_status_code())
    if names & {"requests.exceptions.HTTPError", "httpx.HTTPStatusError"}:
        return getattr(error.response, "status_code", None)
    return error.code if isinstance(error, HTTPError) else None
