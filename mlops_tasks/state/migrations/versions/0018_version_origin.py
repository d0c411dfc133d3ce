"""What registered versions were made of, to be searched: their origin, the files of vintages, the inputs of factors."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Create the tables; they are filled from MLflow by who needs them."""
    op.create_table(
        "version_origin",
        sa.Column("version", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("training_key", sa.String(), nullable=False),
        sa.Column("data_version", sa.String(), nullable=False, index=True),
        sa.Column("feature_version", sa.String(), nullable=False),
        sa.Column("definition", sa.String(), nullable=False, index=True),
        sa.Column("code", sa.String(), nullable=False, index=True),
        sa.Column("dirty", sa.Boolean(), nullable=True),
        sa.Column("lock", sa.String(64), nullable=False, index=True),
        sa.Column("horizon", sa.Integer(), nullable=False),
        sa.Column("segments", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_version_origin"),
    )
    op.create_table(
        "vintage_input",
        sa.Column("data_version", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, index=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("data_version", "sha256", name="pk_vintage_input"),
    )
    op.create_table(
        "factor_input",
        sa.Column("definition", sa.String(), nullable=False),
        sa.Column("factor", sa.String(), nullable=False, index=True),
        sa.Column("field", sa.String(), nullable=False),
        sa.Column("instrument", sa.String(), nullable=False),
        sa.Column("rows_back", sa.Integer(), nullable=False),
        sa.Column("expression", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("definition", "factor", "field", "instrument", name="pk_factor_input"),
    )


def downgrade() -> None:
    """Remove them; MLflow has what they say."""
    for table in ("factor_input", "vintage_input", "version_origin"):
        op.drop_table(table)
