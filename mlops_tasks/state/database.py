"""Engine, sessions and upgrades of the operational database: SQLite by default, PostgreSQL by `state_url`."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, StoreError
from mlops_tasks.files import folder_lock

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
_REVISION_TABLE = "alembic_version"
"""Alembic's own table, of one row."""
_UPGRADE_LOCK = 4_203_118_271
"""Key of PostgreSQL's advisory lock around an upgrade; any fixed number of our own."""
_SETTLED_NS = 200_000_000
"""Age of a write after which a next one has another time: file systems count in ticks of some milliseconds."""
FileStates = tuple[tuple[int, int, int], ...]
"""Identity, size and time of the last write (ns) of each file."""
_BUSY_TIMEOUT_S = 120
"""How long a writer of SQLite waits for the others. They do not queue: on a loaded machine one of sixteen was passed
over for 30 s."""


class _Patience:
    """How long this process's own writers wait, in seconds."""

    seconds: float = _BUSY_TIMEOUT_S


def wait_at_most(seconds: float) -> None:
    """Let writers of this process wait no longer for others: where a person waits for an answer, say."""
    _Patience.seconds = seconds


@contextmanager
def session(settings: Settings) -> Iterator[Session]:
    """A session in one transaction: committed when the block ends, rolled back on an error.

    The database is created or upgraded first if it is not at the newest migration. On SQLite the transaction is
    immediate, so that a read followed by a write cannot be overtaken.

    Raises
    ------
    ConfigError, StoreError
        The URL is not a database URL, or nothing answers there.
    """
    _upgrade_once(settings)
    with Session(engine(settings.state_database), expire_on_commit=False) as active, active.begin():
        yield active


@contextmanager
def reading(settings: Settings) -> Iterator[Session]:
    """A session for queries only; it waits for no writer. Errors as for `session`."""
    _upgrade_once(settings)
    with Session(_readers(settings.state_database), expire_on_commit=False) as active, active.begin():
        yield active


@contextmanager
def querying(settings: Settings) -> Iterator[Connection]:
    """As `reading`, for plain statements that are made often: without a session they take half the time."""
    _upgrade_once(settings)
    with _readers(settings.state_database).connect() as connection, connection.begin():
        yield connection


def upgrade(settings: Settings) -> str:
    """Upgrade the database to the newest migration and return its revision; harmless if it is up to date.

    Several processes may call it at once: a lock (a file lock for SQLite, an advisory lock for PostgreSQL) lets one
    migrate, in one transaction, while the others wait. Errors as for `session`.
    """
    with _upgrade_lock(settings), connected(settings) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        before = current_revision(connection)
        if before != newest_revision():
            _run_migrations(connection)
            log.info("state database: revision %s -> %s", before, newest_revision())
    return newest_revision()


def current_revision(connection: Connection) -> str | None:
    """The revision of the database; None if it is empty."""
    if not inspect(connection).has_table(_REVISION_TABLE):
        return None
    revision: str | None = connection.scalar(text(f"SELECT version_num FROM {_REVISION_TABLE}"))  # noqa: S608
    return revision


@lru_cache(maxsize=1)
def newest_revision() -> str:
    """The newest revision among the package's migrations, whose file names begin with it.

    It is read from the names, so that Alembic is imported only if there is something to migrate.
    """
    return max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


@lru_cache(maxsize=8)
def engine(url: str) -> Engine:
    """The engine for a database URL, one per process; connections are not pooled, so that a fork shares none.

    Its errors contain no values of rows.

    Raises
    ------
    ConfigError
        `url` cannot be parsed.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        # SQLAlchemy's message quotes the URL, which may contain a password.
        withheld = url if url.startswith("withheld") else "not a database URL"
        raise ConfigError(f"state_url: {withheld}; e.g. sqlite:///path/state.db") from None
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, poolclass=NullPool, hide_parameters=True)
    made = create_engine(parsed, poolclass=NullPool, hide_parameters=True, connect_args={"timeout": _BUSY_TIMEOUT_S})
    event.listen(made, "connect", _configure_sqlite)
    event.listen(made, "begin", _begin_sqlite)
    return made


@lru_cache(maxsize=8)
def _readers(url: str) -> Engine:
    return engine(url).execution_options(reads_only=True)


def _configure_sqlite(connection: Any, record: object) -> None:
    # The driver's own transactions begin too late, and never before DDL; ours are explicit.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", f"busy_timeout={round(_Patience.seconds * 1000)}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


_upgraded: set[str] = set()


def _upgrade_once(settings: Settings) -> None:
    """Upgrade unless this process has done so and the database file still exists."""
    url = settings.state_database
    file = sqlite_file(url)
    if url not in _upgraded or (file is not None and not file.exists()):
        upgrade(settings)
        _upgraded.add(url)


@lru_cache(maxsize=8)
def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite URL; None for other databases and for one in memory."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return None
    return Path(str(parsed.database))


@contextmanager
def _upgrade_lock(settings: Settings) -> Iterator[None]:
    engine(settings.state_database)  # refuses an invalid URL
    file = sqlite_file(settings.state_database)
    if file is None:
        yield
        return
    with folder_lock(file.parent):
        yield


def settled_files(url: str) -> FileStates | None:
    """What the files of a SQLite database look like: equal ones, taken at two times, say that nothing was written.

    None: another kind of database, or the last write is so new that the clock of the file system may hide a next one.
    """
    file = sqlite_file(url)
    if file is None:
        return None
    found = tuple(_file_state(path) for path in (file, file.with_name(f"{file.name}-wal")))
    return None if max(each[-1] for each in found) > time.time_ns() - _SETTLED_NS else found


def _file_state(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


def database_bytes(settings: Settings) -> int:
    """Disk space that the database uses, in bytes. Errors as for `session`."""
    with reading(settings) as active:
        if active.get_bind().dialect.name == "postgresql":
            return int(active.scalars(text("SELECT pg_database_size(current_database())")).one())
        pages = (active.scalars(text(f"PRAGMA {name}")).one() for name in ("page_count", "page_size"))
        return math.prod(map(int, pages))


def reason_of(error: Exception) -> str:
    """The class and first line of an error, of the driver's own if there is one, for a log."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return ": ".join((type(error).__name__, *lines[:1]))


@contextmanager
def connected(settings: Settings) -> Iterator[Connection]:
    """A separate connection. Errors as for `session`."""
    target = engine(settings.state_database)
    try:
        connection = target.connect()
    except OperationalError as error:
        shown = target.url.render_as_string(hide_password=True)
        reason = str(error.orig).strip().splitlines()[0]
        raise StoreError(f"state database {shown} does not answer: {reason}; start it or correct state_url") from None
    with connection:
        yield connection


def _alembic_config() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _run_migrations(connection: Connection) -> None:
    from alembic import command

    config = _alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
