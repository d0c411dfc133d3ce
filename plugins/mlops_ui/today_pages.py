"""The page *Today*: is the operation healthy, what is under way, and what waits for a person."""

from collections.abc import Mapping
from datetime import datetime

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from mlops_api.access import SEE
from mlops_api.service import settings
from mlops_tasks.operators.task_runs import Task, open_questions, page_of
from mlops_tasks.overview.concerns import concerns
from mlops_tasks.overview.parts import Overview, Part
from mlops_tasks.overview.reading import overview
from mlops_tasks.roles import CHAIN_DAG
from mlops_ui.rendering import render

router = APIRouter(prefix="/today", dependencies=SEE, default_response_class=HTMLResponse)

SHOWN = 3
"""Number of rows of a part that are shown; the others are counted."""
PAGES: Mapping[Part, str] = {
    Part.DATA: "data",
    Part.SCORES: "monitoring",
    Part.CHAMPION: "deployments",
    Part.GATE: "models",
    Part.DRIFT: "monitoring",
    Part.ALERTS: "monitoring/alerts",
    Part.WORK: "training",
    Part.EXPERIMENTS: "experiments",
    Part.APPROVALS: "deployments",
}
"""Part to its page."""
WORK_PAGES = {"training": "training", "rollout": "deployments", "experiment": "experiments"}
"""Kind of work to its page."""
TASKS: Mapping[Part, Task] = {
    Part.DATA: Task("sync_market_data", "publish_vintage"),
    Part.SCORES: Task(CHAIN_DAG, "score_newest_date"),
    Part.CHAMPION: Task(CHAIN_DAG, "deploy_model"),
    Part.GATE: Task(CHAIN_DAG, "gate_challenger"),
    Part.DRIFT: Task(CHAIN_DAG, "check_drift"),
}
"""Part to the task that makes it."""


@router.get("")
def show_today(request: Request, session: SessionDep) -> str:
    """How the operation stands, on one screen."""
    found = overview(settings())
    return render(
        request,
        "today.html",
        now=found,
        wrong=concerns(found),
        questions=open_questions(session),
        tasks=_task_pages(session, found),
        pages=PAGES,
        work_pages=WORK_PAGES,
        shown=SHOWN,
    )


def _task_pages(session: Session, found: Overview) -> dict[Part, str]:
    """The page of the task that made each part that there is."""
    return {part: page_of(session, TASKS[part], moment) for part, moment in _made(found).items() if moment is not None}


def _made(found: Overview) -> dict[Part, datetime | None]:
    """When each part was made."""
    return {
        Part.DATA: None if found.bars is None else found.bars.in_use_since,
        Part.SCORES: None if found.scores is None else found.scores.at,
        Part.CHAMPION: None if found.champion is None else found.champion.since,
        Part.GATE: None if found.gate is None else found.gate.at,
        Part.DRIFT: None if found.drift is None else found.drift.at,
    }
