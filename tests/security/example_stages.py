"""Stages that show what their process was given."""

import os
import subprocess
import sys
from typing import Any

from mlops_tasks.config import load_settings
from mlops_tasks.process import run_stage
from mlops_tasks.state.database import engine

PRINT_NAMES = "import os; print('\\n'.join(os.environ))"


def names() -> dict[str, Any]:
    """The names of this process's environment variables, of a child's, and of a stage's that it runs itself."""
    child = subprocess.run([sys.executable, "-c", PRINT_NAMES], capture_output=True, text=True, check=True)
    return {"own": sorted(os.environ), "child": child.stdout.split()}


def nested() -> dict[str, Any]:
    """What a stage that this one runs is given."""
    return run_stage("tests.security.example_stages:names", {}, time_limit_s=60)


def open_state() -> dict[str, Any]:
    """Reach for the state database."""
    return {"dialect": engine(load_settings().state_database).dialect.name}
