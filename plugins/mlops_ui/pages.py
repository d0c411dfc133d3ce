"""The page of the model zoo. What it shows comes from the library, as in the API."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from mlops_api.access import SEE
from mlops_api.models import hyperparameters
from mlops_api.service import settings
from mlops_tasks.modeling.model_zoo.description import describe_zoo
from mlops_ui.rendering import render

router = APIRouter(dependencies=SEE, default_response_class=HTMLResponse)

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
