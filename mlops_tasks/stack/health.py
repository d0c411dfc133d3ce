"""Whether each service answers as it should, checked in the way a user would use it."""

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.errors import StackError
from mlops_tasks.stack.broker import host_name, living_workers
from mlops_tasks.stack.console import Progress
from mlops_tasks.stack.credentials import ADMIN, Credentials
from mlops_tasks.stack.environment import health_url, mlflow_url, scoring_url
from mlops_tasks.stack.keeper import log_tail, logs_dir, service_states
from mlops_tasks.stack.services import MLFLOW, SCORING, STAGES, services, worker_names
from mlops_tasks.stage_process import is_listening

HEALTH_LIMIT_S = 600.0
_POLL_S = 0.5
_REMIND_S = 30.0
NOT_YET = "does not answer yet"
_FAILED_STATES = {"FATAL", "UNKNOWN"}
_AIRFLOW_PARTS = {
    "airflow-api-server": "metadatabase",
    "airflow-scheduler": "scheduler",
    "airflow-dag-processor": "dag_processor",
    "airflow-triggerer": "triggerer",
}


@dataclass(frozen=True)
class Reply:
    """Status 0 and the reason in `body` if nothing answered; `NOT_YET` if nothing listens or the answer takes long."""

    status: int
    body: str


def get(url: str, headers: Mapping[str, str] | None = None, timeout_s: float = 5.0) -> Reply:
    """One GET; an unreachable address is a reply, not an error."""
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - our own http addresses
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            return Reply(answer.status, answer.read().decode(errors="replace"))
    except urllib.error.HTTPError as error:
        return Reply(error.code, error.read().decode(errors="replace"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)  # what urllib wraps
        waits = isinstance(reason, ConnectionError | TimeoutError)
        return Reply(0, NOT_YET if waits else str(reason))


def unhealthy(settings: Settings, credentials: Credentials) -> dict[str, str]:
    """Maps each unhealthy service to its fault; empty if all are healthy."""
    here = {**_stages(settings), **_workers(settings)}
    if settings.stack.part == "workers":
        return here
    return {**here, **_airflow(settings), **_mlflow(settings, credentials), **_scoring(settings, credentials)}


def wait_until_healthy(settings: Settings, credentials: Credentials, progress: Progress) -> None:
    """Wait for every service, and print each as it comes up.

    Raises
    ------
    StackError
        A service ended, or did not answer in time; the message shows the tail of its log.
    """
    deadline = time.monotonic() + HEALTH_LIMIT_S
    waiting = [service.name for service in services(settings)]
    remind = time.monotonic() + _REMIND_S
    wrong: dict[str, str] = {}
    while waiting:
        wrong = unhealthy(settings, credentials)
        for name in [name for name in waiting if name not in wrong]:
            progress.say(f"{name} is up")
            waiting.remove(name)
        failed = [state.name for state in service_states(settings) if state.state in _FAILED_STATES]
        guilty = failed[0] if failed else waiting[0] if waiting and time.monotonic() > deadline else None
        if guilty is not None:
            raise StackError(
                f"{guilty} did not come up: {wrong.get(guilty, 'its process ended')}; "
                f"{logs_dir(settings) / guilty}.log ends with:\n{log_tail(logs_dir(settings) / f'{guilty}.log')}"
            )
        if waiting and time.monotonic() > remind:
            progress.say(f"still starting: {', '.join(_waited_for(name, wrong[name]) for name in waiting)}")
            remind = time.monotonic() + _REMIND_S
        if waiting:
            time.sleep(_POLL_S)


def _waited_for(name: str, reason: str) -> str:
    """A service that is starting, with the fault if it adds information."""
    return name if reason == NOT_YET else f"{name} ({reason})"


def basic_authorization(user: str, password: str) -> dict[str, str]:
    """The header of HTTP basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def _stages(settings: Settings) -> dict[str, str]:
    kept = any(service.name == STAGES for service in services(settings))
    return {STAGES: NOT_YET} if kept and not is_listening(settings.stage_socket) else {}


def _workers(settings: Settings) -> dict[str, str]:
    names = worker_names(settings)
    alive = living_workers(settings) if names else set()
    return {name: "does not answer by the broker" for name in names if host_name(name) not in alive}


def _airflow(settings: Settings) -> dict[str, str]:
    reply = get(health_url(settings))
    if reply.status != 200:
        reason = _short(reply)
        return dict.fromkeys(_AIRFLOW_PARTS, reason)
    parts: dict[str, Any] = json.loads(reply.body)
    states = {name: (parts.get(part) or {}).get("status") for name, part in _AIRFLOW_PARTS.items()}
    return {
        name: f"Airflow reports {state or 'no heartbeat yet'}" for name, state in states.items() if state != "healthy"
    }


def _mlflow(settings: Settings, credentials: Credentials) -> dict[str, str]:
    url = f"{mlflow_url(settings)}/api/2.0/mlflow/experiments/get?experiment_id=0"
    reply = get(url, basic_authorization(ADMIN, credentials.mlflow_password))
    if reply.status == 401:
        database = settings.home / "mlflow" / "auth.db"
        return {
            MLFLOW: f"its password differs from {settings.secrets_dir / 'mlflow_password'}; restore that file, or "
            f"remove {database}, which contains only MLflow's users"
        }
    return {} if reply.status == 200 else {MLFLOW: _short(reply)}


def _scoring(settings: Settings, credentials: Credentials) -> dict[str, str]:
    """A service without a model answers 503: it is alive and waits for the first champion."""
    reply = get(f"{scoring_url(settings)}/health", {"Authorization": f"Bearer {credentials.scoring_token}"})
    return {} if reply.status in (200, 503) else {SCORING: _short(reply)}


def _short(reply: Reply) -> str:
    return f"HTTP {reply.status}" if reply.status else reply.body


def wait_for(condition: Callable[[], Any], limit_s: float, poll_s: float = 1.0) -> Any:
    """The first truthy value of `condition`, or its last value after `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(poll_s)
    return value
