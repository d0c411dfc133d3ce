"""The page of deployments: who serves, what is under way, what a deployment would do, and what was done."""

from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mlops_api.access import SEE, may
from mlops_api.service import registered, settings
from mlops_tasks.roles import Right
from mlops_tasks.serving.outlook import outlook
from mlops_tasks.serving.overview import serving_overview
from mlops_tasks.serving.rollout_plan import describe
from mlops_tasks.state.deployment_log import deployment_page, rollout_page
from mlops_tasks.states import Approval, Strategy
from mlops_ui.rendering import render

router = APIRouter(prefix="/deployments", dependencies=SEE, default_response_class=HTMLResponse)

SIZE = 20
"""Steps, and rollouts, of a page."""


class DeploymentsShown(BaseModel):
    """What the address asks for: a version whose deployment is looked at, and the page of the history."""

    model_config = ConfigDict(frozen=True)

    version: Annotated[int | None, BeforeValidator(lambda given: given or None), Field(ge=1, le=2**31 - 1)] = None
    strategy: Annotated[Strategy | None, BeforeValidator(lambda given: given or None)] = None
    page: int = Field(1, ge=1, le=10**6)


@router.get("")
def show_deployments(request: Request, asked: Annotated[DeploymentsShown, Query()], user: GetUserDep) -> str:
    """How the serving of models stands."""
    limits, first = settings().deployment, (asked.page - 1) * SIZE
    strategy = asked.strategy or limits.strategy
    version = None if asked.version is None else registered(asked.version)
    history, past = (read(settings(), first, SIZE) for read in (deployment_page, rollout_page))
    return render(
        request,
        "deployments.html",
        found=serving_overview(settings()),
        wanted=version,
        strategy=strategy,
        plan=None if version is None else outlook(settings(), version, strategy),
        history=history,
        past=past,
        page=asked.page,
        pages=-(-max(history.total, past.total) // SIZE),
        describe=describe,
        strategies=[*Strategy],
        approvals=[*Approval],
        approval=limits.approval,
        operates=may(user, Right.OPERATE),
    )
