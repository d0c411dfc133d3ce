"""Keys of the scoring service's clients, and what ended them. Append-only."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from mlops_tasks.state.migrations.append_only import refuse_changes

revision = "0011"
down_revision = "0010"

TABLES = ("scoring_key", "scoring_key_revocation")


def upgrade() -> None:
    """Create the two tables; nobody changes or removes a row of them."""
    _create(
        "scoring_key",
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("secret_digest", sa.String(64), nullable=False),
        sa.Column("scopes", sa.String(), nullable=False),
        sa.Column("requests_per_minute", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("made_by", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("key_id", name="uq_scoring_key"),
    )
    _create(
        "scoring_key_revocation",
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("revoked_by", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("key_id", name="uq_scoring_key_revocation"),
    )
    for table in TABLES:
        refuse_changes(table)


def downgrade() -> None:
    """Remove the keys: the token alone opens the service."""
    for table in reversed(TABLES):
        op.drop_table(table)


def _create(name: str, *parts: Any) -> None:
    op.create_table(
        name,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        *parts,
        sa.PrimaryKeyConstraint("id", name=f"pk_{name}"),
    )
