"""Layers, steps and analyses of experiments, append-only; metric events with their sums, and refused ones."""

import sqlalchemy as sa
from alembic import op

from mlops_tasks.state.migrations.append_only import refuse_changes

revision = "0020"
down_revision = "0019"

LAYERS, STEPS, ANALYSES = "experiment_layer", "experiment_step", "experiment_analysis"


def upgrade() -> None:
    """Create the tables; nobody changes or removes a layer, a step or an analysis."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    time = sa.DateTime(timezone=True)
    op.create_table(
        LAYERS,
        *_recorded(),
        sa.Column("name", sa.String(64), nullable=False, index=True),
        sa.Column("salt", sa.String(64), nullable=False),
        sa.Column("unit", sa.String(16), nullable=False),
        sa.Column("held_out", sa.String(16), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", time, nullable=False),
        sa.PrimaryKeyConstraint("id", name=f"pk_{LAYERS}"),
    )
    op.create_table(
        STEPS,
        *_recorded(),
        sa.Column("experiment", sa.String(64), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("design", sa.JSON(), nullable=False),
        sa.Column("traffic", sa.JSON(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("winner", sa.String(64), nullable=True),
        sa.Column("at", time, nullable=False),
        sa.UniqueConstraint("experiment", "sequence", name=f"uq_{STEPS}"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{STEPS}"),
    )
    op.create_table(
        ANALYSES,
        *_recorded(),
        sa.Column("experiment", sa.String(64), nullable=False, index=True),
        sa.Column("days", sa.Integer(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("at", time, nullable=False),
        sa.UniqueConstraint("experiment", "content_digest", name=f"uq_{ANALYSES}"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{ANALYSES}"),
    )
    op.create_table(
        "metric_event",
        sa.Column("experiment", sa.String(64), nullable=False),
        sa.Column("event_id", sa.String(64), nullable=False),
        sa.Column("unit", sa.String(128), nullable=False),
        sa.Column("arm", sa.String(64), nullable=False),
        sa.Column("metric", sa.String(64), nullable=False),
        sa.Column("value", number, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("counted", sa.Boolean(), nullable=False),
        sa.Column("at", time, nullable=False),
        sa.Column("received_at", time, nullable=False),
        sa.PrimaryKeyConstraint("experiment", "event_id", name="pk_metric_event"),
    )
    op.create_table(
        "refused_metric_event",
        sa.Column("id", number, nullable=False),
        sa.Column("experiment", sa.String(64), nullable=False, index=True),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("received_at", time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_refused_metric_event"),
    )
    op.create_table(
        "metric_sum",
        sa.Column("experiment", sa.String(64), nullable=False),
        sa.Column("metric", sa.String(64), nullable=False),
        sa.Column("arm", sa.String(64), nullable=False),
        sa.Column("of", sa.String(8), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("n", number, nullable=False),
        sa.Column("total", sa.Text(), nullable=False),
        sa.Column("squares", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "metric", "arm", "of", "name", name="pk_metric_sum"),
    )
    for table in (LAYERS, STEPS, ANALYSES):
        refuse_changes(table)


def downgrade() -> None:
    """Remove the experiments and all that they have measured."""
    for table in ("metric_sum", "refused_metric_event", "metric_event", ANALYSES, STEPS, LAYERS):
        op.drop_table(table)


def _recorded() -> list[sa.Column[object]]:
    return [
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
    ]
