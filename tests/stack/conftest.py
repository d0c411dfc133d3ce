"""A home of its own for each test, with ports that nobody else uses."""

from pathlib import Path

import pytest

from mlops_tasks.config import Settings, StackSettings
from tests.operation import free_ports


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    airflow, mlflow, scoring = free_ports(3)
    ports = StackSettings(airflow_port=airflow, mlflow_port=mlflow, scoring_port=scoring)
    return Settings(home=tmp_path / "home", stack=ports)
