"""Routes about alerts: what is open, and what a person does with it."""

from datetime import timedelta
from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Query

from mlops_api.access import needs
from mlops_api.messages.alerts import (
    Alert,
    AlertEvent,
    AlertEventPage,
    AlertList,
    AlertNamed,
    SilenceAsked,
    Silenced,
)
from mlops_api.messages.problem import Problem
from mlops_api.service import After, Answers, settings
from mlops_tasks.roles import Right
from mlops_tasks.state.alerts.episodes import Key
from mlops_tasks.state.alerts.handling import acknowledge, be_silent, open_episodes, resolve
from mlops_tasks.state.alerts.journal import events_after, silences

router = APIRouter(prefix="/alerts", tags=["alerts"])

NOT_OPEN: Answers = {409: {"model": Problem, "description": "It is not open, or it is acknowledged already."}}

Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("", **needs(Right.SEE))
def list_alerts() -> AlertList:
    """Open alerts, the newest first, and silences in force."""
    return AlertList(
        open=[Alert.of(episode) for episode in open_episodes(settings())],
        silenced=[Silenced.model_validate(row, from_attributes=True) for row in silences(settings()).values()],
    )


@router.get("/events", **needs(Right.SEE))
def list_events(after: After = 0, limit: Limit = 100) -> AlertEventPage:
    """The events of alerts after an id, in order, for clients that follow them."""
    rows = events_after(settings(), after, limit)
    events = [AlertEvent.model_validate(row, from_attributes=True) for row in rows]
    return AlertEventPage(events=events, next_after=rows[-1].id if rows else after)


@router.post("/acknowledge", **needs(Right.TRAIN), responses=NOT_OPEN)
def acknowledge_alert(named: AlertNamed, user: GetUserDep) -> AlertEvent:
    """Acknowledge an alert, under the user's name."""
    event = acknowledge(settings(), Key(named.kind, named.subject), user.get_name())
    return AlertEvent.model_validate(event, from_attributes=True)


@router.post("/resolve", **needs(Right.TRAIN), responses=NOT_OPEN)
def resolve_alert(named: AlertNamed, user: GetUserDep) -> AlertEvent:
    """Resolve an alert, under the user's name."""
    event = resolve(settings(), Key(named.kind, named.subject), user.get_name())
    return AlertEvent.model_validate(event, from_attributes=True)


@router.post("/silence", **needs(Right.TRAIN))
def silence_alert(asked: SilenceAsked, user: GetUserDep) -> Silenced:
    """Silence an alert, or a whole kind, for some hours. 0 ends a silence."""
    key, lasting = Key(asked.kind, asked.subject), timedelta(hours=asked.hours)
    row = be_silent(settings(), key, lasting, user.get_name(), asked.reason)
    return Silenced.model_validate(row, from_attributes=True)
