"""What is seen of a run in Airflow: its state, its note, and whether its DAG is there to be run at all."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from mlops_tasks.config import PROJECT
from mlops_tasks.stack.airflow_api import AirflowApi
from mlops_tasks.stack.credentials import read_credentials
from mlops_tasks.stack.doctor import Finding, dag_findings
from mlops_tasks.stack.environment import full_environment
from tests.plugins.api_server import Airflow
from tests.plugins.runs_in_airflow import PERSON

DECISION = "version 1 stays the champion, version 2 (linear) is not promoted by rule no_gain: it gains nothing"
FAILURE = "build_model.train_model: cancelled: run r was cancelled by admin"
RUNS: dict[str, tuple[str, str, str | None, dict[str, str]]] = {
    "well": ("daily_retraining", "well", None, {"gate_challenger": DECISION}),
    "train fails": ("daily_retraining", "train_fails", "build_model.train_model", {"build_model.train_model": FAILURE}),
    "the last one fails": ("daily_retraining", "last_fails", "prune_features", {"gate_challenger": DECISION}),
    "drift fails": ("daily_retraining", "drift_fails", "check_drift", {}),
    "a person's note": ("daily_retraining", "noted", None, {"gate_challenger": DECISION, PERSON: "we look into it"}),
    "a search's training fails": ("tune_models", "train_fails", "train_model", {}),
}


@pytest.fixture(scope="module")
def states(airflow: Airflow) -> dict[str, str]:
    """The state in which Airflow's scheduler ends each of `RUNS`."""
    environ = full_environment(airflow.settings, read_credentials(airflow.settings))
    command = [sys.executable, "-m", "tests.plugins.runs_in_airflow", json.dumps(list(RUNS.values()))]
    done = subprocess.run(command, env=environ, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(RUNS, json.loads(done.stdout.splitlines()[-1]), strict=True))


def test_a_run_is_green_only_when_all_of_it_is(states: dict[str, str]) -> None:
    """One of two models that failed to train, or any task, the last one too, makes it red."""
    assert states == dict.fromkeys(RUNS, "failed") | dict.fromkeys(("well", "a person's note"), "success")


@pytest.mark.parametrize(
    ("run", "note"),
    [
        ("well", DECISION),
        ("train fails", FAILURE),
        ("the last one fails", DECISION),
        ("drift fails", None),
        ("a person's note", "we look into it"),
    ],
)
def test_a_runs_note_is_what_its_tasks_have_to_say(
    airflow: Airflow, states: dict[str, str], run: str, note: str | None
) -> None:
    """The gate's decision, or why a task failed; a run of which nothing is said has none, and a person's own stays."""
    dag_id, run_id, *_ = RUNS[run]
    with airflow.client("viewer") as viewer:
        found = viewer.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}").json()
    assert found["note"] == note


def test_the_doctor_says_of_each_dag_whether_airflow_runs_it(airflow: Airflow) -> None:
    """Stale, broken, paused, or well; each with what to do."""
    api = AirflowApi(airflow.url, "admin", "admin")

    def findings() -> dict[str, Finding]:
        return {finding.name: finding for finding in dag_findings(airflow.settings, api)}

    well = findings()
    assert {name: finding.state for name, finding in well.items()} == dict.fromkeys(
        [f"DAG {path.stem}" for path in (PROJECT / "dags").glob("*.py")], "ok"
    )
    changes = {
        "DAG tune_models": ("is_stale", "error", "stale: it does not run, and triggers answer 404"),
        "DAG daily_retraining": ("has_import_errors", "error", "its file does not import"),
        "DAG sync_market_data": ("is_paused", "warning", "paused"),
    }
    with changed(airflow, {name.removeprefix("DAG "): column for name, (column, _, _) in changes.items()}):
        ill = findings()
    for name, (_, state, detail) in changes.items():
        assert ill[name].state == state
        assert ill[name].detail.startswith(detail)
        assert "airflow-dag-processor.log" in ill[name].remedy or "unpause" in ill[name].remedy
    assert findings() == well


@contextmanager
def changed(airflow: Airflow, columns: dict[str, Any]) -> Iterator[None]:
    """Set a column of each DAG's row in Airflow's database, where a processor would, while the block runs."""

    def put(value: bool) -> None:
        with closing(sqlite3.connect(airflow.settings.home / "airflow" / "airflow.db", timeout=30)) as database:
            for dag_id, column in columns.items():
                database.execute(f"update dag set {column} = ? where dag_id = ?", (value, dag_id))
            database.commit()

    put(True)
    try:
        yield
    finally:
        put(False)
