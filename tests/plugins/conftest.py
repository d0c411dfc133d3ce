"""One Airflow for all tests of the plugin, with training runs in its state database."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from mlops_tasks.config import Settings, StackSettings
from tests.operation import free_ports
from tests.plugins.api_server import Airflow, start_airflow
from tests.plugins.runs import Runs

SEND_TIMEOUT_S = 2.0


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A fresh home; the server of all tests."""
    airflow_port, mlflow_port, scoring_port = free_ports(3)
    stack = StackSettings(airflow_port=airflow_port, mlflow_port=mlflow_port, scoring_port=scoring_port)
    settings = Settings(home=tmp_path_factory.mktemp("airflow_home"), stack=stack)
    (settings.home / "settings.yaml").write_text(f"streams: {{send_timeout_s: {SEND_TIMEOUT_S}}}\n")
    with start_airflow(settings) as server:
        yield server


@pytest.fixture(scope="session")
def runs(airflow: Airflow) -> Runs:
    """Writes training runs as an engine in this process would."""
    return Runs(airflow.settings, datetime(2026, 3, 2, 9, 30, tzinfo=UTC))
