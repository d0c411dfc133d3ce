"""Deployments: which version was proven before, and which steps belong together."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns in place: a copied table would lose the triggers that keep its rows as they are."""
    op.add_column("deployment", sa.Column("proven_version", sa.Integer(), nullable=True))
    op.add_column("deployment", sa.Column("attempt", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    """Drop what `upgrade` made."""
    for column in ("attempt", "proven_version"):
        op.drop_column("deployment", column)
