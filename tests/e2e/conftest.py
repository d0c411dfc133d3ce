"""What the tests of whole stacks start from: the bars, and the state that the chain leaves on them undisturbed."""

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.operation import DAYS, SMALL, Operation, write_panel


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bars of every operation of a module, which may write more days to them."""
    path: Path = tmp_path_factory.mktemp("source") / "panel.parquet"
    write_panel(path, DAYS)
    return path


@pytest.fixture(scope="module")
def expected(panel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The state that the chain leaves when nobody disturbs it: without Airflow, on SQLite."""
    reference = Operation(tmp_path_factory.mktemp("reference") / "home", panel, SMALL)
    reference.run_without_airflow()
    return reference.state()
