"""The rows that tell which of the gate's looks were taken and reserved: its decisions, and experiments with models."""

from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.state.database import reading
from mlops_tasks.state.rows import lock_table
from mlops_tasks.state.tables import ExperimentStep, GateDecision


class LookRows(NamedTuple):
    """In the order in which they were recorded."""

    decisions: list[GateDecision]
    """That took a look."""
    steps: list[ExperimentStep]
    """The newest one of each experiment that has reserved a look."""


def look_rows(settings: Settings) -> LookRows:
    """All looks as they stand."""
    with reading(settings) as active:
        return _look_rows(active)


def locked_look_rows(active: Session) -> LookRows:
    """`look_rows` as part of a transaction: until it ends, nobody else takes or reserves a look."""
    for table in (GateDecision, ExperimentStep):
        lock_table(active, table.__tablename__)
    return _look_rows(active)


def _look_rows(active: Session) -> LookRows:
    decisions = active.scalars(select(GateDecision).order_by(GateDecision.id))
    newest = select(func.max(ExperimentStep.id)).group_by(ExperimentStep.experiment)
    steps = select(ExperimentStep).where(ExperimentStep.id.in_(newest), ExperimentStep.look.is_not(None))
    return LookRows(
        [row for row in decisions if row.decision.get("look")],
        list(active.scalars(steps.order_by(ExperimentStep.id))),
    )
