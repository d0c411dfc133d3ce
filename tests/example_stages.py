"""Stages for the tests of the process runner."""

import logging
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


def fail_with(*, error: str, message: str) -> dict:
    from mlops_tasks import errors

    raise getattr(errors, error)(message)


def talk() -> dict:
    log = logging.getLogger("tests.talk")
    log.info("on the way")
    log.warning("drift in 2 columns:\n  close\n  volume")
    print('{"level": "high"}')
    return {}["nothing"]


def talk_inside() -> dict:
    from mlops_tasks.process import run_stage

    return run_stage("tests.example_stages:talk", {}, time_limit_s=60)


def sleep_with_grandchild(*, pid_file: str) -> dict:
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    Path(pid_file + ".part").write_text(f"{os.getpid()} {grandchild.pid}")
    Path(pid_file + ".part").rename(pid_file)
    time.sleep(300)
    return {}
