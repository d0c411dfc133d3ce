"""How much memory a process of this machine, or of this container, may still take."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_MB = 1e6


def available_mb(root: Path = Path("/")) -> float:
    """The least of what the machine has available and what each control group around this process has left.

    `root` is where proc/ and sys/ are. Memory that holds cached files counts as available, as in MemAvailable.
    """
    return min([_machine_mb(root), *_groups_mb(root)])


def _machine_mb(root: Path) -> float:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 / _MB
    return float("inf")


def _groups_mb(root: Path) -> Iterator[float]:
    """What is left of the limit of each group, in control groups version 2 and 1."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            for mount in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
                for folder in _upwards(root / mount, path):
                    yield from _left(folder, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            for folder in _upwards(root / "sys/fs/cgroup/memory", path):
                yield from _left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """A group's folder and those above it; in a container its own path may be missing, and the mount is the group."""
    folder = mount / path.strip("/")
    while folder != mount:
        yield folder
        folder = folder.parent
    yield mount


def _left(folder: Path, limit: str, usage: str, cached: str) -> Iterator[float]:
    with suppress(OSError, ValueError):  # no such group, or `max`: no limit
        allowed, used = (int((folder / name).read_text()) for name in (limit, usage))
        lines = (folder / "memory.stat").read_text().splitlines()
        reclaimable = sum(int(line.split()[1]) for line in lines if line.split()[0] == cached)
        yield max(0.0, (allowed - used + reclaimable) / _MB)
