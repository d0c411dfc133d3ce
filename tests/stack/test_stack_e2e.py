"""The services start from nothing, ask for passwords, start twice without harm, come back after a crash, and end."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.process import HEAVY_POOL, TRAINING_POOL
from mlops_tasks.stack import keeper
from mlops_tasks.stack.credentials import ADMIN, read_credentials
from mlops_tasks.stack.environment import STACK_ID, airflow_url, mlflow_url
from mlops_tasks.stack.health import basic_authorization, get, unhealthy, wait_for
from mlops_tasks.stack.processes import own_processes
from mlops_tasks.stack.up import connect

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def stack(settings: Settings, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb of the stack as `make` does, for this home and these ports."""
    ports = {
        f"MLOPS_STACK__{name.upper()}": str(getattr(settings.stack, name))
        for name in ("airflow_port", "mlflow_port", "scoring_port")
    }
    env = {**os.environ, "MLOPS_HOME": str(settings.home), **ports, "HOME": ""}
    command = [sys.executable, "-m", "mlops_tasks.stack", *words]
    return subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture
def running(settings: Settings) -> Iterator[Settings]:
    started = stack(settings, "up", "--no-chain")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield settings
    finally:
        stack(settings, "down")


def status_of(url: str, headers: dict[str, str]) -> int:
    return get(url, headers).status


def airflow_token(settings: Settings, password: str) -> str:
    body = json.dumps({"username": ADMIN, "password": password}).encode()
    request = urllib.request.Request(f"{airflow_url(settings)}/auth/token", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())["access_token"]


def test_the_services_from_start_to_end(running: Settings) -> None:
    """One start serves all questions, for it takes most of a minute."""
    settings = running
    record, made = keeper.read_record(settings), read_credentials(settings)

    # Who does not log in sees nothing.
    experiments = f"{mlflow_url(settings)}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert status_of(experiments, {}) == 401
    assert status_of(experiments, basic_authorization(ADMIN, "password1234")) == 401
    assert status_of(experiments, basic_authorization(ADMIN, made.mlflow_password)) == 200
    pools = f"{airflow_url(settings)}/api/v2/pools/{HEAVY_POOL}"
    assert status_of(pools, {}) == 401
    assert status_of(pools, {"Authorization": f"Bearer {airflow_token(settings, made.airflow_password)}"}) == 200

    # A page under a foreign name does not reach MLflow.
    assert status_of(experiments, {**basic_authorization(ADMIN, made.mlflow_password), "Host": "evil.example"}) == 403

    # What listens does so on this machine only, and nothing but the three ports does.
    own = own_processes(record.stack_id, record.keeper)
    listening = {(c.laddr.ip, c.laddr.port) for p in own for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
    assert listening == {
        ("127.0.0.1", port)
        for port in (settings.stack.airflow_port, settings.stack.mlflow_port, settings.stack.scoring_port)
    }

    # No secret is in a process's command line or in a log.
    shown = " ".join(" ".join(process.cmdline()) for process in own)
    shown += " ".join(path.read_text(errors="replace") for path in keeper.logs_dir(settings).iterdir())
    assert not [name for name, secret in vars(made).items() if secret in shown]

    # A second start changes nothing.
    before = {state.name: state.pid for state in keeper.service_states(settings)}
    again = stack(settings, "up", "--no-chain")
    assert again.returncode == 0, again.stdout + again.stderr
    assert {state.name: state.pid for state in keeper.service_states(settings)} == before
    assert not any(connect(settings, made).ensure_pool(pool, 1, "") for pool in (HEAVY_POOL, TRAINING_POOL))

    # A crashed service comes back.
    os.kill(before["airflow-dag-processor"], signal.SIGKILL)
    assert wait_for(
        lambda: running_pid(settings, "airflow-dag-processor") not in (0, before["airflow-dag-processor"]), 60
    )
    assert wait_for(lambda: not unhealthy(settings, made), 120)

    # The end leaves nothing of ours, and everything else.
    env = {k: v for k, v in os.environ.items() if k != STACK_ID}
    with subprocess.Popen(["sleep", "600"], env=env, start_new_session=True) as stranger:
        assert stack(settings, "down").returncode == 0
        assert stranger.poll() is None
        stranger.kill()
    assert own_processes(record.stack_id, record.keeper) == []
    assert not [process for process in own if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not keeper.is_running(settings)


def running_pid(settings: Settings, name: str) -> int:
    return next((s.pid for s in keeper.service_states(settings) if s.name == name and s.state == "RUNNING"), 0)


def test_a_killed_keeper_leaves_nothing_that_down_does_not_find(running: Settings) -> None:
    """The services outlive a killed keeper; the next end finds them all, the renamed ones too."""
    record = keeper.read_record(running)
    assert record.keeper is not None
    os.kill(record.keeper.pid, signal.SIGKILL)
    time.sleep(0.5)
    own = own_processes(record.stack_id, record.keeper)
    assert len(own) >= 10
    assert stack(running, "down").returncode == 0
    assert not [process for process in own if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def test_a_taken_port_starts_nothing(settings: Settings) -> None:
    """The error comes before anything is made."""
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", settings.stack.scoring_port))
        held.listen()
        refused = stack(settings, "up", "--no-chain")
    assert refused.returncode == 1
    assert f"port {settings.stack.scoring_port}" in refused.stderr
    assert not settings.secrets_dir.exists()


def test_a_missing_source_starts_nothing(settings: Settings) -> None:
    """The error names the path before anything is made."""
    refused = stack(settings, "up", "--source", "nowhere.parquet")
    assert refused.returncode == 1
    assert str(Path(PROJECT, "nowhere.parquet")) in refused.stderr
    assert not settings.secrets_dir.exists()
