"""Redirects to MLflow's own pages, since only MLflow knows the ids of its experiments and runs."""

from fastapi import APIRouter
from fastapi.responses import RedirectResponse

from mlops_api.access import SEE
from mlops_api.service import settings
from mlops_tasks.registry.mlflow_pages import ab_test_page, runs_page, training_page

router = APIRouter(prefix="/mlflow", dependencies=SEE)


@router.get("")
def runs() -> RedirectResponse:
    """The runs of the daily retraining, in a view with the columns that matter."""
    return RedirectResponse(runs_page(settings()))


@router.get("/trainings/{training_key}")
def training(training_key: str) -> RedirectResponse:
    """A training's run."""
    return RedirectResponse(training_page(settings(), training_key))


@router.get("/ab_tests/{name}")
def ab_test(name: str) -> RedirectResponse:
    """The run of an A/B test."""
    return RedirectResponse(ab_test_page(settings(), name))
