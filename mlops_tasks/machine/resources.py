"""What a training's processes use, read from /proc: a few hundred microseconds a sample, no library, no connection."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
_MB = 1e6
GPU_EVERY_S = 30.0
"""How often `nvidia-smi` is called; it takes far longer than the rest of a sample."""


@dataclass
class ProcessOrigin:
    """Where this process comes from."""

    inherited_mb: float = 0.0
    """Memory that it shares with the process that it was forked from, which does not count as its own."""


_origin = ProcessOrigin()


@dataclass(frozen=True)
class Usage:
    """What a process and its descendants have used up to one moment."""

    rss_mb: float = 0.0
    """Resident memory now; pages that processes share count in each."""
    peak_mb: float = 0.0
    """The most resident memory that any one of them has ever had."""
    cpu_s: float = 0.0
    """Processor time, including that of descendants that have ended."""
    read_mb: float = 0.0
    """From the disk; so is `written_mb`."""
    written_mb: float = 0.0
    threads: int = 0
    processes: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.rss_mb + other.rss_mb,
            max(self.peak_mb, other.peak_mb),
            self.cpu_s + other.cpu_s,
            self.read_mb + other.read_mb,
            self.written_mb + other.written_mb,
            self.threads + other.threads,
            self.processes + other.processes,
        )


def mark_inherited() -> float:
    """In a process that has just been forked: what it holds now does not count as its own. Returns that in MB."""
    _origin.inherited_mb = _usage_of(os.getpid()).rss_mb
    return _origin.inherited_mb


def usage_of_tree(pid: int, inherited_mb: float = 0.0) -> Usage:
    """What a process and its descendants use, beyond what it inherited; zeros when it is gone."""
    used = {each: _usage_of(each) for each in tree_of(pid)}
    first = used[pid]
    own = [max(0.0, memory_mb - inherited_mb) for memory_mb in (first.rss_mb, first.peak_mb)]
    used[pid] = replace(first, rss_mb=own[0], peak_mb=own[1])
    return sum(used.values(), Usage())


def tree_of(pid: int) -> Iterator[int]:
    """Ids of a process and of its descendants that still exist."""
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                for child in (task / "children").read_text().split():
                    yield from tree_of(int(child))


def _usage_of(pid: int) -> Usage:
    """One process, including what its children that have ended used; zeros if it is gone."""
    folder = Path(f"/proc/{pid}")
    try:
        stat = (folder / "stat").read_text().rpartition(")")[2].split()
        status = _fields(folder / "status")
        io = _fields(folder / "io")
    except OSError:  # it has ended in the meantime
        return Usage()
    if "VmRSS" not in status:
        return Usage()
    return Usage(
        rss_mb=int(status["VmRSS"].split()[0]) * 1024 / _MB,
        peak_mb=int(status["VmHWM"].split()[0]) * 1024 / _MB,
        cpu_s=sum(map(int, stat[11:15])) / _TICKS,
        read_mb=int(io["read_bytes"]) / _MB,
        written_mb=int(io["write_bytes"]) / _MB,
        threads=int(status["Threads"]),
        processes=1,
    )


def _fields(path: Path) -> dict[str, str]:
    return dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)


def used_so_far() -> dict[str, float]:
    """Peak and totals of this process and its descendants, as a training records them among its metrics."""
    return _totals(usage_of_tree(os.getpid(), _origin.inherited_mb))


def _totals(usage: Usage) -> dict[str, float]:
    return {
        "peak_memory_mb": round(usage.peak_mb, 1),
        "cpu_seconds": round(usage.cpu_s, 2),
        "read_mb": round(usage.read_mb, 1),
        "written_mb": round(usage.written_mb, 1),
    }


class ResourceSampler:
    """Samples a process with its descendants, from outside."""

    def __init__(self, pid: int, inherited_mb: float = 0.0) -> None:
        self.pid, self.inherited_mb = pid, inherited_mb
        self._newest = Usage()
        self._peak_mb = 0.0
        self._at = time.monotonic()
        self._gpu = GpuProbe()

    def sample(self) -> dict[str, Any]:
        """Use since the last sample and at present, as an event's payload; empty when the process is gone.

        `cpu_percent`: of one core; `gpu_percent`, `gpu_memory_mb`: of all GPUs of the machine, where there are any.
        """
        usage, moment = usage_of_tree(self.pid, self.inherited_mb), time.monotonic()
        if not usage.processes:
            return {}
        seconds = max(moment - self._at, 1e-9)
        # The time of a descendant that ended without being waited for is lost.
        cpu_s = max(0.0, usage.cpu_s - self._newest.cpu_s)
        self._peak_mb = max(self._peak_mb, usage.rss_mb, usage.peak_mb)
        self._newest, self._at = usage, moment
        return {
            "cpu_percent": round(100 * cpu_s / seconds, 1),
            "rss_mb": round(usage.rss_mb, 1),
            "threads": usage.threads,
            "processes": usage.processes,
            **self.totals(),
            **self._gpu.read(),
        }

    def totals(self) -> dict[str, float]:
        """Peak and totals up to the newest sample."""
        return {**_totals(self._newest), "peak_memory_mb": round(self._peak_mb, 1)}


class GpuProbe:
    """Calls `nvidia-smi` now and then, and never waits for its answer."""

    def __init__(self, every_s: float = GPU_EVERY_S) -> None:
        self._program = shutil.which("nvidia-smi")
        self._every_s = every_s
        self._asked: subprocess.Popen[str] | None = None
        self._asked_at = -every_s
        self._newest: dict[str, float] = {}

    def read(self) -> dict[str, float]:
        """Mean utilisation and memory in use of the machine's GPUs, by the newest answer; empty without any."""
        if self._asked is not None and self._asked.poll() is not None:
            self._newest = _parse_gpus(self._asked.communicate()[0])
            self._asked = None
        if self._program and self._asked is None and time.monotonic() - self._asked_at >= self._every_s:
            self._asked_at = time.monotonic()
            query = [self._program, "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
            with suppress(OSError):
                self._asked = subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return self._newest


def _parse_gpus(answer: str) -> dict[str, float]:
    """From lines `<percent>, <MiB>`, one per GPU; other lines (of a driver that does not answer) are left out."""
    gpus = []
    for line in answer.splitlines():
        with suppress(ValueError):
            percent, mebibytes = map(float, line.split(","))
            gpus.append((percent, mebibytes * 1024**2 / _MB))
    if not gpus:
        return {}
    used = sum(memory for _, memory in gpus)
    return {"gpu_percent": round(sum(p for p, _ in gpus) / len(gpus), 1), "gpu_memory_mb": round(used, 1)}
