"""A stack on a machine that is busy with other things: its DAGs stay, and what is triggered starts."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlops_tasks.config import PROJECT, SYNTHETIC
from mlops_tasks.stack.airflow_api import AirflowApi
from mlops_tasks.stack.credentials import read_credentials
from mlops_tasks.stack.health import wait_for
from mlops_tasks.stack.up import connect
from tests.e2e.operation import Operation, select_rows

MINUTES = float(os.environ.get("LOADED_MINUTES", "20"))
BUSY_PER_CORE = 2
START_S = 60.0
"""From a trigger to the first task's own process."""
TRIGGERED = ("tune_models", "plan_search", {"no_such_field": 1})
"""A DAG, its first task, and a form that this task refuses at once: it starts, and costs no more."""

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(int(60 * MINUTES) + 1800)]


@contextmanager
def busy_cores() -> Iterator[None]:
    """Two processes a core that do nothing else than be in the way."""
    count = BUSY_PER_CORE * len(os.sched_getaffinity(0))
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def stale(api: AirflowApi) -> list[str]:
    """DAGs that Airflow has taken away."""
    return [dag_id for dag_id, dag in api.dags().items() if dag["is_stale"]]


def start_after(operation: Operation, api: AirflowApi, number: int) -> float:
    """Seconds from a trigger to the start of the run's first task."""
    dag_id, task_id, form = TRIGGERED
    run_id, asked = f"loaded_{number}", datetime.now(UTC)
    api.trigger(dag_id, run_id, form)
    query = "select start_date from task_instance where run_id = ? and task_id = ? and start_date is not null"
    found = wait_for(lambda: select_rows(operation.home, query, (run_id, task_id)), 4 * START_S)
    assert found, f"{run_id} has not started after {4 * START_S:.0f} s"
    return (datetime.fromisoformat(found[0][0]).replace(tzinfo=UTC) - asked).total_seconds()


def test_no_dag_turns_stale_and_a_triggered_run_starts_within_a_minute(tmp_path: Path) -> None:
    """Two busy processes a core for twenty minutes (LOADED_MINUTES): every DAG stays, every run starts in time."""
    operation = Operation(tmp_path / "home", SYNTHETIC, {"MLOPS_STACK__RETRY_DELAY_S": "1"})
    command = [sys.executable, "-m", "mlops_tasks.stack", "up", "--source", SYNTHETIC, "--no-chain"]
    waits: list[float] = []
    try:
        subprocess.run(command, env=operation.environ, check=True, capture_output=True)
        api = connect(operation.settings, read_credentials(operation.settings))
        files = list((PROJECT / "dags").glob("*.py"))
        assert wait_for(lambda: len(api.dags()) == len(files), 120)
        with busy_cores():
            end = time.monotonic() + 60 * MINUTES
            while time.monotonic() < end:
                waits.append(start_after(operation, api, len(waits)))
                assert stale(api) == [], f"after {len(waits)} runs"
                time.sleep(20)
    finally:
        operation.down()
    assert max(waits) < START_S, waits
    print(f"{len(waits)} runs, the slowest started after {max(waits):.1f} s")
