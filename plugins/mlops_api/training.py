"""Routes about training runs."""

from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, HTTPException, Query

from mlops_api.access import needs
from mlops_api.messages.problem import Problem
from mlops_api.messages.training import Command, CommandAccepted, Event, EventPage, Run, RunCurves, RunList
from mlops_api.messages.training_report import SignalReport, TrainingReport
from mlops_api.service import ENDED, NO_SUCH, After, Answers, known_run, settings
from mlops_tasks.registry.training_evidence import training_evidence
from mlops_tasks.registry.training_figures import signal_figures, training_figures
from mlops_tasks.roles import Right
from mlops_tasks.state.tables import TrainingRun
from mlops_tasks.state.training_runs import newest_training_event
from mlops_tasks.states import TERMINAL
from mlops_tasks.training.control import command_run
from mlops_tasks.training.curves import run_curves
from mlops_tasks.training.events import read_events, run_progress, runs
from mlops_tasks.training.supervision import end_lost_runs
from mlops_tasks.training_folder import TrainingFolder

router = APIRouter(prefix="/training/runs", tags=["training"])

Limit = Annotated[int, Query(ge=1, le=200)]
Points = Annotated[int, Query(ge=2, le=5000, description="Iterations, and samples, at most.")]
Until = Annotated[int | None, Query(ge=0, le=2**63 - 1)]
PageSize = Annotated[int, Query(ge=1, le=10_000)]


def training_of(run: Annotated[TrainingRun, Depends(known_run)]) -> str:
    """The key of the training that a run has made or found. 409 where it has not."""
    ending = newest_training_event(settings(), run.run_id, TERMINAL)
    key = None if ending is None else ending.payload.get("training_key")
    if key is None or not TrainingFolder.of(settings(), key).exists:
        raise HTTPException(409, f"run {run.run_id} has left no training: it is under way, has failed or was cancelled")
    return str(key)


TrainingKey = Annotated[str, Depends(training_of)]
UNFINISHED: Answers = {409: {"model": Problem, "description": "The run has left no training."}}


@router.get("", **needs(Right.SEE))
def list_runs(limit: Limit = 20) -> RunList:
    """The latest runs, the newest first. Runs that were lost with their processes first get their terminal events."""
    end_lost_runs(settings())
    return RunList(runs=[Run.of(progress) for progress in runs(settings(), limit)])


@router.get("/{run_id}", **needs(Right.SEE, Depends(known_run)), responses=NO_SUCH)
def show_run(run_id: str) -> Run:
    """One run, as its newest events show it. A lost one first gets its terminal event."""
    end_lost_runs(settings())
    return Run.of(run_progress(settings(), run_id))


@router.get("/{run_id}/events", **needs(Right.SEE, Depends(known_run)), responses=NO_SUCH)
def list_events(run_id: str, after: After = 0, limit: PageSize = 1000) -> EventPage:
    """Events of a run after any sequence number."""
    events = [Event.of(event) for event in read_events(settings(), run_id, after, limit)]
    next_after = events[-1].sequence if events else after
    terminal = newest_training_event(settings(), run_id, TERMINAL)
    return EventPage(
        events=events, next_after=next_after, ended=terminal is not None and terminal.sequence <= next_after
    )


@router.get("/{run_id}/curves", **needs(Right.SEE, Depends(known_run)), responses=NO_SUCH)
def show_curves(run_id: str, points: Points = 1000, until: Until = None) -> RunCurves:
    """Metrics by iteration and resources by time, evenly thinned out, as of a sequence number (default: the newest)."""
    found = run_curves(settings(), run_id, points, until)
    return RunCurves.model_validate(found, from_attributes=True)


@router.get("/{run_id}/report", **needs(Right.SEE), responses={**NO_SUCH, **UNFINISHED})
def show_report(key: TrainingKey) -> TrainingReport:
    """What came of a finished run: figures, certificate, the gate's decisions. MLflow is not asked."""
    return TrainingReport.of(training_evidence(settings(), key), training_figures(settings(), key))


@router.get("/{run_id}/report/signal", **needs(Right.SEE), responses={**NO_SUCH, **UNFINISHED})
def show_signal(key: TrainingKey) -> SignalReport:
    """Decay of the IC and returns by group, computed from the predictions when it is first asked for."""
    return SignalReport.model_validate(signal_figures(settings(), key))


@router.post(
    "/{run_id}/{command}",
    status_code=202,
    **needs(Right.TRAIN, Depends(known_run)),
    responses={**NO_SUCH, **ENDED},
)
def command(run_id: str, command: Command, user: GetUserDep) -> CommandAccepted:
    """Pause, resume or cancel a run, under the user's name."""
    asked_by = user.get_name()
    command_run(settings(), run_id, command, asked_by)
    return CommandAccepted(run_id=run_id, command=command, asked_by=asked_by)
