"""Gate decisions, deployments, score batches, drift reports, model comparisons; all append-only."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TABLES = ("gate_decision", "deployment", "score_batch", "drift_report", "model_comparison")


def upgrade() -> None:
    """Create the tables and the triggers that keep their rows as they are."""
    _create_table(
        "gate_decision",
        sa.Column("training_key", sa.String(), nullable=False),
        sa.Column("champion_version", sa.Integer(), nullable=True),
        sa.Column("decision", sa.JSON(), nullable=False),
        sa.Column("model_name", sa.String(), nullable=False),
        sa.Column("data_version", sa.String(), nullable=False),
        sa.Column("champion_key", sa.Integer(), nullable=False),
        sa.UniqueConstraint("training_key", "champion_key", "content_digest", name="uq_gate_decision"),
    )
    _create_table(
        "deployment",
        sa.Column("model_version", sa.Integer(), nullable=False, index=True),
        sa.Column("training_key", sa.String(), nullable=False),
        sa.Column("data_version", sa.String(), nullable=False),
        sa.Column("strategy", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False, index=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    _create_table(
        "score_batch",
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("instruments", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.UniqueConstraint("date", "model_version", "content_digest", name="uq_score_batch"),
    )
    _create_table(
        "drift_report",
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("data_version", sa.String(), nullable=False),
        sa.Column("psi_max", sa.Float(), nullable=True),
        sa.Column("n_warn", sa.Integer(), nullable=False),
        sa.Column("n_alert", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.UniqueConstraint("date", "model_version", "data_version", "content_digest", name="uq_drift_report"),
    )
    _create_table(
        "model_comparison",
        sa.Column("champion_version", sa.Integer(), nullable=False),
        sa.Column("challenger_version", sa.Integer(), nullable=False),
        sa.Column("last_date", sa.Date(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.UniqueConstraint(
            "champion_version", "challenger_version", "last_date", "content_digest", name="uq_model_comparison"
        ),
    )
    _refuse_changes()


def downgrade() -> None:
    """Drop what `upgrade` made."""
    for table in TABLES:
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_change()")


def _create_table(name: str, *parts: sa.Column[object] | sa.UniqueConstraint) -> None:
    op.create_table(
        name,
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        *parts,
        sa.PrimaryKeyConstraint("id", name=f"pk_{name}"),
    )


def _refuse_changes() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
        )
        for table in TABLES:
            op.execute(
                f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
            )
        return
    for table in TABLES:
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
