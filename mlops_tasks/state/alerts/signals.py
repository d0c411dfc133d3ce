"""The signals of rules, read from the records of stages and deployments."""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, time, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.error_policy import FAILURES
from mlops_tasks.state.alerts.rules import Sample
from mlops_tasks.state.database import reading
from mlops_tasks.state.tables import AlertEvent, Deployment, DriftReport, Publication, ScoreBatch
from mlops_tasks.states import DeploymentState

CHAMPION = "champion"
"""Alias of the version whose scores count."""
LIVE = timedelta(days=7)
"""Scores computed within this time after the end of their day are those of a market that is followed."""
REACH = timedelta(days=8)
"""How far back events are read; rules look back at most seven days."""
_BAD_ENDS = (DeploymentState.FAILED, DeploymentState.ROLLED_BACK)
KEPT = 101
"""Number of values that a rule can use."""


def read_signals(settings: Settings, names: Collection[str], now: datetime) -> dict[str, list[Sample]]:
    """The newest samples of some of `rules.SIGNALS`, oldest first."""
    with reading(settings) as active:
        return {name: _READERS[name](active, now) for name in names}


def _scores(active: Session, now: datetime) -> list[Sample]:
    """Scores computed soon after their day: a source that ended years ago has none, so none is ever due."""
    query = (
        select(ScoreBatch.date, func.min(ScoreBatch.recorded_at), func.max(ScoreBatch.instruments))
        .where(ScoreBatch.alias == CHAMPION)
        .group_by(ScoreBatch.date)
        .order_by(ScoreBatch.date.desc())
        .limit(KEPT)
    )
    made = [(_midnight(day), at, float(count)) for day, at, count in active.execute(query)]
    return [Sample(day, count) for day, at, count in reversed(made) if at - day <= LIVE + timedelta(days=1)]


def _scored_instruments(active: Session, now: datetime) -> list[Sample]:
    newest = select(func.max(ScoreBatch.id)).where(ScoreBatch.alias == CHAMPION).group_by(ScoreBatch.date)
    query = select(ScoreBatch.date, ScoreBatch.instruments).where(ScoreBatch.id.in_(newest))
    rows = list(active.execute(query.order_by(ScoreBatch.date.desc()).limit(KEPT)))
    return [Sample(_midnight(day), float(count)) for day, count in reversed(rows)]


def _vintages(active: Session, now: datetime) -> list[Sample]:
    query = select(Publication.at).order_by(Publication.id.desc()).limit(KEPT)
    return [Sample(at, 1.0) for at in reversed(list(active.scalars(query)))]


def _drift_columns(active: Session, now: datetime) -> list[Sample]:
    query = select(DriftReport).order_by(DriftReport.id.desc()).limit(KEPT)
    return [Sample(row.recorded_at, float(row.n_alert)) for row in reversed(list(active.scalars(query)))]


def _failed_runs(active: Session, now: datetime) -> list[Sample]:
    query = select(AlertEvent.at).where(
        AlertEvent.kind.in_(FAILURES), AlertEvent.step == "opened", AlertEvent.at > now - REACH
    )
    return [Sample(at, 1.0) for at in active.scalars(query.order_by(AlertEvent.id))]


def _failed_deployments(active: Session, now: datetime) -> list[Sample]:
    query = select(Deployment.at).where(Deployment.state.in_(_BAD_ENDS), Deployment.at > now - REACH)
    return [Sample(at, 1.0) for at in active.scalars(query.order_by(Deployment.id))]


def _midnight(day: object) -> datetime:
    return datetime.combine(day, time(), UTC)  # type: ignore[arg-type]


_READERS: Mapping[str, Callable[[Session, datetime], list[Sample]]] = {
    "scores": _scores,
    "scored_instruments": _scored_instruments,
    "vintages": _vintages,
    "drift_columns": _drift_columns,
    "failed_runs": _failed_runs,
    "failed_deployments": _failed_deployments,
}
