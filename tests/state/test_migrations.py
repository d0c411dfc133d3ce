"""Every migration, down and up again with rows in all tables, on SQLite and on PostgreSQL."""

import itertools
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command

from mlops_tasks.config import Settings
from mlops_tasks.state import database
from tests.postgres import DATABASES, settings_on
from tests.state.migrations import downgrade

REVISIONS = sorted(path.name.partition("_")[0] for path in (database.MIGRATIONS / "versions").glob("[0-9]*.py"))
Rows = dict[str, dict[str, str]]
"""Of each table that has a row, what the columns of its first one hold."""


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """An empty database."""
    (tmp_path / "state").mkdir()
    with settings_on(request.param, tmp_path) as made:
        yield made


def upgrade_to(settings: Settings, revision: str) -> None:
    with database.engine(settings.state_database).connect() as connection, connection.begin():
        config = database._alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def value_of(column: sa.Column[Any]) -> Any:
    """Something that the column takes."""
    kind = column.type
    values: list[tuple[Any, Any]] = [
        (sa.DateTime, datetime(2026, 1, 5, tzinfo=UTC)),
        (sa.Date, date(2026, 1, 5)),
        (sa.JSON, {}),
        (sa.LargeBinary, b"\0"),
        (sa.Boolean, True),
        (sa.Numeric | sa.Float | sa.Integer, 1),
    ]
    return next((value for kinds, value in values if isinstance(kind, kinds)), "x")


def fill(settings: Settings) -> None:
    """A row in every table that has none."""
    with database.engine(settings.state_database).begin() as connection:
        tables = sa.MetaData()
        tables.reflect(connection)
        for table in tables.sorted_tables:
            if table.name != "alembic_version" and not connection.execute(sa.select(table).limit(1)).all():
                connection.execute(table.insert().values({column.name: value_of(column) for column in table.columns}))


def rows(settings: Settings) -> Rows:
    with database.engine(settings.state_database).begin() as connection:
        tables = sa.MetaData()
        tables.reflect(connection)
        found = {table.name: connection.execute(sa.select(table)).mappings().first() for table in tables.sorted_tables}
    found.pop("alembic_version")
    found.pop("index_revision", None)  # a random number each time
    if alert := found.get("alert"):  # made anew from the events of 0009, on the way down
        found["alert"] = {name: value for name, value in alert.items() if name not in ("id", "content_digest")}
    return {name: {key: str(value) for key, value in row.items()} for name, row in found.items() if row is not None}


def common(one: Rows, other: Rows) -> tuple[Rows, Rows]:
    """Both, with the tables and columns that both have."""

    def cut(first: Rows, second: Rows) -> Rows:
        shared = first.keys() & second.keys()
        return {name: {key: first[name][key] for key in first[name].keys() & second[name].keys()} for name in shared}

    return cut(one, other), cut(other, one)


def test_every_migration_keeps_the_rows_both_ways(settings: Settings) -> None:
    """At each revision tables are filled; one step up, down and up again leaves what both revisions have, as it is; in
    the end all the way down and up does."""
    for before, after in itertools.pairwise(REVISIONS):
        upgrade_to(settings, before)
        fill(settings)
        old = rows(settings)
        assert old
        upgrade_to(settings, after)
        new = rows(settings)
        kept, still = common(old, new)
        assert kept == still
        downgrade(settings, before)
        kept, still = common(old, rows(settings))
        lost = old.keys() - kept.keys()  # an index is made anew from MLflow
        assert kept == still and all(name.startswith("indexed_") for name in lost)
    upgrade_to(settings, "head")
    fill(settings)
    full = rows(settings)
    downgrade(settings, REVISIONS[0])
    assert database.upgrade(settings) == REVISIONS[-1]
    first = common(full, rows(settings))
    assert first[0] == first[1] and len(first[0]) >= 3
