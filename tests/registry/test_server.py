"""The same registry behind a real MLflow server with its own login, as `make up` starts it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import mlflow
import numpy as np
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.errors import RegistryError
from mlops_tasks.registry.client import CHAMPION, connect
from mlops_tasks.registry.lifecycle import STATE_TAG, ModelLifecycleManager
from mlops_tasks.registry.models import get_alias_version, get_tags, load_alias
from mlops_tasks.registry.runs import log_run
from tests.operation import free_ports, make_champion
from tests.registry.trainings import Spec, load_training, make_training, market

PASSWORD = "password-of-the-tests"


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Settings that name a running MLflow server."""
    (port,), auth = free_ports(1), tmp_path / "auth.ini"
    auth.write_text(
        "[mlflow]\ndefault_permission = NO_PERMISSIONS\n"
        f"database_uri = sqlite:///{tmp_path / 'auth.db'}\nadmin_username = admin\nadmin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "auth_cache_ttl_seconds = 60\n"
    )
    command = [str(Path(sys.executable).parent / "mlflow"), "server", "--app-name", "basic-auth", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", settings.registry_uri, "--serve-artifacts"]
    command += ["--artifacts-destination", str(tmp_path / "mlflow" / "artifacts")]
    environment = {
        **os.environ,
        "MLFLOW_AUTH_CONFIG_PATH": str(auth),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "key",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}", tmp_path / "server.log")
        yield Settings(home=tmp_path, mlflow_tracking_uri=f"http://127.0.0.1:{port}")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_healthy(url: str, log: Path) -> None:
    """A server answers; AssertionError with its log where it does not."""
    until = time.monotonic() + 120
    while True:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)


def test_the_whole_life_of_a_model_over_http(server: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the password nothing is logged; with it a model is logged, registered, promoted and loaded."""
    make_training(server, Spec())
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    with pytest.raises(RegistryError, match="password"):
        log_run(server, Spec().key)

    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    assert get_alias_version(server, CHAMPION) is None
    manager = ModelLifecycleManager(server)
    run_id = log_run(server, Spec().key)
    assert log_run(server, Spec().key) == run_id
    version = manager.challenge(Spec().key, run_id)
    assert manager.challenge(Spec().key, run_id) == version
    make_champion(server, version)
    assert get_tags(server, version)[STATE_TAG] == manager.state(version) == "champion"

    run = connect(server).get_run(run_id)
    assert run.data.metrics["valid_rank_ic_mean"] == 0.03
    assert len(run.inputs.dataset_inputs) == 4
    features, _ = market()
    expected = load_training(server, Spec().key).predict(features)
    loaded = load_alias(server, CHAMPION)
    assert loaded is not None
    assert loaded.artefact.predict(features).equals(expected)
    by_mlflow = mlflow.pyfunc.load_model("models:/alphaops@champion").predict(features)
    assert np.array_equal(by_mlflow["score"].to_numpy(), expected.to_numpy())
    with pytest.raises(RegistryError, match="no version 9"):
        manager.state(9)
