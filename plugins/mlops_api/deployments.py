"""Routes about deployments: who serves, what a deployment would do, what was done; and the orders to do something,
each of which starts a DAG run under the user's name."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from mlops_api.access import needs
from mlops_api.dag_runs import DagRunsDep
from mlops_api.messages.dag_runs import StartedRun
from mlops_api.messages.deployments import (
    AbortAsked,
    DeploymentAsked,
    DeploymentHistory,
    DeploymentPlan,
    RollbackAsked,
    RolloutHistory,
    ServiceState,
    Serving,
)
from mlops_api.paging import Page, paged
from mlops_api.service import NO_SUCH, registered, settings
from mlops_tasks.roles import Right
from mlops_tasks.serving.liveness import is_alive
from mlops_tasks.serving.outlook import outlook
from mlops_tasks.serving.overview import serving_overview
from mlops_tasks.state.deployment_log import deployment_page, rollout_page
from mlops_tasks.states import Intervention, Strategy

router = APIRouter(prefix="/deployments", tags=["deployments"])

DEPLOY_DAG, OPERATE_DAG = "deploy_model", "operate_models"


@router.get("", **needs(Right.SEE))
def show() -> Serving:
    """Who serves with which share of the clients, what is under way, the traffic of the last hour, open alerts."""
    return Serving.of(serving_overview(settings()))


@router.get("/service", **needs(Right.SEE))
async def show_service() -> ServiceState:
    """Whether the scoring service answers now; it is asked for at most a second."""
    return ServiceState(answers=await is_alive(settings()))


@router.get("/plan", **needs(Right.SEE), responses=NO_SUCH)
def plan(
    version: Annotated[int, Query(ge=1, le=2**31 - 1)], strategy: Annotated[Strategy | None, Query()] = None
) -> DeploymentPlan:
    """What the deployment of a version would do now; nothing is changed."""
    how = strategy or settings().deployment.strategy
    return DeploymentPlan.of(outlook(settings(), registered(version), how))


@router.get("/history", **needs(Right.SEE))
def show_history(page: Annotated[Page, Depends(paged)]) -> DeploymentHistory:
    """The steps of all deployments and rollbacks, the newest first."""
    return DeploymentHistory.of(deployment_page(settings(), page.first, page.size))


@router.get("/rollouts", **needs(Right.SEE))
def show_rollouts(page: Annotated[Page, Depends(paged)]) -> RolloutHistory:
    """All rollouts with their steps, the newest first."""
    return RolloutHistory.of(rollout_page(settings(), page.first, page.size))


@router.post("", **needs(Right.OPERATE), status_code=202, responses=NO_SUCH)
def deploy(asked: DeploymentAsked, dag_runs: DagRunsDep) -> StartedRun:
    """Deploy a version: starts a run of `deploy_model`."""
    registered(asked.version)
    return dag_runs.start(DEPLOY_DAG, asked.model_dump(mode="json", exclude_none=True))


@router.post("/rollback", **needs(Right.OPERATE), status_code=202)
def roll_back(asked: RollbackAsked, dag_runs: DagRunsDep) -> StartedRun:
    """Withdraw the champion and put the one before it, or a version, into service: starts a run of `operate_models`."""
    return operate(dag_runs, Intervention.ROLLBACK, asked)


@router.post("/abort", **needs(Right.OPERATE), status_code=202)
def abort(asked: AbortAsked, dag_runs: DagRunsDep) -> StartedRun:
    """End a rollout before its decision: starts a run of `operate_models`."""
    return operate(dag_runs, Intervention.ABORT, asked)


@router.post("/step", **needs(Right.OPERATE), status_code=202)
def step(dag_runs: DagRunsDep) -> StartedRun:
    """Take the steps of rollouts that are due now: starts a run of `operate_models`."""
    return dag_runs.start(OPERATE_DAG, {"action": Intervention.ADVANCE.value})


def operate(dag_runs: DagRunsDep, action: Intervention, asked: RollbackAsked | AbortAsked) -> StartedRun:
    """Start a run of `operate_models`."""
    return dag_runs.start(OPERATE_DAG, {"action": action.value, **asked.model_dump(mode="json", exclude_none=True)})
