"""The look of the gate that an experiment with models has reserved, in each step from its start on."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Add the column; experiments that have begun before have reserved nothing."""
    op.add_column("experiment_step", sa.Column("look", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Forget the reservations."""
    op.drop_column("experiment_step", "look")
