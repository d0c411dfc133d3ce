"""What cannot start says so before anything is made."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

from mlops_tasks.config import PROJECT, Settings


def stack(settings: Settings, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb of the stack as `make` does, for this home and these ports."""
    ports = {
        f"MLOPS_STACK__{name.upper()}": str(getattr(settings.stack, name))
        for name in ("airflow_port", "mlflow_port", "scoring_port")
    }
    env = {**os.environ, "MLOPS_HOME": str(settings.home), **ports, "HOME": ""}
    command = [sys.executable, "-m", "mlops_tasks.stack", *words]
    return subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False, timeout=600)


def test_a_taken_port_starts_nothing(settings: Settings) -> None:
    """The error comes before anything is made; but a home that was open to others is closed at each start."""
    settings.home.mkdir(parents=True, exist_ok=True)
    settings.home.chmod(0o755)
    with socket.socket() as held:
        held.bind(("127.0.0.1", settings.stack.scoring_port))
        held.listen()
        refused = stack(settings, "up", "--no-chain")
    assert refused.returncode == 1
    assert f"port {settings.stack.scoring_port}" in refused.stderr
    assert not settings.secrets_dir.exists()
    assert stat.S_IMODE(settings.home.stat().st_mode) == 0o700


def test_a_missing_source_starts_nothing(settings: Settings) -> None:
    """The error names the path before anything is made."""
    refused = stack(settings, "up", "--source", "nowhere.parquet")
    assert refused.returncode == 1
    assert str(Path(PROJECT, "nowhere.parquet")) in refused.stderr
    assert not settings.secrets_dir.exists()
