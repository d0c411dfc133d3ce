"""Waiting for what another process does."""

import time
from collections.abc import Callable

import psutil


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Until it holds; who looks leaves the core to what it waits for, for two thirds of the time at least."""
    began = time.monotonic()
    deadline = began + seconds
    while not condition():
        looked = time.monotonic()
        assert looked < deadline, "the condition did not come true in time"
        time.sleep(max(0.02, 2 * (looked - began)))
        began = time.monotonic()


def is_running(pid: int) -> bool:
    """Not ended, waited for or not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
