"""Stages that show what their process was given."""

import atexit
import os
import subprocess
import sys
from pathlib import Path
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


def open_state_inside() -> dict[str, Any]:
    """The same in a stage that this one runs."""
    return run_stage("tests.security.example_stages:open_state", {}, time_limit_s=60)


def leave_a_child(*, pid_file: str) -> dict[str, Any]:
    """End well while something that it has started goes on."""
    sleep, away = "import time; time.sleep(300)", subprocess.DEVNULL
    child = subprocess.Popen([sys.executable, "-c", sleep], stdin=away, stdout=away, stderr=away)
    Path(pid_file).write_text(str(child.pid))
    return {}


def fail_at_exit() -> dict[str, Any]:
    """Fail when the result is written already."""
    atexit.register(os._exit, 3)
    return {}


def write_no_text() -> dict[str, Any]:
    """Print what is no text in any encoding that is common."""
    os.write(1, b"\xff\xfe\x00 odd\n")
    return {"written": True}
