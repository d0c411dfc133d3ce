"""Routes about one registered version: what is known of it, what it was made of, what moves it, its replays, and
whether it may serve; and about several side by side."""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query
from pydantic import Field

from mlops_api.access import needs
from mlops_api.dag_runs import DagRunsDep
from mlops_api.deployments import OPERATE_DAG
from mlops_api.messages.dag_runs import StartedRun
from mlops_api.messages.deployments import ReasonGiven
from mlops_api.messages.version_details import (
    ExplanationList,
    Replay,
    ReplayAsked,
    ReplayList,
    VersionComparison,
    VersionDetail,
    VersionLineage,
    VersionReport,
)
from mlops_api.paging import Page, paged
from mlops_api.service import NO_SUCH, registered, settings
from mlops_api.versions import Number
from mlops_tasks.provenance.known_version import known_version
from mlops_tasks.reports import ReportKind, reports_of_version
from mlops_tasks.roles import Right
from mlops_tasks.state.model_index import find_version
from mlops_tasks.state.replays import replays
from mlops_tasks.states import Intervention

router = APIRouter(prefix="/versions", tags=["versions"])

REPLAY_DAG = "replay_models"
SHOWN = 30
"""Number of explanations that are listed."""
MOST_COMPARED = 10
ListedVersion = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""One of several in an address."""


@router.get("/compare", **needs(Right.SEE), responses=NO_SUCH)
def compare(
    version: Annotated[list[ListedVersion], Query(min_length=2, max_length=MOST_COMPARED)],
) -> VersionComparison:
    """Two or more versions side by side; `version` is repeated."""
    if len(set(version)) < len(version):
        raise HTTPException(422, "version: one is named twice; compare different ones")
    return VersionComparison.of([find_version(settings(), registered(each)) for each in version])


@router.get("/{version}", **needs(Right.SEE), responses=NO_SUCH)
def show_version(version: Number) -> VersionDetail:
    """One version: state, metrics, tags, what the gate said, whether it may serve."""
    return VersionDetail.of_known(known_version(settings(), registered(version)))


@router.get("/{version}/lineage", **needs(Right.SEE), responses=NO_SUCH)
def show_lineage(version: Number) -> VersionLineage:
    """What a version was made of, as it is recorded."""
    return VersionLineage.of(known_version(settings(), registered(version)))


@router.get("/{version}/explanations", **needs(Right.SEE), responses=NO_SUCH)
def list_explanations(version: Number) -> ExplanationList:
    """What moves a version's scores: its explanation reports."""
    found = reports_of_version(settings(), ReportKind.EXPLANATION, registered(version), SHOWN)
    return ExplanationList(explanations=list(map(VersionReport.of, found)))


@router.get("/{version}/replays", **needs(Right.SEE), responses=NO_SUCH)
def list_replays(version: Number, page: Annotated[Page, Depends(paged)]) -> ReplayList:
    """The replays of a version."""
    found = replays(settings(), registered(version))
    return ReplayList(total=len(found), replays=list(map(Replay.of, page.of(found))))


@router.post("/{version}/replays", **needs(Right.OPERATE), status_code=202, responses=NO_SUCH)
def replay(version: Number, asked: ReplayAsked, dag_runs: DagRunsDep) -> StartedRun:
    """Train a version again from its record and compare: starts a run of `replay_models`."""
    return dag_runs.start(REPLAY_DAG, {"version": registered(version), "anyway": asked.anyway})


@router.post("/{version}/approve", **needs(Right.OPERATE), status_code=202, responses=NO_SUCH)
def approve(version: Number, asked: ReasonGiven, dag_runs: DagRunsDep) -> StartedRun:
    """Let a version serve that the gate has not promoted: starts a run of `operate_models`."""
    return _operate(dag_runs, Intervention.APPROVE, version, asked)


@router.post("/{version}/withdraw", **needs(Right.OPERATE), status_code=202, responses=NO_SUCH)
def withdraw(version: Number, asked: ReasonGiven, dag_runs: DagRunsDep) -> StartedRun:
    """Forbid a version to serve: starts a run of `operate_models`."""
    return _operate(dag_runs, Intervention.WITHDRAW, version, asked)


def _operate(dag_runs: DagRunsDep, action: Intervention, version: int, asked: ReasonGiven) -> StartedRun:
    form = {"action": action.value, "version": registered(version), "reason": asked.reason}
    return dag_runs.start(OPERATE_DAG, form)
