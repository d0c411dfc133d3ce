"""The pages of the model zoo and of trainings. What they show comes from the library, as in the API."""

from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse

from mlops_api.access import SEE, may
from mlops_api.models import hyperparameters
from mlops_api.service import known_run, settings
from mlops_tasks.modeling.model_zoo.description import describe_zoo
from mlops_tasks.roles import Right
from mlops_tasks.state.tables import TrainingRun
from mlops_tasks.training.events import run_progress, runs
from mlops_tasks.training.run_details import run_details
from mlops_tasks.training.supervision import end_lost_runs
from mlops_ui.rendering import render

router = APIRouter(dependencies=SEE, default_response_class=HTMLResponse)

SHOWN = 50
"""Number of runs in the list."""
ROWS, FEATURES = 500_000, 158
"""Rows and features of the memory estimate that is shown first: some 500 names over four years, Alpha158."""


@router.get("/zoo")
def show_zoo(
    request: Request,
    rows: Annotated[int, Query(ge=1, le=10**10)] = ROWS,
    features: Annotated[int, Query(ge=1, le=10**6)] = FEATURES,
) -> str:
    """The zoo, a card for each model."""
    zoo = describe_zoo(settings())
    cards = [(model, hyperparameters(model)) for model in zoo if model["error"] is None]
    wrong = [model for model in zoo if model["error"] is not None]
    return render(request, "zoo.html", cards=cards, wrong=wrong, rows=rows, features=features)


@router.get("/training")
def show_runs(request: Request) -> str:
    """The latest runs."""
    end_lost_runs(settings())
    return render(request, "training.html", runs=runs(settings(), SHOWN))


@router.get("/training/{run_id}")
def show_run(request: Request, run: Annotated[TrainingRun, Depends(known_run)], user: GetUserDep) -> str:
    """One run: its progress, its curves, and what was asked for."""
    end_lost_runs(settings())
    progress, asked = run_progress(settings(), run.run_id), run_details(settings(), run.run_id)
    return render(request, "run.html", run=progress, asked=asked, commands=may(user, Right.TRAIN))
