"""A lease that ends with its owner's process, however that ends. It is kept where the state database is."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, text

from mlops_tasks.config import Settings
from mlops_tasks.state.database import connected, sqlite_file

_KEEPALIVES = {"tcp_keepalives_idle": 10, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 3}
"""Keep-alive settings with which PostgreSQL notices within half a minute that the owner's machine is gone."""
_LOOK_EVERY_S = 0.1


@contextmanager
def lease(settings: Settings, name: str) -> Iterator[bool]:
    """Take the lease `name` unless another process or thread holds it; yield whether it was taken. Does not wait.

    With SQLite it is a lock on a file beside the database, with PostgreSQL an advisory lock of a connection that stays
    open meanwhile: the system, or the server, frees it when the process ends.

    Raises
    ------
    ConfigError, StoreError
        The URL of the state database is invalid, or nothing answers there.
    OSError
        The file cannot be created.
    """
    file = sqlite_file(settings.state_database)
    if file is not None:
        with _file_lease(file.with_name(f".{name}.lease")) as taken:
            yield taken
        return
    with connected(settings) as connection:
        yield _take(connection, name)


@contextmanager
def awaited_lease(settings: Settings, name: str, wait_s: float) -> Iterator[bool]:
    """`lease`, retried for a given time while another holder has it."""
    until = time.monotonic() + wait_s
    while True:
        with lease(settings, name) as taken:
            if taken or time.monotonic() > until:
                yield taken
                return
        time.sleep(_LOOK_EVERY_S)


@contextmanager
def _file_lease(path: Path) -> Iterator[bool]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _take(connection: Connection, name: str) -> bool:
    connection = connection.execution_options(isolation_level="AUTOCOMMIT")
    for setting, value in _KEEPALIVES.items():
        connection.execute(text(f"SET {setting} = {value}"))
    # Advisory locks ignore schemas, but an installation may have its own schema in a shared database.
    query = text("SELECT pg_try_advisory_lock(hashtext(current_schema() || ' ' || :name))")
    return bool(connection.execute(query, {"name": name}).scalar_one())
