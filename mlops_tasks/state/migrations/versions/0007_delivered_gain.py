"""What a promotion has brought since. Append-only."""

import sqlalchemy as sa
from alembic import op

from mlops_tasks.state.migrations.append_only import refuse_changes

revision = "0007"
down_revision = "0006"

TABLE = "delivered_gain"


def upgrade() -> None:
    """Create the table and the triggers that keep its rows as they are."""
    op.create_table(
        TABLE,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("rival_version", sa.Integer(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("since", sa.Date(), nullable=False),
        sa.Column("last_date", sa.Date(), nullable=False),
        sa.Column("promised", sa.Float(), nullable=False),
        sa.Column("delivered", sa.Float(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_delivered_gain"),
        sa.UniqueConstraint("model_version", "rival_version", "last_date", "content_digest", name="uq_delivered_gain"),
    )
    refuse_changes(TABLE)


def downgrade() -> None:
    """Drop what `upgrade` made."""
    op.drop_table(TABLE)
