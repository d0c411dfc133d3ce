"""What tasks tell an OpenLineage service of the versions that they read and made."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlops_tasks.config import PROJECT
from mlops_tasks.operators.emitted_lineage import emitted_lineage


@pytest.fixture(autouse=True)
def base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the operation's Airflow is."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://localhost:8080")


def told(arguments: dict[str, Any], result: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Names of what was read and made."""
    lineage = emitted_lineage(arguments, result)
    assert {each.namespace for each in (*lineage.inputs, *lineage.outputs)} <= {"alphaops://localhost:8080"}
    return [each.name for each in lineage.inputs], [each.name for each in lineage.outputs]


def test_a_training_reads_a_vintage_and_features() -> None:
    """They are in the results of earlier tasks that it is given."""
    plan = {"data_version": "d1", "models": ["lightgbm"], "segments": {"train": ["2020-01-01", "2020-12-31"]}}
    features = {"feature_version": "f1", "data_version": "d1", "rows": 10}
    arguments = {"plan": plan, "features": features, "model": "lightgbm"}
    trained = {"training_key": "t1", "model": "lightgbm", "path": "/x"}
    assert told(arguments, trained) == (["vintage/d1", "features/f1"], ["training/t1"])


def test_a_version_is_made_of_the_candidates() -> None:
    """And what a result only repeats is no output."""
    candidates = [{"training_key": "t1", "run_id": "r1"}, {"training_key": "t2", "run_id": "r2"}]
    registered = {"version": 3, "training_key": "t2", "run_id": "r2", "data_version": "d1"}
    assert told({"candidates": candidates}, registered) == (
        ["training/t1", "run/r1", "training/t2", "run/r2"],
        ["model_version/3", "vintage/d1"],
    )


def test_a_failed_stage_has_made_nothing() -> None:
    """Its arguments are told."""
    assert told({"staging": "s1", "approve_reason": None}, {}) == (["staging/s1"], [])


@pytest.fixture
def collected() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Address of a server that collects lineage, and the events it got."""
    events: list[dict[str, Any]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep the output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", events
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_service_that_is_named_gets_the_lineage_of_each_task(
    tmp_path: Path, collected: tuple[str, list[dict[str, Any]]]
) -> None:
    """By Airflow's provider, over HTTP, as a real Airflow runs the DAG: half a minute, most of it Airflow's start."""
    address, events = collected
    environ = {
        **os.environ,
        "MLOPS_HOME": str(tmp_path),
        "MLOPS_SYNTHETIC__INSTRUMENTS": "12",
        "MLOPS_SYNTHETIC__DAYS": "300",
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "http", "url": address}),
    }
    command = [sys.executable, "-m", "tests.operators.lineage_in_airflow"]
    done = subprocess.run(command, cwd=PROJECT, env=environ, capture_output=True, text=True, check=False)
    assert "= {'success'}" in done.stdout, done.stdout + done.stderr
    complete = {each["job"]["name"]: each for each in events if each["eventType"] == "COMPLETE"}

    def names(task: str, side: str) -> list[str]:
        return [each["name"].partition("/")[0] for each in complete[f"sync_market_data.{task}"][side]]

    assert (names("read_source", "inputs"), names("read_source", "outputs")) == ([], ["staging"])
    assert (names("version_snapshot", "inputs"), names("version_snapshot", "outputs")) == (["staging"], ["vintage"])
    assert names("write_qlib_store", "inputs") == ["vintage"]
