"""The record of experiments: their layers and their steps."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.looks import LookRows, locked_look_rows
from mlops_tasks.state.rows import content_digest, lock_table, record_row
from mlops_tasks.state.tables import ExperimentAnalysis, ExperimentLayer, ExperimentStep

Layers = Mapping[str, ExperimentLayer]
Steps = Mapping[str, ExperimentStep]
"""The newest row of each name."""
Row = TypeVar("Row", ExperimentLayer, ExperimentStep)


def newest(settings: Settings) -> tuple[Layers, Steps]:
    """All layers and experiments as they stand."""
    with reading(settings) as active:
        return _newest(active)


def steps_of(settings: Settings, experiment: str) -> list[ExperimentStep]:
    """The steps of an experiment, in order; none if there is no such experiment."""
    query = select(ExperimentStep).where(ExperimentStep.experiment == experiment).order_by(ExperimentStep.sequence)
    with reading(settings) as active:
        return list(active.scalars(query))


def add_row(settings: Settings, decide: Callable[[Layers, Steps], Row]) -> Row:
    """Let `decide` see how all stand and make the next row; record that in the same exclusive transaction.

    An error that `decide` raises is passed on, and nothing is recorded.
    """
    return add_rows(settings, lambda layers, steps: [decide(layers, steps)])[0]


def add_rows(settings: Settings, decide: Callable[[Layers, Steps], Sequence[Row]]) -> Sequence[Row]:
    """`add_row` for several rows: all of them are recorded, or none."""
    with session(settings) as active:
        lock_table(active, ExperimentStep.__tablename__)
        return [_add(active, row) for row in decide(*_newest(active))]


def add_start(settings: Settings, decide: Callable[[Steps, LookRows], ExperimentStep]) -> ExperimentStep:
    """`add_row` for a step that may reserve a look: `decide` sees all looks, and nobody else takes one meanwhile."""
    with session(settings) as active:
        looks = locked_look_rows(active)
        return _add(active, decide(_newest(active)[1], looks))


def record_analysis(settings: Settings, row: ExperimentAnalysis) -> bool:
    """Record an analysis; False if an equal one of the same experiment is there."""
    return record_row(settings, row)


def analyses_of(settings: Settings, experiment: str) -> list[ExperimentAnalysis]:
    """The analyses of an experiment, in the order in which they were made."""
    query = select(ExperimentAnalysis).where(ExperimentAnalysis.experiment == experiment)
    with reading(settings) as active:
        return list(active.scalars(query.order_by(ExperimentAnalysis.id)))


def latest_analysis(settings: Settings, experiment: str) -> ExperimentAnalysis | None:
    """The newest analysis of an experiment; None before the first."""
    query = select(ExperimentAnalysis).where(ExperimentAnalysis.experiment == experiment)
    with reading(settings) as active:
        return active.scalars(query.order_by(ExperimentAnalysis.id.desc()).limit(1)).first()


def _add(active: Session, row: Row) -> Row:
    row.content_digest = content_digest(row)
    active.add(row)
    return row


def _newest(active: Session) -> tuple[Layers, Steps]:
    layers = active.scalars(select(ExperimentLayer).order_by(ExperimentLayer.id))
    steps = active.scalars(select(ExperimentStep).order_by(ExperimentStep.id))
    return {row.name: row for row in layers}, {row.experiment: row for row in steps}
