"""Which process this is, and whether it is still alive, even if its id has been reused since."""

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Host, process id and start time of this process; plain JSON."""
    return {"host": this_host(), "pid": os.getpid(), "started": start_of(os.getpid())}


@cache
def this_host() -> str:
    """Identifies this machine since its last boot, and the container that this process runs in."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()}/{boot}/{Path('/proc/self/ns/pid').readlink()}"


def is_gone(process: Mapping[str, Any]) -> bool:
    """Whether a process of this host, as `this_process` described it, has ended."""
    return start_of(process["pid"]) != process["started"]


def start_of(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
