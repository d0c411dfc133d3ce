"""Ways to MLflow's own pages: it names experiments and runs by ids that it has to be asked for."""

from fastapi import APIRouter
from fastapi.responses import RedirectResponse

from mlops_api.access import SEE
from mlops_api.service import settings
from mlops_tasks.registry.mlflow_pages import runs_page, training_page

router = APIRouter(prefix="/mlflow", dependencies=SEE)


@router.get("")
def runs() -> RedirectResponse:
    """The runs of the daily retraining, in the view whose columns matter."""
    return RedirectResponse(runs_page(settings()))


@router.get("/trainings/{training_key}")
def training(training_key: str) -> RedirectResponse:
    """A training's run."""
    return RedirectResponse(training_page(settings(), training_key))
