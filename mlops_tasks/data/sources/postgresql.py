"""A table, view or query of a PostgreSQL database, as a source.

The whole reading is one read-only transaction on one snapshot. Rows come as text through COPY, sorted by instrument,
datetime and the other columns that are read, so that row numbers, order and digest do not depend on how the server
stores them; row n is found again by `ORDER BY instrument::text COLLATE "C", datetime OFFSET n - 1 LIMIT 1`.

A `timestamptz` is read as its day in UTC. For another zone, say so in `query`
(`day AT TIME ZONE 'America/New_York' AS day`).
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import csv

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.config import PostgresqlSource, Settings
from mlops_tasks.data.sources.column_names import map_columns, named_columns
from mlops_tasks.data.sources.derived import derive_fields
from mlops_tasks.data.sources.parsed import ParsedBars, RawFile
from mlops_tasks.data.sources.tables import assemble, not_empty, parse_table
from mlops_tasks.errors import ConfigError, SourceError, SourceNotFoundError, SourceUnavailableError

if TYPE_CHECKING:
    from psycopg2 import extensions
    from psycopg2.sql import Composable

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 10
_REFUSALS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "Connection refused",
    "timeout expired",
    "could not translate host name",
    "No such file or directory",
    "server does not support SSL",
    "does not exist",
)
"""The parts of a failed connection's message that may be shown: the whole could hold parts of a mistyped password."""


_ABOUT_VALUES = ("22", "23", "P0")
"""Classes of SQLSTATE: a value is not what it should be, breaks a constraint, or a function raised an error."""


class DatabaseSource:
    """Bars in a PostgreSQL database.

    Parameters
    ----------
    settings
        `data.prices` and `data.adjusted` say what its columns are, unless `spec` does.
    name
        The source's name in `data.sources`.
    spec
        Table or query, its columns, and which environment variable holds the connection string.
    """

    def __init__(self, settings: Settings, name: str, spec: PostgresqlSource) -> None:
        self.name = name
        self._spec = spec
        self._settings = settings
        self._names = named_columns(name, spec.columns)
        self._origin = f"postgresql:{spec.table or f'query of {name}'}"

    def read(self) -> ParsedBars:
        """Every row; `source_row` is its number in the sorted table, `raw` has the digest of the copied columns.

        Raises
        ------
        ConfigError
            The connection string is not set, or is not one.
        SourceNotFoundError, SourceError
            The server refuses us, the table or a column does not exist, or there are no rows.
        """
        with self._transaction() as connection, tempfile.TemporaryFile() as copied:
            names = map_columns(self._origin, _column_names(connection, self._relation()), self._names)
            digest = _copy(connection, self._statement(names), copied)
            try:
                labels = {standard: column.strip() for standard, column in names.items()}
                part = parse_table(_read_copied(copied, list(names)), labels, self._origin)
            except pa.ArrowException:  # its message quotes the row
                raise SourceError(
                    f"{self._origin}: rule readable_table: the text cannot be parsed; correct it there"
                ) from None
        frame = assemble([not_empty(part)])
        log.info("%s: %s rows of %s", self.name, len(frame), self._origin)
        bars = derive_fields(frame, self._settings, self.name, self._spec)
        return ParsedBars(bars, self.name, raw=(RawFile(self._origin, digest, len(frame)),))

    def _relation(self) -> "Composable":
        """The text after FROM."""
        from psycopg2 import sql

        if self._spec.table is not None:
            return sql.Identifier(*self._spec.table.split("."))
        query = (self._spec.query or "").strip().rstrip(";")
        return sql.SQL("(" + query + "\n) AS bars")

    def _statement(self, names: Mapping[str, str]) -> "Composable":
        from psycopg2 import sql

        others = [
            sql.Identifier(column) for standard, column in names.items() if standard not in (INSTRUMENT, DATETIME)
        ]
        return sql.SQL(
            'COPY (SELECT {columns} FROM {relation} ORDER BY {instrument}::text COLLATE "C", {datetime}, {others}) '
            "TO STDOUT (FORMAT csv)"
        ).format(
            columns=sql.SQL(", ").join(map(sql.Identifier, names.values())),
            relation=self._relation(),
            instrument=sql.Identifier(names[INSTRUMENT]),
            datetime=sql.Identifier(names[DATETIME]),
            others=sql.SQL(", ").join(others),
        )

    @contextmanager
    def _transaction(self) -> "Iterator[extensions.connection]":
        """A read-only transaction on one snapshot, its errors named. It is rolled back, since it changes nothing."""
        import psycopg2
        from psycopg2 import errors

        connection = self._connect()
        try:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            connection.set_client_encoding("UTF8")
            with connection.cursor() as cursor:
                cursor.execute(
                    "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL extra_float_digits = 1"
                )
            yield connection
        except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
            raise SourceNotFoundError(
                f"{self._origin}: rule source_exists: {_said(error)}; correct data.sources.{self.name} (names are "
                "case-sensitive, another schema's table is schema.table)"
            ) from None
        except errors.InsufficientPrivilege as error:
            raise SourceError(
                f"{self._origin}: rule readable_table: {_said(error)}; grant SELECT to the user of "
                f"{self._spec.dsn_variable}"
            ) from None
        except psycopg2.Error as error:
            raise SourceUnavailableError(
                f"{self._origin}: rule readable_table: {_said(error)}; correct data.sources.{self.name}, or run again "
                "if the server was stopped"
            ) from None
        finally:
            connection.close()

    def _connect(self) -> "extensions.connection":
        import psycopg2
        from psycopg2.extensions import parse_dsn

        variable = self._spec.dsn_variable
        remedy = f"set {variable} to postgresql://user:password@host:port/database"
        dsn = os.environ.get(variable, "").replace("postgresql+psycopg2://", "postgresql://", 1)
        if not dsn:
            raise ConfigError(f"data.sources.{self.name}: {variable} is not set; {remedy}")
        try:
            parts = {"connect_timeout": _CONNECT_TIMEOUT_S, "application_name": "mlops_tasks"} | parse_dsn(dsn)
        except psycopg2.ProgrammingError:
            raise ConfigError(f"data.sources.{self.name}: {variable} is not a connection string; {remedy}") from None
        try:
            connection: extensions.connection = psycopg2.connect(**parts)
        except psycopg2.OperationalError as error:
            reason = next((known for known in _REFUSALS if known in str(error)), "no details")
        else:
            return connection
        raise SourceUnavailableError(
            f"{self._origin}: rule readable_table: cannot connect to the server: {reason}; correct user, "
            f"password, host or database in {variable}, or start the server"
        )


def _column_names(connection: "extensions.connection", relation: "Composable") -> list[str]:
    from psycopg2 import sql

    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(relation))
        return [column.name for column in cursor.description or ()]


def _copy(connection: "extensions.connection", statement: "Composable", into: IO[bytes]) -> str:
    """Write the statement's output and return the SHA-256 of it."""
    writer = _Digesting(into)
    with connection.cursor() as cursor:
        cursor.copy_expert(statement, writer)
    return writer.digest.hexdigest()


class _Digesting:
    """A file to write to, which digests what is written."""

    def __init__(self, into: IO[bytes]) -> None:
        self.digest = hashlib.sha256()
        self._into = into

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._into.write(data)


def _read_copied(copied: IO[bytes], columns: Sequence[str]) -> pa.Table:
    """Every cell as text; null where the database has null, so that an empty text stays one."""
    if copied.tell() == 0:
        return pa.table({column: pa.array([], pa.string()) for column in columns})
    copied.seek(0)
    return csv.read_csv(
        copied,
        read_options=csv.ReadOptions(column_names=list(columns)),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types={column: pa.string() for column in columns},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def _said(error: Any) -> str:
    """The server's own words, in one line. They concern the statement, never the connection string.

    Errors about a value quote it, and a function's own may hold anything: of these only the kind is reported.
    """
    if error.pgcode and error.pgcode.startswith(_ABOUT_VALUES):
        return f"{type(error).__name__} ({error.pgcode})"
    words = [error.diag.message_primary or str(error), error.diag.message_hint or ""]
    return " ".join(" ".join(words).split())
