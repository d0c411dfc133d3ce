"""Rollouts of candidates, step by step. Append-only."""

import sqlalchemy as sa
from alembic import op

from mlops_tasks.state.migrations.append_only import refuse_changes

revision = "0012"
down_revision = "0011"

TABLE = "rollout_step"


def upgrade() -> None:
    """Create the table; nobody changes or removes a row of it."""
    op.create_table(
        TABLE,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("rollout_id", sa.String(16), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("training_key", sa.String(), nullable=False),
        sa.Column("artefact_digest", sa.String(64), nullable=False),
        sa.Column("strategy", sa.String(), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("champion_version", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.String(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("rollout_id", "sequence", name="uq_rollout_step"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{TABLE}"),
    )
    op.create_index(op.f("ix_rollout_step_model_version"), TABLE, ["model_version"])
    refuse_changes(TABLE)


def downgrade() -> None:
    """Remove the rollouts: what is under way ends undecided."""
    op.drop_table(TABLE)
