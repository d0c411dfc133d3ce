"""Airflow's REST API (v2), as far as `make up` needs it."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlops_tasks.errors import StackError

_PATIENCE_S = 120.0
_PAUSE_S = 1.0
_TRANSIENT = {500, 502, 503, 504}


@dataclass(frozen=True)
class TaskState:
    """One task instance; `map_index` is -1 for a task that is not mapped."""

    task_id: str
    map_index: int
    try_number: int
    state: str
    duration_s: float | None

    @property
    def key(self) -> tuple[str, int]:
        """What stays the same over its attempts."""
        return self.task_id, self.map_index


class AirflowApi:
    """A client that logs in when needed, and again when its token has expired."""

    def __init__(self, base_url: str, user: str, password: str) -> None:
        self._base_url = base_url
        self._login = {"username": user, "password": password}
        self._token = ""

    def ensure_pool(self, name: str, slots: int, description: str) -> bool:
        """Create the pool unless it exists; an existing one keeps its size. Returns whether it is new."""
        if self._call("GET", f"/api/v2/pools/{_quoted(name)}", missing=True) is not None:
            return False
        self._call("POST", "/api/v2/pools", {"name": name, "slots": slots, "description": description})
        return True

    def dag(self, dag_id: str) -> dict[str, Any] | None:
        """The DAG, or None before it was parsed."""
        found: dict[str, Any] | None = self._call("GET", f"/api/v2/dags/{_quoted(dag_id)}", missing=True)
        return found

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run the DAG."""
        self._call("PATCH", f"/api/v2/dags/{_quoted(dag_id)}?update_mask=is_paused", {"is_paused": False})

    def dags(self) -> dict[str, dict[str, Any]]:
        """Every DAG that was ever parsed, by its id, including stale ones."""
        rows = self._call("GET", "/api/v2/dags?exclude_stale=false&limit=100")["dags"]
        return {row["dag_id"]: row for row in rows}

    def import_errors(self) -> list[str]:
        """File name and last line of each DAG file that does not import."""
        rows = self._call("GET", "/api/v2/importErrors?limit=20")["import_errors"]
        return [f"{row['filename']}: {row['stack_trace'].strip().splitlines()[-1]}" for row in rows]

    def trigger(self, dag_id: str, run_id: str, form: Mapping[str, Any] | None = None) -> None:
        """Trigger a manual run, with values of its form; an existing run with this id counts as this run."""
        if self._call("GET", _run(dag_id, run_id), missing=True) is None:
            body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(form or {})}
            self._call("POST", f"/api/v2/dags/{_quoted(dag_id)}/dagRuns", body)

    def run_state(self, dag_id: str, run_id: str) -> str:
        """`queued`, `running`, `success` or `failed`."""
        state: str = self._call("GET", f"{_run(dag_id, run_id)}")["state"]
        return state

    def tasks(self, dag_id: str, run_id: str) -> list[TaskState]:
        """Every task instance of a run that has a state, in the order in which they started."""
        rows = self._call("GET", f"{_run(dag_id, run_id)}/taskInstances?limit=500")["task_instances"]
        rows.sort(key=lambda row: (row["start_date"] or "9", row["task_id"], row["map_index"]))
        return [
            TaskState(row["task_id"], row["map_index"], row["try_number"], row["state"], row["duration"])
            for row in rows
            if row["state"] is not None
        ]

    def log_lines(self, dag_id: str, run_id: str, task: TaskState) -> list[str]:
        """The log lines of a task's newest attempt, without Airflow's own grouping."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{_quoted(task.task_id)}/logs/{max(1, task.try_number)}"
        found = self._call("GET", f"{path}?map_index={task.map_index}&full_content=true", missing=True) or {}
        lines: list[str] = []
        for row in found.get("content", []):
            lines += _log_lines(row)
        return lines

    def asset_events(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The asset events that a run has emitted."""
        query = urllib.parse.urlencode({"source_dag_id": dag_id, "source_run_id": run_id})
        events: list[dict[str, Any]] = self._call("GET", f"/api/v2/assets/events?{query}")["asset_events"]
        return events

    def run_caused_by(self, dag_id: str, source_run_id: str) -> str | None:
        """The newest run of `dag_id` that an asset event of the run `source_run_id` started, if any."""
        query = "run_type=asset_triggered&order_by=-run_after&limit=20"
        for row in self._call("GET", f"/api/v2/dags/{_quoted(dag_id)}/dagRuns?{query}")["dag_runs"]:
            run_id: str = row["dag_run_id"]
            events = self._call("GET", f"{_run(dag_id, run_id)}/upstreamAssetEvents")["asset_events"]
            if any(event["source_run_id"] == source_run_id for event in events):
                return run_id
        return None

    def _call(self, method: str, path: str, body: Any = None, *, missing: bool = False) -> Any:
        """The decoded answer; None for a 404 if `missing` allows it.

        Temporary failures are retried for as long as the keeper needs to restart a crashed API server.
        """
        give_up = time.monotonic() + _PATIENCE_S
        while True:
            try:
                self._token = self._token or self._log_in()
                return _request(self._base_url + path, method, body, self._token)
            except urllib.error.HTTPError as error:
                if error.code == 404 and missing:
                    return None
                reason = f"HTTP {error.code}: {error.read().decode(errors='replace')[:300]}"
                passes = error.code in _TRANSIENT or (error.code == 401 and self._token != "")
                self._token = "" if error.code == 401 else self._token
            except OSError as error:
                reason, passes = str(error), True
            if not passes or time.monotonic() > give_up:
                raise StackError(f"Airflow refused {method} {path}: {reason}; see the log of airflow-api-server")
            time.sleep(_PAUSE_S)

    def _log_in(self) -> str:
        token: str = _request(f"{self._base_url}/auth/token", "POST", self._login, "")["access_token"]
        return token


def _request(url: str, method: str, body: Any, token: str) -> Any:
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers)  # noqa: S310 - our own http address
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        text = answer.read()
    return json.loads(text) if text else None


def _log_lines(row: Any) -> list[str]:
    """One structured line of Airflow's log as text, with the last line of its error."""
    if isinstance(row, str):
        return [row]
    event = str(row.get("event", ""))
    if event.startswith(("::group::", "::endgroup::")):
        return []
    return [event, *(f"{error['exc_type']}: {error['exc_value']}" for error in row.get("error_detail") or [])]


def _run(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}"


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")
