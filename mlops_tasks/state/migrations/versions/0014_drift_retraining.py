"""Retrainings for which drift has asked, append-only; and what the drift of a report has at stake."""

import sqlalchemy as sa
from alembic import op

from mlops_tasks.state.migrations.append_only import refuse_changes

revision = "0014"
down_revision = "0013"

TABLE = "drift_retraining"


def upgrade() -> None:
    """Create the table, and add the column; nobody changes or removes a row of either table."""
    op.add_column("drift_report", sa.Column("at_stake", sa.Float(), nullable=True))
    op.create_table(
        TABLE,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("step", sa.String(16), nullable=False),
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("data_version", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("form", sa.JSON(), nullable=False),
        sa.UniqueConstraint("run_id", "step", name=f"uq_{TABLE}"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{TABLE}"),
    )
    refuse_changes(TABLE)


def downgrade() -> None:
    """Remove both: drift may ask once more for what it has asked for."""
    op.drop_table(TABLE)
    op.drop_column("drift_report", "at_stake")
