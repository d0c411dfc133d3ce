"""The index of versions: one document for each, with the number of its last change."""

import json
import secrets
from collections.abc import Mapping
from datetime import UTC
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

INDEX = "indexed_version"
TIME = sa.DateTime(timezone=True)
COPIED = ("training_key", "family", "data_version", "feature_version", "run_id", "description")


def upgrade() -> None:
    """Move what is known of the versions into documents, so that a search before the next registration finds them."""
    rows = _documents()
    for table in ("indexed_metric", "indexed_tag", INDEX):
        op.drop_table(table)
    index = op.create_table(
        INDEX,
        sa.Column("version", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("changed", sa.Integer(), nullable=False, index=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("version", name=f"pk_{INDEX}"),
    )
    revisions = op.create_table(
        "index_revision",
        sa.Column("number", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("token", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_index_revision"),
    )
    if rows:
        op.bulk_insert(index, rows)
    op.bulk_insert(revisions, [{"number": 1, "token": secrets.token_hex(8)}])


def downgrade() -> None:
    """Back to an empty index in three tables; `alphaops models index` fills it."""
    op.drop_table("index_revision")
    op.drop_table(INDEX)
    columns = [sa.Column(name, sa.String(), nullable=False) for name in COPIED[:-1]]
    op.create_table(
        INDEX,
        sa.Column("version", sa.Integer(), nullable=False, autoincrement=False),
        *columns,
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("registered_at", TIME, nullable=False, index=True),
        sa.Column("state", sa.String(), nullable=False, index=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("version", name=f"pk_{INDEX}"),
    )
    for name in ("family", "data_version"):
        op.create_index(op.f(f"ix_{INDEX}_{name}"), INDEX, [name])
    for table, kind in (("indexed_tag", sa.String(500)), ("indexed_metric", sa.Float())):
        op.create_table(
            table,
            sa.Column("version", sa.Integer(), nullable=False, autoincrement=False),
            sa.Column("name", sa.String(), nullable=False),
            sa.Column("value", kind, nullable=False),
            sa.PrimaryKeyConstraint("version", "name", name=f"pk_{table}"),
        )
        op.create_index(f"ix_{table}_name", table, ["name", "value"])


def _documents() -> list[dict[str, Any]]:
    """The rows of the new table."""
    tags, metrics = _by_version("indexed_tag", sa.String()), _by_version("indexed_metric", sa.Float())
    plain = [sa.column(name, sa.String()) for name in (*COPIED, "state")]
    table = sa.table(INDEX, sa.column("version", sa.Integer()), *plain, sa.column("registered_at", TIME))
    return [
        {
            "version": row["version"],
            "changed": 1,
            "state": row["state"],
            "document": _document(row, tags.get(row["version"], {}), metrics.get(row["version"], {})),
        }
        for row in op.get_bind().execute(sa.select(table)).mappings()
    ]


def _document(row: sa.RowMapping, tags: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    plain, at = {name: row[name] for name in COPIED}, row["registered_at"]
    utc = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return json.dumps({**plain, "registered_at": utc.isoformat(), "metrics": metrics, "tags": tags})


def _by_version(name: str, kind: sa.types.TypeEngine[Any]) -> dict[int, dict[str, Any]]:
    number, text = sa.column("version", sa.Integer()), sa.column("name", sa.String())
    table = sa.table(name, number, text, sa.column("value", kind))
    found: dict[int, dict[str, Any]] = {}
    for version, own, value in op.get_bind().execute(sa.select(table).order_by(number, text)):
        found.setdefault(version, {})[own] = value
    return found
