"""The pages about monitoring: performance, the drift map, and alerts with their rules."""

from collections.abc import Callable
from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from mlops_api.access import SEE, may
from mlops_api.alerts import list_rules
from mlops_api.messages.alerts import RuleList
from mlops_api.monitoring import map_of
from mlops_api.service import settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.monitoring.performance_files import newest_performance
from mlops_tasks.roles import Right
from mlops_tasks.state.alerts.handling import open_episodes
from mlops_tasks.state.alerts.journal import event_page, silences
from mlops_ui.rendering import render

router = APIRouter(prefix="/monitoring", dependencies=SEE, default_response_class=HTMLResponse)

DAYS, COLUMNS = 20, 40
"""Days and columns of the drift map."""
EVENTS = 50
"""Number of steps of alerts of a page."""
NEAR, FAR = 0.75, 2.0
"""Shares of the limit from which on a cell of the map has another colour."""


@router.get("")
def show_monitoring(request: Request, version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None) -> str:
    """How served scores turned out, and the drift map of the champion or of another version."""
    return render(
        request,
        "monitoring.html",
        performance=newest_performance(settings()),
        map=map_of(version, DAYS, COLUMNS),
        level=_level(),
    )


@router.get("/alerts")
def show_alerts(
    request: Request,
    user: GetUserDep,
    page: Annotated[int, Query(ge=1, le=10**6)] = 1,
    kind: Annotated[str, Query(max_length=200, pattern=r"^[^\x00]*$")] = "",
) -> str:
    """What is open and silenced, the rules, and what happened."""
    total, events = event_page(settings(), kind, (page - 1) * EVENTS, EVENTS)
    rules, wrong = _rules()
    return render(
        request,
        "alerts.html",
        episodes=open_episodes(settings()),
        silences=silences(settings()).values(),
        events=events,
        total=total,
        page=page,
        pages=max(1, -(-total // EVENTS)),
        kind=kind,
        rules=rules,
        wrong=wrong,
        commands=may(user, Right.TRAIN),
    )


def _rules() -> tuple[RuleList | None, str]:
    """The rules, or what is wrong with them."""
    try:
        return list_rules(), ""
    except ConfigError as error:
        return None, str(error)


def _level() -> Callable[[float | None], str]:
    def level(exceedance: float | None) -> str:
        if exceedance is None or exceedance < NEAR:
            return ""
        return "near" if exceedance < 1 else "beyond" if exceedance < FAR else "far"

    return level
