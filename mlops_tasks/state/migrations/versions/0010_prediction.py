"""The log of what the scoring service has answered: `prediction`, and the scores that its rows refer to.

Rows are never changed; those that are older than `predictions.kept_days` are removed, and nothing else is.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the two tables; nobody changes a row of them."""
    op.create_table(
        "prediction",
        sa.Column("id", BIG, nullable=False),
        sa.Column("writer", sa.String(16), nullable=False),
        sa.Column("sequence", BIG, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, index=True),
        sa.Column("request_id", sa.String(64), nullable=False, index=True),
        sa.Column("key_name", sa.String(64), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("training_key", sa.String(64), nullable=False),
        sa.Column("slot", sa.String(16), nullable=False),
        sa.Column("arm", sa.String(32), nullable=False),
        sa.Column("date", sa.Date(), nullable=True),
        sa.Column("data_version", sa.String(64), nullable=False),
        sa.Column("feature_version", sa.String(64), nullable=False),
        sa.Column("scores", sa.String(32), nullable=False, index=True),
        sa.Column("chosen", sa.LargeBinary(), nullable=True),
        sa.Column("instruments", sa.Integer(), nullable=False),
        sa.Column("missing", sa.Integer(), nullable=False),
        sa.Column("latency_ms", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_prediction"),
        sa.UniqueConstraint("writer", "sequence", name="uq_prediction"),
    )
    op.create_index("ix_prediction_date", "prediction", ["date", "model_version", "arm"])
    op.create_table(
        "prediction_scores",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(32), nullable=False),
        sa.Column("instruments", sa.Text(), nullable=False),
        sa.Column("scores", sa.LargeBinary(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_prediction_scores"),
        sa.UniqueConstraint("digest", name="uq_prediction_scores"),
    )
    for table in ("prediction", "prediction_scores"):
        _refuse_updates(table)


def downgrade() -> None:
    """Remove the log."""
    op.drop_table("prediction_scores")
    op.drop_table("prediction")


def _refuse_updates(table: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"CREATE TRIGGER no_update BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_change()")
        return
    op.execute(
        f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    )
