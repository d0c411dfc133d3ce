"""Routes about training runs."""

from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, Query

from mlops_api.access import needs
from mlops_api.messages.training import Command, CommandAccepted, Event, EventPage, Run, RunList
from mlops_api.service import ENDED, NO_SUCH, After, known_run, settings
from mlops_tasks.roles import Right
from mlops_tasks.state.training_runs import newest_training_event
from mlops_tasks.states import TERMINAL
from mlops_tasks.training.control import command_run
from mlops_tasks.training.events import read_events, run_progress, runs
from mlops_tasks.training.supervision import end_lost_runs

router = APIRouter(prefix="/training/runs", tags=["training"])

Limit = Annotated[int, Query(ge=1, le=200)]
PageSize = Annotated[int, Query(ge=1, le=10_000)]


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
