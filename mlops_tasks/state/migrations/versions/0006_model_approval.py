"""Why a model may serve. Append-only."""

import sqlalchemy as sa
from alembic import op

from mlops_tasks.state.migrations.append_only import refuse_changes

revision = "0006"
down_revision = "0005"

TABLE = "model_approval"


def upgrade() -> None:
    """Create the table and the triggers that keep its rows as they are."""
    op.create_table(
        TABLE,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("training_key", sa.String(), nullable=False),
        sa.Column("artefact_digest", sa.String(64), nullable=False),
        sa.Column("basis", sa.String(), nullable=False),
        sa.Column("approved_by", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("certificate", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_approval"),
        sa.UniqueConstraint("training_key", "artefact_digest", "content_digest", name="uq_model_approval"),
    )
    refuse_changes(TABLE)


def downgrade() -> None:
    """Drop what `upgrade` made."""
    op.drop_table(TABLE)
