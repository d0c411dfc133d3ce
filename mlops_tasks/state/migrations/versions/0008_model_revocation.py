"""Why a model may serve no longer, and which bytes a deployment has put into service. Append-only."""

import sqlalchemy as sa
from alembic import op

from mlops_tasks.state.migrations.append_only import refuse_changes

revision = "0008"
down_revision = "0007"

TABLE = "model_revocation"


def upgrade() -> None:
    """Create the table and the triggers that keep its rows; add the columns in place, as 0005 does."""
    op.create_table(
        TABLE,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("training_key", sa.String(), nullable=False),
        sa.Column("artefact_digest", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("basis", sa.String(), nullable=False),
        sa.Column("revoked_by", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_revocation"),
        sa.UniqueConstraint("training_key", "artefact_digest", "number", name="uq_model_revocation"),
    )
    op.add_column("model_approval", sa.Column("revocations", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("deployment", sa.Column("artefact_digest", sa.String(64), nullable=False, server_default=""))
    refuse_changes(TABLE)


def downgrade() -> None:
    """Drop what `upgrade` made."""
    op.drop_column("deployment", "artefact_digest")
    op.drop_column("model_approval", "revocations")
    op.drop_table(TABLE)
