"""Where studies are kept, and how workers share one.

Optuna's tables have a database or schema of their own, because Optuna keeps its revision in a table `alembic_version`,
as the state database does. A worker holds a lease for as long as it lives. The database (or the system, for SQLite)
frees the lease when the process ends, however it ends, so the trial of a killed worker is found at once, without
waiting for a heartbeat. PostgreSQL probes the worker's machine (TCP keepalive) and gives it up after a minute of
silence.
"""

import fcntl
import hashlib
import secrets
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import optuna
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, StoreError

_KEEPALIVE = {"tcp_keepalives_idle": 30, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 3}
_SCHEMA_SUFFIX = "_tuning"


class StudyStore(Protocol):
    """A database of studies."""

    shared: bool
    """Whether several workers may take trials of one study."""

    def storage(self) -> optuna.storages.BaseStorage:
        """Optuna's view of it; creates its tables if they do not exist."""
        ...

    def lease(self, study: str) -> AbstractContextManager[int]:
        """A worker's number, never given twice; its lease ends with the block or with the process."""
        ...

    def is_alive(self, study: str, worker: int) -> bool:
        """Whether a worker still holds its lease; call it only within `exclusive`."""
        ...

    def exclusive(self, study: str) -> AbstractContextManager[None]:
        """One process at a time for a study."""
        ...


def study_store(settings: Settings) -> StudyStore:
    """The configured store.

    Raises
    ------
    ConfigError
        The address is not a database URL, or names a database that is neither SQLite nor PostgreSQL.
    """
    configured = settings.tuning.storage_url
    for name, address in (("tuning.storage_url", configured), ("state_url", settings.state_url)):
        backend = _backend(name, address)
        if backend == "postgresql":
            return PostgresqlStudies(make_url(address), own_schema=not configured)
        if configured:
            break
    path = Path(make_url(configured).database or "") if configured else settings.tuning_dir / "studies.db"
    return SqliteStudies(path)


def _backend(name: str, address: str) -> str:
    if not address:
        return "sqlite"
    try:
        backend = make_url(address).get_backend_name()
    except ArgumentError:
        # SQLAlchemy's message quotes the address, which may hold a password.
        withheld = address if address.startswith("withheld") else "not a database URL"
        raise ConfigError(f"{name}: {withheld}; e.g. sqlite:////path/studies.db") from None
    if backend not in ("sqlite", "postgresql"):
        raise ConfigError(f"{name}: studies are kept in SQLite or PostgreSQL, not in {backend}")
    return backend


class SqliteStudies:
    """A file; one worker at a time."""

    shared = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def storage(self) -> optuna.storages.BaseStorage:
        """As in `StudyStore`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _file_lock(self._lock("tables"), wait=True):
            return _opened(f"sqlite:///{self.path}", {"connect_args": {"timeout": 60}})

    @contextmanager
    def lease(self, study: str) -> Iterator[int]:
        """As in `StudyStore`; StoreError when another worker has it."""
        try:
            with _file_lock(self._lock(study), wait=False):
                self._worker = secrets.randbits(31)
                yield self._worker
        except BlockingIOError:
            raise StoreError(
                f"study {study} has a worker already, and SQLite supports only one; wait for it, or set "
                "tuning.storage_url to a PostgreSQL database"
            ) from None

    def is_alive(self, study: str, worker: int) -> bool:
        """Only the worker that holds the lease can ask, so no other is alive."""
        return worker == self._worker

    def exclusive(self, study: str) -> AbstractContextManager[None]:
        """The lease is exclusive already."""
        return nullcontext()

    def _lock(self, study: str) -> Path:
        return self.path.with_name(f"{self.path.stem}.{study}.lock")


class PostgresqlStudies:
    """A database; any number of workers, on any number of machines."""

    shared = True

    def __init__(self, url: URL, *, own_schema: bool) -> None:
        self.url = url
        if own_schema:
            with self._connection() as connection:
                current = connection.scalar(text("SELECT current_schema()"))
                schema = f"{current}{_SCHEMA_SUFFIX}"
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _key(schema)})
                connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
            self.url = url.update_query_dict({"options": f"-csearch_path={schema}"})

    def storage(self) -> optuna.storages.BaseStorage:
        """As in `StudyStore`."""
        with self.exclusive("tables"):
            address = self.url.render_as_string(hide_password=False)
            return _opened(address, {"pool_pre_ping": True})

    @contextmanager
    def lease(self, study: str) -> Iterator[int]:
        """As in `StudyStore`."""
        worker = secrets.randbits(31)
        with self._connection() as connection:
            for name, value in _KEEPALIVE.items():
                connection.execute(text(f"SET {name} = {value}"))
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": self._lease_key(study, worker)})
            yield worker

    def is_alive(self, study: str, worker: int) -> bool:
        """As in `StudyStore`."""
        with self._connection() as connection:
            key = {"key": self._lease_key(study, worker)}
            return not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), key)

    @contextmanager
    def exclusive(self, study: str) -> Iterator[None]:
        """As in `StudyStore`."""
        with self._connection() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _key(f"{self.url.query} {study}")})
            yield

    def _lease_key(self, study: str, worker: int) -> int:
        return _key(f"{self.url.query} {study} {worker}")

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection of its own without a transaction; its locks are freed when it closes."""
        engine = create_engine(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        try:
            connection = engine.connect()
        except OperationalError as error:
            shown, reason = self.url.render_as_string(), str(error.orig).strip().splitlines()[0]
            raise StoreError(f"study database {shown} does not answer: {reason}; start it or correct it") from None
        with connection:
            yield connection


def _opened(address: str, engine: dict[str, object]) -> optuna.storages.BaseStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.RDBStorage(address, engine_kwargs=engine)


@contextmanager
def _file_lock(path: Path, *, wait: bool) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _key(name: str) -> int:
    """Key of a PostgreSQL advisory lock, a signed 64-bit integer."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
