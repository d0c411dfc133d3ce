"""Alerts become episodes: their events, what was told of them to whom, silences. Append-only."""

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from alembic import op

from mlops_tasks.state.migrations.append_only import refuse_changes

revision = "0009"
down_revision = "0008"

TABLES = ("alert_event", "alert_delivery", "alert_silence")
_ALERTS = sa.table(
    "alert",
    sa.column("id", sa.Integer),
    sa.column("content_digest", sa.String),
    sa.column("recorded_at", sa.DateTime(timezone=True)),
    sa.column("kind", sa.String),
    sa.column("subject", sa.String),
    sa.column("message", sa.Text),
)


def upgrade() -> None:
    """Create the tables, and make each alert an episode that is over and was told: `alert` goes."""
    _create_tables()
    events = sa.table("alert_event", *[sa.column(each.name, each.type) for each in _event_columns()], *_common())
    rows = list(_events(op.get_bind().execute(sa.select(_ALERTS).order_by(_ALERTS.c.id)).mappings()))
    if rows:
        op.bulk_insert(events, rows)
    for table in TABLES:
        refuse_changes(table)
    op.drop_table("alert")


def downgrade() -> None:
    """Put back `alert`, with one row for each that people were told as new."""
    _create(
        "alert",
        sa.Column("kind", sa.String(), nullable=False, index=True),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.UniqueConstraint("kind", "subject", "content_digest", name="uq_alert"),
    )
    op.execute(
        "INSERT INTO alert (content_digest, recorded_at, kind, subject, message) "
        "SELECT token, recorded_at, kind, subject, message FROM alert_event "
        "WHERE step IN ('opened', 'updated') ORDER BY id"
    )
    refuse_changes("alert")
    for table in reversed(TABLES):
        op.drop_table(table)


def _events(alerts: Iterable[Any]) -> Iterable[dict[str, Any]]:
    """Two events for each alert: `opened` and `resolved`."""
    episodes: dict[tuple[str, str], int] = {}
    for alert in alerts:
        key = alert["kind"], alert["subject"]
        episodes[key] = episodes.get(key, 0) + 1
        for offset, step in ((1, "opened"), (2, "resolved")):
            yield {
                "content_digest": alert["content_digest"],
                "recorded_at": alert["recorded_at"],
                "kind": alert["kind"],
                "subject": alert["subject"],
                "sequence": 2 * (episodes[key] - 1) + offset,
                "episode": episodes[key],
                "step": step,
                "severity": "warning",
                "message": alert["message"],
                "by": "",
                "tell": step == "opened",
                "sinks": "",
                "token": uuid4().hex,
                "at": alert["recorded_at"],
            }


def _common() -> list[Any]:
    return [sa.column("content_digest", sa.String), sa.column("recorded_at", sa.DateTime(timezone=True))]


def _event_columns() -> list["sa.Column[Any]"]:
    return [
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("episode", sa.Integer(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("tell", sa.Boolean(), nullable=False),
        sa.Column("sinks", sa.String(), nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, index=True),
    ]


def _create_tables() -> None:
    _create(
        "alert_event",
        *_event_columns(),
        sa.UniqueConstraint("kind", "subject", "sequence", name="uq_alert_event"),
        sa.UniqueConstraint("token", name="uq_alert_event_token"),
    )
    _create(
        "alert_delivery",
        sa.Column("event_id", sa.Integer(), nullable=False),
        sa.Column("sink", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("event_id", "sink", "attempt", "outcome", name="uq_alert_delivery"),
    )
    _create(
        "alert_silence",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )


def _create(name: str, *parts: "sa.Column[Any] | sa.UniqueConstraint") -> None:
    op.create_table(
        name,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        *parts,
        sa.PrimaryKeyConstraint("id", name=f"pk_{name}"),
    )
