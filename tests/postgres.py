"""The databases that tests use: SQLite, and the PostgreSQL server."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mlops_tasks.config import Settings

DATABASES = ("sqlite", "postgresql")


@contextmanager
def settings_on(database: str, home: Path, **changes: Any) -> Iterator[Settings]:
    """Settings of an empty state database of its own, on one of `DATABASES`."""
    if database == "sqlite":
        yield Settings(home=home, **changes)
        return
    with postgres_schema() as address:
        yield Settings(home=home, state_url=address, **changes)


@contextmanager
def postgres_schema() -> Iterator[str]:
    """SQLAlchemy address of an empty schema of the configured server, or of a local one that lets us in; it is dropped
    at the end. Without a server the test is skipped."""
    url = _reachable()
    schema = f"mlops_{uuid.uuid4().hex[:12]}"
    admin = sa.create_engine(url, poolclass=sa.NullPool)
    with admin.begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema))
    joiner = "&" if "?" in url else "?"
    yield f"{url}{joiner}options=-csearch_path%3D{schema}"
    with admin.begin() as connection:
        connection.execute(sa.schema.DropSchema(schema, cascade=True))


def _reachable() -> str:
    configured = os.environ.get("MLOPS_TEST_POSTGRES")
    url = configured or "postgresql+psycopg2://postgres@127.0.0.1:5432/test"
    try:
        with sa.create_engine(url, connect_args={"connect_timeout": 2}).connect():
            return url
    except sa.exc.OperationalError:
        if configured:
            raise
    return pytest.skip("no PostgreSQL server answers; set MLOPS_TEST_POSTGRES")
