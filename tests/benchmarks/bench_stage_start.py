"""A stage that does nothing, forked by the stage server, against a fresh interpreter that imports the same.

Processor seconds of the stage's process and its children, the server's own share included; a median of `ROUNDS`, one of
each in turn. `seconds` are those by the clock, `fresh_stage` the processor seconds of a stage in a fresh interpreter as
it is without a server, which imports what it needs and no more.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from mlops_tasks.config import PROJECT
from mlops_tasks.process import run_stage
from mlops_tasks.stage_process import ForkedProcess, FreshProcess

ROUNDS = 9
STAGE = "tests.example_stages:do_nothing"
IMPORTS = "from mlops_tasks.stage_server import preload; preload()"


def run() -> dict[str, Any]:
    """Both sides, warm."""
    with tempfile.TemporaryDirectory() as home:
        os.environ.update({"MLOPS_HOME": home, "PYTHONUNBUFFERED": "1"})
        hashed = {**os.environ, "PYTHONHASHSEED": "0"}
        server = subprocess.Popen([sys.executable, "-m", "mlops_tasks.stage_server"], cwd=PROJECT, env=hashed)
        try:
            socket = Path(home, "run", "stages.sock")
            while not socket.exists():
                time.sleep(0.05)
            _stage(server.pid, ForkedProcess)
            rounds = [(*_stage(server.pid, ForkedProcess), *_interpreter()) for _ in range(ROUNDS)]
        finally:
            server.kill()
            server.wait()
        fresh_stage = median(_stage(None, FreshProcess)[0] for _ in range(3))
    forked_cpu, forked_s, fresh_cpu, fresh_s = (median(values) for values in zip(*rounds, strict=True))
    return {
        "name": "stage_start",
        "ours": round(forked_cpu, 4),
        "peer": round(fresh_cpu, 4),
        "unit": "processor seconds",
        "ratio": round(fresh_cpu / forked_cpu, 1),
        "seconds": [round(forked_s, 3), round(fresh_s, 3)],
        "fresh_stage": round(fresh_stage, 2),
    }


def _stage(server: int | None, kind: type) -> tuple[float, float]:
    """Processor seconds and seconds of a stage."""
    children: list[Any] = []
    before, started = _used(server), time.perf_counter()
    run_stage(STAGE, {}, time_limit_s=60, on_start=children.append)
    seconds = time.perf_counter() - started
    assert isinstance(children[0], kind)
    time.sleep(0.2)  # until the server has waited for it
    return _used(server) - before, seconds


def _interpreter() -> tuple[float, float]:
    """The same of an interpreter that imports what the server has imported."""
    before, started = _used(None), time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], cwd=PROJECT, check=True, capture_output=True)
    return _used(None) - before, time.perf_counter() - started


def _used(server: int | None) -> float:
    """Processor seconds of all children that have ended: of this process, or of the server with its own."""
    if server is None:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime
    return sum(psutil.Process(server).cpu_times()[:4])
