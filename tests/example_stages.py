"""Stages for the tests of the process runner."""

import os
import subprocess
import sys
import time
from pathlib import Path


def double(*, number: int) -> dict:
    print("doubling", number)
    return {"number": 2 * number}


def fail() -> dict:
    from mlops_tasks.errors import TrainingError

    raise TrainingError("segment test is empty; choose other dates")


def sleep_with_grandchild(*, pid_file: str) -> dict:
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    Path(pid_file + ".part").write_text(f"{os.getpid()} {grandchild.pid}")
    Path(pid_file + ".part").rename(pid_file)
    time.sleep(300)
    return {}
