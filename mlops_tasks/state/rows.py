"""How rows are written: with a digest of their content, once, and one writer at a time where their order counts."""

import dataclasses
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.files import digest_of
from mlops_tasks.state.database import session
from mlops_tasks.state.tables import Base

_NOT_CONTENT = {"id", "content_digest", "recorded_at", "at", "champion_key"}


def content_digest(row: Base) -> str:
    """Digest of the columns that the caller gave, except times."""
    values = {f.name: getattr(row, f.name) for f in dataclasses.fields(row) if f.name not in _NOT_CONTENT}
    return digest_of(values, length=64)


def record_row(settings: Settings, row: Base) -> bool:
    """Add a row to any table; False if there is one with its natural key."""
    with session(settings) as active:
        return insert_row(active, row)


def insert_row(active: Session, row: Base) -> bool:
    """`record_row` as part of a transaction."""
    row.content_digest = content_digest(row)
    values = {f.name: getattr(row, f.name) for f in dataclasses.fields(row) if f.name != "id"}
    dialects: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
    insert = dialects[active.get_bind().dialect.name](type(row)).values(values)
    # One statement, so that two processes that record the same fact at once leave one row.
    result: Any = active.execute(insert.on_conflict_do_nothing())
    return bool(result.rowcount)


def record_step(settings: Settings, row: Base) -> bool:
    """Add a row unless the newest row of its table is equal in all but its time."""
    with session(settings) as active:
        return add_step(active, row)


def add_step(active: Session, row: Base) -> bool:
    """`record_step` as part of a transaction."""
    row.content_digest = content_digest(row)
    table = type(row)
    lock_table(active, table.__tablename__)
    newest = active.scalars(select(table).order_by(table.id.desc()).limit(1)).first()
    if newest is not None and newest.content_digest == row.content_digest:
        return False
    active.add(row)
    return True


def lock_table(active: Session, table: str) -> None:
    """Let one writer at a time into a table; SQLite's immediate transaction ensures that already."""
    if active.get_bind().dialect.name == "postgresql":
        active.execute(text(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))
