"""A run that fails is told, by the callback that Airflow's DAG processor calls for every DAG."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.error_policy import DECISIONS, MOST_RETRIES
from mlops_tasks.errors import ErrorKind
from mlops_tasks.state.history import newest_alerts
from tests.dags.test_dags import DAG_FILES
from tests.state.alerts.conftest import channel
from tests.state.alerts.receivers import Channel

__all__ = ["channel"]

CALL = """
import json, os, sys
import structlog
from airflow.callbacks.callback_requests import DagCallbackRequest
from airflow.dag_processing.dagbag import DagBag
from airflow.dag_processing.processor import _execute_callbacks

bag = DagBag(sys.argv[1])
requests = [DagCallbackRequest.model_validate(each) for each in json.loads(sys.argv[2])]
for _ in range(2):
    _execute_callbacks(bag, requests, structlog.get_logger())
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)  # as the manager ends the process: nothing that waits for its end is done
"""


def failed(dag_id: str, task_id: str | None = None) -> dict[str, Any]:
    """The scheduler's request for a run that failed, with its last task where Airflow knows it."""
    run = {"dag_id": dag_id, "run_id": "scheduled__2024-06-03T20:00:00+00:00"}
    request = {**run, "filepath": f"{dag_id}.py", "bundle_name": "dags-folder", "bundle_version": None}
    request["msg"] = "task_failure"
    if task_id is None:
        return request
    at = "2024-06-03T20:00:00Z"
    dag_run = {
        **run,
        **dict.fromkeys(("logical_date", "data_interval_start", "data_interval_end", "run_after", "start_date"), at),
        **{"end_date": at, "run_type": "scheduled", "state": "failed", "consumed_asset_events": []},
        "partition_key": None,
    }
    identity = {"id": str(uuid.uuid4()), "dag_version_id": str(uuid.uuid4())}
    last = {**run, **identity, "task_id": task_id, "try_number": 3}
    return request | {"context_from_server": {"dag_run": dag_run, "last_ti": last}}


@pytest.fixture
def home(tmp_path: Path, channel: Channel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home whose alerts go to a channel."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    monkeypatch.setenv("MLOPS_ALERTS__WEBHOOK_URL", channel.url)
    yield tmp_path


def call(home: Path, requests: list[dict[str, Any]], **environment: str) -> str:
    """Twice what the DAG processor does with such requests; returns what it has said."""
    environment |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    command = [sys.executable, "-c", CALL, str(PROJECT / "dags"), json.dumps(requests)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_failed_run_of_any_dag_is_told_once(home: Path, channel: Channel) -> None:
    """With what Airflow knows of the run, and also with as little as it knows when no task is to blame."""
    said = call(home, [*map(failed, DAG_FILES.values()), failed("daily_retraining", "deploy_model")])
    alerts = newest_alerts(Settings(home=home), 10)
    assert sorted(alert.subject.split()[0] for alert in alerts) == sorted(DAG_FILES.values()), said
    assert {alert.kind for alert in alerts} == {"run_failed"}
    assert sorted(sent["subject"] for sent in channel.received) == sorted(alert.subject for alert in alerts)


TELL = """
import os, sys
from types import SimpleNamespace
from mlops_tasks.errors import ErrorKind, StageError
from mlops_tasks.operators.failures import tell_failed_task

for kind in map(ErrorKind, sys.argv[3:]):
    run = SimpleNamespace(task_id="read_source", dag_id=sys.argv[1], run_id=f"{sys.argv[2]}{kind}")
    for _ in range(2):
        tell_failed_task({"ti": run, "exception": StageError("bars.csv has no column close; rename it", kind)})
os._exit(0)
"""


def tell(home: Path, dag_id: str, run_id: str, *kinds: str) -> None:
    """Twice what a task that fails for good calls, for a run of each kind."""
    command = [sys.executable, "-c", TELL, dag_id, run_id, *kinds]
    done = subprocess.run(command, env={**os.environ, "AIRFLOW_HOME": str(home)}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_failed_task_tells_the_kind_of_its_error_and_the_remedy(home: Path, channel: Channel) -> None:
    """Once, as severe as the kind is; the run that fails with it is not told again, another one is."""
    run_id = "scheduled__2024-06-03T20:00:00+00:00"
    tell(home, "sync_market_data", run_id, *ErrorKind)
    told = {sent["kind"]: sent for sent in channel.received}
    assert len(told) == len(channel.received) == len(ErrorKind)
    for kind, decision in DECISIONS.items():
        message = told[decision.alert]["message"]
        assert message.startswith(f"task read_source of run {run_id}{kind} of sync_market_data, {kind}: bars.csv has ")
        assert message.endswith(f"rename it. {decision.kept} {decision.remedy}")
    assert told["run_failed_data"]["severity"] == "critical" and told["run_ended"]["severity"] == "info"
    tell(home, "monitor_champion", run_id, "bug")
    call(home, [failed("monitor_champion"), failed("sync_market_data", "read_source")])
    last = [(sent["kind"], sent["subject"]) for sent in channel.received][len(ErrorKind) :]
    assert last == [("run_failed_bug", "monitor_champion"), ("run_failed", f"sync_market_data {run_id}")]


@pytest.mark.slow
def test_airflow_tries_again_what_may_pass_and_nothing_else(tmp_path: Path) -> None:
    """With each kind of error, in a mapped task too; each failure is told by its kind."""
    environ = {
        **os.environ,
        "MLOPS_HOME": str(tmp_path),
        "MLOPS_STACK__RETRY_DELAY_S": "0",
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    command = [sys.executable, "-m", "tests.dags.failing_in_airflow"]
    done = subprocess.run(command, cwd=PROJECT, env=environ, capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if line.startswith("= ")]
    assert done.returncode == 0 and told, done.stdout + done.stderr
    states, tries = json.loads(told[-1].removeprefix("= "))
    assert states == dict.fromkeys(("ConfigError", "RegistryError", "KeyError", "mapped"), "failed")
    assert tries == {"ConfigError": 1, "RegistryError": 1 + MOST_RETRIES, "KeyError": 1, "mapped": 1}
    kinds = ErrorKind.CONFIGURATION, ErrorKind.TRANSIENT, ErrorKind.BUG, ErrorKind.DATA
    alerts = newest_alerts(Settings(home=tmp_path), 10)
    assert sorted(alert.kind for alert in alerts) == sorted(DECISIONS[kind].alert for kind in kinds)


def test_a_run_that_failed_for_want_of_the_state_database_is_told(home: Path, channel: Channel) -> None:
    """The webhook has it, once, and the log; the record would be in what is away."""
    away = "postgresql+psycopg2://x:secret@127.0.0.1:1/x"
    said = call(home, [failed("daily_retraining", "deploy_model")], MLOPS_STATE_URL=away)
    assert [sent["kind"] for sent in channel.received] == ["run_failed"]
    assert "task_failure, last task deploy_model" in channel.received[0]["message"]
    assert "alert run_failed" in said and "secret" not in said
