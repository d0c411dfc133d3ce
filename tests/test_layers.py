"""The rules of who may import whom hold."""

import subprocess
import sys
from pathlib import Path

from mlops_tasks.config import PROJECT


def test_import_contracts_hold():
    """import-linter keeps the layers of pyproject.toml; airflow and mlflow each stay in one room."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_qlib_is_initialised_in_one_module():
    """A second `qlib.init` would silently change the data of the first."""
    callers = [p for p in (PROJECT / "mlops_tasks").rglob("*.py") if "qlib.init(" in p.read_text()]
    assert [p.relative_to(PROJECT).as_posix() for p in callers] == ["mlops_tasks/data/qlib_store.py"]
