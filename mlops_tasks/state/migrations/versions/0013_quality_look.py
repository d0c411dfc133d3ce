"""Looks at the rank ICs of candidates and new champions. Append-only."""

import sqlalchemy as sa
from alembic import op

from mlops_tasks.state.migrations.append_only import refuse_changes

revision = "0013"
down_revision = "0012"

TABLE = "quality_look"


def upgrade() -> None:
    """Create the table; nobody changes or removes a row of it."""
    op.create_table(
        TABLE,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("subject", sa.String(32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("rival_version", sa.Integer(), nullable=False),
        sa.Column("data_version", sa.String(), nullable=False),
        sa.Column("worse", sa.Boolean(), nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.UniqueConstraint("subject", "number", name="uq_quality_look"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{TABLE}"),
    )
    refuse_changes(TABLE)


def downgrade() -> None:
    """Remove the looks: each is taken once more when it is due."""
    op.drop_table(TABLE)
