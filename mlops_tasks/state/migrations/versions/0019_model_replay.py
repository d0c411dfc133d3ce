"""Replays of registered versions, append-only."""

import sqlalchemy as sa
from alembic import op

from mlops_tasks.state.migrations.append_only import refuse_changes

revision = "0019"
down_revision = "0018"

TABLE = "model_replay"


def upgrade() -> None:
    """Create the table; nobody changes or removes a replay."""
    op.create_table(
        TABLE,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False, index=True),
        sa.Column("training_key", sa.String(64), nullable=False),
        sa.Column("verdict", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=f"pk_{TABLE}"),
    )
    refuse_changes(TABLE)


def downgrade() -> None:
    """Remove what replays have found."""
    op.drop_table(TABLE)
