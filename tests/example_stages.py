"""Stages for the tests of the process runner."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path


def double(*, number: int) -> dict:
    print("doubling", number)
    return {"number": 2 * number}


def tell(**given: object) -> dict:
    return given


def do_nothing() -> dict:
    return {}


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


def look_around() -> dict:
    print("looking around")
    umask = os.umask(0)
    os.umask(umask)
    return {
        "folder": str(Path.cwd()),
        "path": sys.path,
        "environment": sorted(os.environ),
        "umask": umask,
        "leads": os.getpid() == os.getpgid(0) == os.getsid(0),
        "threads": [thread.name for thread in threading.enumerate()][1:],
        "modules": len(sys.modules),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "arguments": len(sys.argv),
        "hash": hash("alphaops"),
    }


def use_memory(*, mb: int) -> dict:
    """What this process is said to use while it holds so much, and what it has in all."""
    from mlops_tasks.machine.resources import usage_of_tree, used_so_far

    kept = bytearray(os.urandom(1_000_000) * mb)
    return {"own": used_so_far()["peak_memory_mb"], "all": usage_of_tree(os.getpid()).rss_mb, "kept": len(kept)}


def leave(*, status: int) -> dict:
    sys.exit(status)


def leak(*, mb: int, secret: str) -> dict:
    """Keep memory and threads, and show that the secret is here."""
    kept = [bytearray(1_000_000) for _ in range(mb)]
    for _ in range(8):
        threading.Thread(target=time.sleep, args=(300,), daemon=True).start()
    assert len(kept) == mb
    assert secret in json.dumps(dict(os.environ)) or secret in " ".join(sys.argv)
    return {"threads": threading.active_count()}


def wait_for_file(*, begun: str, go_on: str, status: int = 0) -> dict:
    Path(begun).touch()
    while not Path(go_on).exists():
        time.sleep(0.02)
    if status:
        sys.exit(status)
    return {"waited": True}


def sleep_with_grandchild(*, pid_file: str) -> dict:
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    Path(pid_file + ".part").write_text(f"{os.getpid()} {grandchild.pid}")
    Path(pid_file + ".part").rename(pid_file)
    time.sleep(300)
    return {}


def fail_and_count(*, error: str, message: str, tries: str) -> dict:
    """Leave a character for each call, and fail."""
    with Path(tries).open("a") as file:
        file.write("x")
    if error == "KeyError":
        raise KeyError(message)
    return fail_with(error=error, message=message)
