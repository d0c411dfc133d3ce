"""MLflow's artefacts lie in the shared store, and only its server reaches them there."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from mlops_tasks.config import Settings
from mlops_tasks.registry.client import artifact_root, connect, experiment_id
from mlops_tasks.stack.credentials import ensure_credentials
from mlops_tasks.stack.environment import client_environment
from mlops_tasks.stack.services import MLFLOW, service_named
from tests.registry.test_server import wait_until_healthy
from tests.shared_stores import KEYS, shared_store


def test_a_client_stores_and_reads_without_the_stores_secrets(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server that the stack starts takes them from its own environment; the bytes are in the bucket."""
    (tmp_path / "machines").mkdir()
    (settings.home / "mlflow").mkdir(parents=True)
    credentials, log = ensure_credentials(settings), tmp_path / "server.log"
    with shared_store("bucket", tmp_path / "machines") as shared:
        ours = settings.model_copy(update={"shared": shared.settings})
        service = service_named(MLFLOW, ours)
        environment = service.environment(ours, credentials)
        with log.open("w") as file:
            server = subprocess.Popen(
                service.command, env=dict(environment), stdout=file, stderr=file, start_new_session=True
            )
        for name in KEYS:
            monkeypatch.delenv(name)
        clients = client_environment(ours, credentials)
        for name, value in clients.items():
            monkeypatch.setenv(name, value)
        try:
            wait_until_healthy(clients["MLFLOW_TRACKING_URI"], log)
            remote = ours.model_copy(update={"mlflow_tracking_uri": clients["MLFLOW_TRACKING_URI"]})
            client = connect(remote)
            run = client.create_run(experiment_id(remote))
            assert run.info.artifact_uri.startswith(artifact_root(remote)) and "AWS_ACCESS_KEY_ID" not in os.environ
            client.log_text(run.info.run_id, "from anywhere", "said.txt")
            found = client.download_artifacts(run.info.run_id, "said.txt", str(tmp_path))
            assert Path(found).read_text() == "from anywhere"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        stored = {name: content for name, content in shared.objects().items() if name.endswith("/said.txt")}
    assert list(stored.values()) == [b"from anywhere"] and all(name.startswith("mlflow/") for name in stored)
    assert not (settings.home / "mlflow" / "artifacts").exists()
