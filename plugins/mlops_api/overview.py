"""The route that says how the operation stands, as the page *Today* shows it."""

from fastapi import APIRouter

from mlops_api.access import needs
from mlops_api.messages.overview import OverviewTold
from mlops_api.service import settings
from mlops_tasks.overview.reading import overview
from mlops_tasks.roles import Right

router = APIRouter(prefix="/overview", tags=["overview"])


@router.get("", **needs(Right.SEE))
def show_overview() -> OverviewTold:
    """How the operation stands now, from the state database and files; MLflow and the scoring service are not asked."""
    return OverviewTold.of(overview(settings()))
