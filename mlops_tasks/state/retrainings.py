"""Retrainings for which drift has asked: each is recorded before Airflow is told, and when its run has begun."""

from datetime import date

from sqlalchemy import select

from mlops_tasks.config import Settings
from mlops_tasks.dag_run import DRIFT_RUN
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.rows import insert_row, lock_table, record_row
from mlops_tasks.state.tables import DriftRetraining
from mlops_tasks.states import RetrainingStep


def run_id_of(day: date, version: int) -> str:
    """Identifier of the run for drift of a version up to a market day; Airflow refuses a second run of that name."""
    return f"{DRIFT_RUN}{day}__v{version}"


def ask_for_retraining(settings: Settings, row: DriftRetraining, since: date) -> bool:
    """Record that a retraining is asked for; False if one was for drift of `since` or a later day.

    Two processes that ask at once leave one row.
    """
    with session(settings) as active:
        lock_table(active, DriftRetraining.__tablename__)
        query = select(DriftRetraining.id).where(DriftRetraining.date >= since).limit(1)
        return active.scalar(query) is None and insert_row(active, row)


def retraining_to_start(settings: Settings, since: date) -> DriftRetraining | None:
    """The newest retraining that was asked for, for drift of `since` or a later day, unless its run has begun."""
    query = select(DriftRetraining).where(DriftRetraining.date >= since).order_by(DriftRetraining.id.desc())
    with reading(settings) as active:
        rows = list(active.scalars(query))
    asked = next((row for row in rows if row.step == RetrainingStep.ASKED), None)
    begun = {row.run_id for row in rows if row.step == RetrainingStep.BEGUN}
    return None if asked is None or asked.run_id in begun else asked


def retrainings(settings: Settings) -> list[DriftRetraining]:
    """All that was recorded, in order."""
    with reading(settings) as active:
        return list(active.scalars(select(DriftRetraining).order_by(DriftRetraining.id)))


def record_begun(settings: Settings, run_id: str) -> bool:
    """Record that a run has begun; False if that was recorded before, or drift has not asked for it."""
    asked = next((row for row in retrainings(settings) if row.run_id == run_id), None)
    if asked is None:
        return False
    kept = ("run_id", "date", "model_version", "data_version", "reason", "form")
    row = DriftRetraining(step=RetrainingStep.BEGUN, **{name: getattr(asked, name) for name in kept})
    return record_row(settings, row)
