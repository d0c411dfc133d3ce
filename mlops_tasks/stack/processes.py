"""Find and end the processes of this home's stack. Nothing else is ever touched.

A process is ours if its environment contains this home's id. Airflow renames its processes and thereby overwrites the
environment that the system shows, so two more kinds count: descendants of ours, and members of our keeper's session
whose environment is unreadable.
"""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from mlops_tasks.stack.environment import STACK_ID


@dataclass(frozen=True)
class ProcessId:
    """A unique identity of a process: pids are reused, but a pid with its start time is not."""

    pid: int
    started: str

    def process(self) -> psutil.Process | None:
        """The living process, or None."""
        try:
            process = psutil.Process(self.pid)
            alive = _started(self.pid) == self.started and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return None
        return process if alive else None


@dataclass(frozen=True)
class _Row:
    process: psutil.Process
    parent: int
    session: int
    stack_id: str | None
    renamed: bool


def identify(pid: int) -> ProcessId:
    """The identity of a running process."""
    return ProcessId(pid, _started(pid))


def own_processes(stack_id: str, keeper: ProcessId | None) -> list[psutil.Process]:
    """Every running process of the stack `stack_id`, without the caller and its ancestors.

    Parameters
    ----------
    keeper
        The process that leads the session in which the services run, whether it is running or not.
    """
    rows = _table()
    session = _session_of(keeper, rows)
    own = {
        pid
        for pid, row in rows.items()
        if row.stack_id == stack_id or (row.renamed and session is not None and row.session == session)
    }
    if keeper is not None and keeper.process() is not None:
        own.add(keeper.pid)
    own |= _descendants(own, rows, stack_id)
    own -= {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [rows[pid].process for pid in sorted(own) if pid in rows]


def end_processes(processes: Iterable[psutil.Process], grace_s: float) -> None:
    """Ask each process to end, and kill the rest after `grace_s` seconds; psutil guards against reused pids."""
    listed = list(processes)
    for process in listed:
        _signal(process, kill=False)
    _, alive = psutil.wait_procs(listed, timeout=grace_s)
    for process in alive:
        _signal(process, kill=True)
    psutil.wait_procs(alive, timeout=5)


def sweep(stack_id: str, keeper: ProcessId | None, grace_s: float = 5.0) -> int:
    """End all remaining processes of the stack; returns their number.

    It searches until it finds none twice in a row: a process may start another one while it is being ended, and one
    that is just being loaded shows no environment.
    """
    ended = 0
    empty_looks = 0
    deadline = time.monotonic() + 12 * max(grace_s, 1.0)
    while empty_looks < 2 and time.monotonic() < deadline:
        left = own_processes(stack_id, keeper)
        end_processes(left, grace_s)
        ended += len(left)
        empty_looks = 0 if left else empty_looks + 1
        time.sleep(0.1)
    return ended


def _started(pid: int) -> str:
    """When a process started, in a form that does not depend on the clock if the system has one.

    Raises
    ------
    psutil.NoSuchProcess
        It is gone.
    """
    try:
        stat = Path("/proc", str(pid), "stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{psutil.Process(pid).create_time():.0f}"
    ticks = stat.rpartition(")")[2].split()[19]  # proc(5): field 22, after the name, which may contain anything
    return f"{boot}:{ticks}"


def _table() -> dict[int, _Row]:
    rows = {}
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            environ = process.environ()
            rows[process.pid] = _Row(
                process, process.ppid(), os.getsid(process.pid), environ.get(STACK_ID), "PATH" not in environ
            )
        except (psutil.Error, OSError):
            continue
    return rows


def _session_of(keeper: ProcessId | None, rows: dict[int, _Row]) -> int | None:
    """The keeper's session, unless its pid has been reused by another process."""
    if keeper is None or (keeper.pid in rows and keeper.process() is None):
        return None
    return keeper.pid


def _descendants(roots: set[int], rows: dict[int, _Row], stack_id: str) -> set[int]:
    """All descendants of `roots`, except processes with the id of another stack and their descendants."""
    found: set[int] = set()
    frontier = set(roots)
    while frontier:
        frontier = {
            pid
            for pid, row in rows.items()
            if row.parent in frontier and pid not in found and pid not in roots and row.stack_id in (None, stack_id)
        }
        found |= frontier
    return found


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.Error:
        return
