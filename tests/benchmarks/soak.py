"""An honest client beside a hostile one, and the memory of the service that both ask."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.serving.client import ScoringClient

PAUSE_S = 0.02


@contextmanager
def running_service(
    settings: Settings, environ: dict[str, str], before: Sequence[str] = ()
) -> Iterator["subprocess.Popen[bytes]"]:
    """The service as `make up` starts it, once it has the newest day; `before` is put before its command."""
    command = [*before, sys.executable, "-m", "mlops_tasks.serving"]
    with (settings.home / "scoring.log").open("w") as log:
        process = subprocess.Popen(command, cwd=PROJECT, env=environ, stdout=log, stderr=log)
    try:
        with ScoringClient(settings) as client:
            until = time.monotonic() + 300
            while True:
                try:
                    if client.health()["newest_date"]:
                        break
                except Exception:
                    assert time.monotonic() < until and process.poll() is None, "the service did not start"
                time.sleep(0.1)
            client.score()
        yield process
    finally:
        process.terminate()
        process.wait(60)


@dataclass
class Honest:
    """What a client saw that asked for the newest day now and then."""

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def p99_ms(self) -> float:
        """Of the answers."""
        return float(np.percentile(self.seconds, 99) * 1000)

    @property
    def p50_ms(self) -> float:
        """Of the answers."""
        return float(np.percentile(self.seconds, 50) * 1000)


def ask_newest_day(settings: Settings, seconds: float) -> Honest:
    """Ask for so long."""
    seen = Honest()
    until = time.monotonic() + seconds
    with ScoringClient(settings) as client:
        while time.monotonic() < until:
            began = time.perf_counter()
            try:
                client.score()
            except Exception as error:
                seen.failed.append(str(error))
            seen.seconds.append(time.perf_counter() - began)
            time.sleep(PAUSE_S)
    return seen


@contextmanager
def peak_memory(pid: int) -> Iterator[list[float]]:
    """The largest memory (10^6 bytes, resident) of a process and its children while the block runs: the only item."""
    peak, stop = [0.0], threading.Event()

    def sample() -> None:
        while not stop.wait(0.1):
            processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            used = 0
            for each in processes:
                try:
                    used += each.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], used / 1e6)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


@contextmanager
def worker_killed(supervisor: int, after_s: float) -> Iterator[None]:
    """Kill a worker of a service once so long has gone by, if the block runs that long."""
    timer = threading.Timer(after_s, psutil.Process(supervisor).children()[0].kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def under_attack(settings: Settings, environ: dict[str, str], seconds: float, days: list[str]) -> tuple[Honest, Any]:
    """What the honest client saw beside the hostile one, and what that one counted."""
    port = str(settings.stack.scoring_port)
    command = [sys.executable, "-m", "tests.benchmarks.hostile_client", port, str(seconds + 2), json.dumps(days)]
    hostile = subprocess.Popen(command, cwd=PROJECT, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(2)
        seen = ask_newest_day(settings, seconds)
        said, _ = hostile.communicate(timeout=120)
    finally:
        hostile.kill()
    return seen, json.loads(said.splitlines()[-1])
