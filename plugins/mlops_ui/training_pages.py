"""The pages of trainings: the latest ones, and one while it runs. What they show comes from the library."""

from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from mlops_api.access import SEE, may
from mlops_api.service import known_run, settings
from mlops_tasks.roles import Right
from mlops_tasks.state.tables import TrainingRun
from mlops_tasks.state.training_runs import last_training_events, newest_training_event
from mlops_tasks.training.events import run_progress, runs
from mlops_tasks.training.run_details import run_details
from mlops_tasks.training.supervision import end_lost_runs
from mlops_ui.rendering import render

router = APIRouter(prefix="/training", dependencies=SEE, default_response_class=HTMLResponse)

SHOWN = 50
"""Number of runs in the list."""
LOGGED = 100
"""Newest events of a run in its log; the page adds those that come."""
QUIET = ("iteration", "resources")
"""Kinds of events that are drawn instead."""

Run = Annotated[TrainingRun, Depends(known_run)]


@router.get("")
def show_runs(request: Request) -> str:
    """The latest runs."""
    end_lost_runs(settings())
    return render(request, "training.html", runs=runs(settings(), SHOWN))


@router.get("/{run_id}")
def show_run(request: Request, run: Run, user: GetUserDep) -> str:
    """One run: its progress, its curves, and what was asked for. The page goes on from the newest event by then."""
    end_lost_runs(settings())
    newest = newest_training_event(settings(), run.run_id)
    after = newest.sequence if newest else 0
    return render(
        request,
        "run.html",
        run=run_progress(settings(), run.run_id),
        asked=run_details(settings(), run.run_id),
        after=after,
        log=last_training_events(settings(), run.run_id, after, LOGGED, QUIET),
        commands=may(user, Right.TRAIN),
    )
