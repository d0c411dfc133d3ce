"""Trigger and follow the daily chain: show each task's state as it changes, and why one failed."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.errors import StackError
from mlops_tasks.stack.airflow_api import AirflowApi, TaskState
from mlops_tasks.stack.console import Progress
from mlops_tasks.stack.health import wait_for

SYNC = "sync_market_data"
RETRAIN = "daily_retraining"

_POLL_S = 1.0
_KNOWN_LIMIT_S = 90.0
_ASSET_LIMIT_S = 120.0
_SHOWN = {"running", "success", "failed", "skipped", "upstream_failed", "up_for_retry", "deferred"}
_LOG_LINES = 15


@dataclass
class Follower:
    """Follows one run and prints what changes."""

    api: AirflowApi
    progress: Progress
    deadline: float
    """Deadline on the monotonic clock."""
    _seen: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict)

    def follow(self, dag_id: str, run_id: str) -> None:
        """Return when the run has succeeded.

        Raises
        ------
        StackError
            The run failed; the last lines of each failed task's log are shown. Or the time is up; the run continues.
        """
        self._seen.clear()
        while True:
            state = self.api.run_state(dag_id, run_id)
            tasks = self.api.tasks(dag_id, run_id)
            for task in tasks:
                self._show(dag_id, run_id, task)
            if state == "success":
                self.progress.say(f"{dag_id} succeeded")
                return
            if state == "failed":
                raise StackError(_failure(self.api, dag_id, run_id, tasks))
            if time.monotonic() > self.deadline:
                raise StackError(
                    f"{dag_id} has not ended in time (MLOPS_STACK__UP_TIMEOUT_S); it continues, follow it in Airflow"
                )
            time.sleep(_POLL_S)

    def _show(self, dag_id: str, run_id: str, task: TaskState) -> None:
        if task.state not in _SHOWN or self._seen.get(task.key) == (task.state, task.try_number):
            return
        self._seen[task.key] = (task.state, task.try_number)
        self.progress.say(f"{dag_id:<18} {describe(task)}")
        if task.state == "up_for_retry":
            self.progress.say(f"{'':<18}   {''.join(_last_lines(self.api, dag_id, run_id, task, 1))}")


def describe(task: TaskState) -> str:
    """A task's state in one line: name with map index, state, duration, and the attempt if it is not the first."""
    duration = f"{task.duration_s:8.1f} s" if task.duration_s is not None and task.state != "running" else ""
    tries = f"  try {task.try_number}" if task.try_number > 1 else ""
    return f"{_name(task):<40} {task.state:<16}{duration}{tries}".rstrip()


def run_chain(settings: Settings, api: AirflowApi, progress: Progress) -> None:
    """Trigger the sync, follow it, then follow the retraining that its asset starts.

    A sync that publishes nothing new starts no retraining; then one is triggered here, which finds its work done.

    Raises
    ------
    StackError
        A DAG is unknown or broken, a task failed, or `stack.up_timeout_s` has passed.
    """
    deadline = time.monotonic() + settings.stack.up_timeout_s
    _make_ready(api, progress)
    run_id = f"make_up__{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}"
    follower = Follower(api, progress, deadline)
    api.trigger(SYNC, run_id)
    progress.say(f"triggered {SYNC} as {run_id}")
    follower.follow(SYNC, run_id)
    if api.asset_events(SYNC, run_id):
        retraining = wait_for(lambda: api.run_caused_by(RETRAIN, run_id), _ASSET_LIMIT_S)
        if retraining is None:
            raise StackError(
                f"{SYNC} published its asset, but {RETRAIN} did not start; is it scheduled on the asset and unpaused?"
            )
        progress.say(f"{RETRAIN} was started by the asset as {retraining}")
    else:
        retraining = run_id
        api.trigger(RETRAIN, retraining)
        progress.say(f"nothing new was published; triggered {RETRAIN} by hand as {retraining}")
    follower.follow(RETRAIN, retraining)


def _make_ready(api: AirflowApi, progress: Progress) -> None:
    """Wait until both DAGs are known, and unpause them."""
    for dag_id in (SYNC, RETRAIN):
        found = wait_for(partial(_usable_dag, api, dag_id), _KNOWN_LIMIT_S)
        if found is None:
            reasons = api.import_errors() or ["no file in the DAG folder defines it"]
            raise StackError("\n  ".join([f"the DAG {dag_id} cannot be used:", *reasons]))
        if found["is_paused"]:
            api.unpause(dag_id)
            progress.say(f"unpaused {dag_id}")


def _usable_dag(api: AirflowApi, dag_id: str) -> dict[str, Any] | None:
    found = api.dag(dag_id)
    return found if found and not found.get("has_import_errors") else None


def _failure(api: AirflowApi, dag_id: str, run_id: str, tasks: list[TaskState]) -> str:
    failed = [task for task in tasks if task.state == "failed"]
    parts = [f"{dag_id} failed in {', '.join(_name(task) for task in failed) or 'no task of its own'}"]
    for task in failed:
        lines = _last_lines(api, dag_id, run_id, task, _LOG_LINES)
        parts += [f"  the log of {_name(task)} ends with:", *(f"    {line}" for line in lines)]
    return "\n".join(parts)


def _last_lines(api: AirflowApi, dag_id: str, run_id: str, task: TaskState, count: int) -> list[str]:
    return [line for line in api.log_lines(dag_id, run_id, task) if line.strip()][-count:]


def _name(task: TaskState) -> str:
    return task.task_id if task.map_index < 0 else f"{task.task_id}[{task.map_index}]"
