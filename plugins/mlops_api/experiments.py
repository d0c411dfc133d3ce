"""Routes about experiments: how they stand, the arms of units, metric events and their sums."""

from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, HTTPException, Path

from mlops_api.access import needs
from mlops_api.messages.experiments import (
    Assignment,
    AssignmentList,
    Experiment,
    ExperimentList,
    ExperimentMove,
    MetricEvents,
    MetricEventsTold,
    MetricSum,
    MetricSumList,
    UnitsAsked,
)
from mlops_api.service import NO_SUCH, settings
from mlops_tasks.experiments.design import NAME
from mlops_tasks.experiments.lifecycle import (
    decide_experiment,
    experiments,
    history_of,
    move_experiment,
    running_traffic,
    start_experiment,
)
from mlops_tasks.experiments.metric_events import daily_moments, ingest_events
from mlops_tasks.files import finite_or_none
from mlops_tasks.roles import Right
from mlops_tasks.state.model_index import indexed_versions
from mlops_tasks.states import ExperimentState

router = APIRouter(prefix="/experiments", tags=["experiments"])

Name = Annotated[str, Path(pattern=NAME)]


@router.get("", **needs(Right.SEE))
def list_experiments() -> ExperimentList:
    """All experiments as they stand."""
    return ExperimentList(experiments=list(map(Experiment.of, experiments(settings()).values())))


@router.get("/{name}/history", **needs(Right.SEE), responses=NO_SUCH)
def show_steps(name: Name) -> ExperimentList:
    """The steps of an experiment, oldest first."""
    return ExperimentList(experiments=list(map(Experiment.of, history_of(settings(), name))))


@router.get("/{name}/sums", **needs(Right.SEE), responses=NO_SUCH)
def show_sums(name: Name) -> MetricSumList:
    """Number, mean and variance of each metric's events by arm and day, up to the last event."""
    rows = [
        MetricSum(**each._asdict() | {moment: finite_or_none(getattr(each, moment)) for moment in ("mean", "variance")})
        for each in daily_moments(settings(), name)
    ]
    return MetricSumList(sums=rows)


@router.post("/{name}/assignments", **needs(Right.SEE), responses=NO_SUCH)
def assign(name: Name, asked: UnitsAsked) -> AssignmentList:
    """The arms of units in a running experiment; nothing is recorded."""
    found = running_traffic(settings()).assign(name, asked.units)
    rows = enumerate(asked.units)
    return AssignmentList(
        assignments=[Assignment(unit=unit, arm=found.arm_of(row), reason=found.reason_of(row)) for row, unit in rows]
    )


@router.post("/{name}/events", **needs(Right.TRAIN), responses=NO_SUCH)
def record_events(name: Name, batch: MetricEvents) -> MetricEventsTold:
    """Store metric events, whole or not at all; a batch whose answer was lost may be sent again."""
    return MetricEventsTold(**vars(ingest_events(settings(), name, batch.events)))


@router.post("/{name}/moves", **needs(Right.TRAIN), responses=NO_SUCH)
def move(name: Name, wanted: ExperimentMove, user: GetUserDep) -> Experiment:
    """Start, pause, stop or decide an experiment, under the user's name."""
    by = user.get_name()
    if wanted.winner is None and wanted.to == ExperimentState.RUNNING:
        return Experiment.of(start_experiment(settings(), name, wanted.reason, by, indexed_versions(settings())))
    if wanted.winner is None:
        return Experiment.of(move_experiment(settings(), name, wanted.to, wanted.reason, by))
    if wanted.to != ExperimentState.DECIDED:
        raise HTTPException(422, f"winner: named when an experiment is decided, not when it is {wanted.to}")
    return Experiment.of(decide_experiment(settings(), name, wanted.winner, wanted.reason, by))
