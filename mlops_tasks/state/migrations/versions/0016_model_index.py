"""Tags that people give to versions, append-only; and the index that versions are searched in."""

import sqlalchemy as sa
from alembic import op

from mlops_tasks.state.migrations.append_only import refuse_changes

revision = "0016"
down_revision = "0015"

TAGS = "version_tag"


def upgrade() -> None:
    """Create the tables; nobody changes or removes a tag. The index is filled from MLflow by who needs it."""
    op.create_table(
        TAGS,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False, index=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.String(500), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=f"pk_{TAGS}"),
    )
    op.create_table(
        "indexed_version",
        sa.Column("version", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("training_key", sa.String(), nullable=False),
        sa.Column("family", sa.String(), nullable=False, index=True),
        sa.Column("data_version", sa.String(), nullable=False, index=True),
        sa.Column("feature_version", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False, index=True),
        sa.Column("state", sa.String(), nullable=False, index=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_indexed_version"),
    )
    for table, kind in (("indexed_tag", sa.String(500)), ("indexed_metric", sa.Float())):
        op.create_table(
            table,
            sa.Column("version", sa.Integer(), nullable=False, autoincrement=False),
            sa.Column("name", sa.String(), nullable=False),
            sa.Column("value", kind, nullable=False),
            sa.PrimaryKeyConstraint("version", "name", name=f"pk_{table}"),
        )
        op.create_index(f"ix_{table}_name", table, ["name", "value"])
    refuse_changes(TAGS)


def downgrade() -> None:
    """Remove the tags that people have given, and the index."""
    for table in ("indexed_metric", "indexed_tag", "indexed_version", TAGS):
        op.drop_table(table)
