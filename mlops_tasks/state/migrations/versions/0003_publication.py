"""Publications: which vintage was in use when; append-only."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table and the triggers that keep its rows as they are."""
    op.create_table(
        "publication",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data_version", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, index=True),
        sa.PrimaryKeyConstraint("id", name="pk_publication"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON publication "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER publication_no_{change.lower()} BEFORE {change} ON publication "
            "BEGIN SELECT RAISE(ABORT, 'publication is append-only'); END"
        )


def downgrade() -> None:
    """Drop what `upgrade` made."""
    op.drop_table("publication")
