"""A model that, where it is unpickled, tries what a stranger's code would try; its scores say what it could do."""

import ctypes
import fcntl
import mmap
import os
import platform
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

REFUSED, ALLOWED = 0.0, 1.0
DIE, PRINT, FLOOD = 7.0, 8.0, 9.0
"""Values of the first feature that let it end its process, print to where answers go, or take all memory."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_PLACES = ctypes.create_string_buffer(16)
_ON_ARM = platform.machine() == "aarch64"
_IO_PRIORITY, _COMPARE, _READ_MEMORY = (30, 272, 270) if _ON_ARM else (251, 312, 310)
_SCHEDULER_OF, _ROBUST_LIST_OF = (120, 100) if _ON_ARM else (145, 274)
_OPEN_PROCESS, _ADVISE_PROCESS, _RING = 434, 440, 425


def system_call(number: int, *arguments: int) -> None:
    """Make a system call.

    Raises
    ------
    OSError
        It is refused, or fails.
    """
    if _LIBC.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")


def probes(home: Path, owner: int) -> dict[str, Callable[[], Any]]:
    """What is tried; each raises where it is refused."""
    secret = home / "secrets" / "signing_key"
    return {**_file_probes(home, secret), **_process_probes(owner), **_own_probes(), **_network_probes()}


def _file_probes(home: Path, secret: Path) -> dict[str, Callable[[], Any]]:
    return {
        "read a secret": secret.read_text,
        "list the home": lambda: list(home.iterdir()),
        "read the state database": (home / "state" / "state.db").read_bytes,
        "read the machine's users": Path("/etc/passwd").read_text,
        "leave a file": lambda: Path("/tmp/mark-of-a-model").write_text("here"),
        "change its own artefact": lambda: Path(sys.argv[1]).open("w"),
        "open a secret to everybody": lambda: secret.chmod(0o777),
        "change a secret's time": lambda: os.utime(secret),
        "give a secret away": lambda: os.chown(secret, os.getuid(), os.getgid()),
        "mark a secret": lambda: os.setxattr(secret, "user.mark", b"here"),
        "lock a library": lambda: fcntl.flock(os.open(os.__file__, os.O_RDONLY), fcntl.LOCK_EX),
        "move to another root": lambda: os.chroot("/usr"),
    }


def _process_probes(owner: int) -> dict[str, Callable[[], Any]]:
    read_end = os.dup(2)
    return {
        "read the owner's variables": Path(f"/proc/{owner}/environ").read_bytes,
        "have a variable of its owner": lambda: os.environ["MLOPS_SCORING_TOKEN"],
        "end its owner": lambda: os.kill(owner, 0),
        "see its owner's limits": lambda: resource.prlimit(owner, resource.RLIMIT_NOFILE),
        "lower its owner's limits": lambda: resource.prlimit(owner, resource.RLIMIT_CPU, (10**6, 10**6)),
        "slow its owner": lambda: os.setpriority(os.PRIO_PROCESS, owner, os.getpriority(os.PRIO_PROCESS, owner)),
        "see how its owner is scheduled": lambda: system_call(_SCHEDULER_OF, owner),
        "bind its owner to cores": lambda: os.sched_setaffinity(owner, os.sched_getaffinity(owner)),
        "schedule its owner": lambda: os.sched_setscheduler(owner, os.SCHED_BATCH, os.sched_param(0)),
        "let its owner's disk wait": lambda: system_call(_IO_PRIORITY, 1, owner, 3 << 13),
        "hold its owner": lambda: system_call(_OPEN_PROCESS, owner, 0),
        "advise its owner's memory": lambda: system_call(_ADVISE_PROCESS, read_end, 0, 0, 20, 0),
        "read its owner's memory": lambda: system_call(_READ_MEMORY, owner, 0, 0, 0, 0, 0),
        "compare itself with its owner": lambda: system_call(_COMPARE, os.getpid(), owner, 2, 0, 0),
        "see where its owner keeps locks": lambda: system_call(_ROBUST_LIST_OF, owner, *_two_places()),
        "have its owner signalled": lambda: fcntl.fcntl(read_end, fcntl.F_SETOWN, owner),
        "see its owner's group": lambda: os.getpgid(owner),
    }


def _own_probes() -> dict[str, Callable[[], Any]]:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    return {
        "start a program": lambda: subprocess.run(["/bin/true"], check=True),
        "make a process": lambda: os.fork() or os._exit(0),
        "lift its limit of memory": lambda: resource.setrlimit(resource.RLIMIT_DATA, unlimited),
        "lower its limit of memory": lambda: resource.setrlimit(resource.RLIMIT_DATA, (10**9, 10**9)),
        "share memory": lambda: mmap.mmap(-1, 1 << 20),
        "have memory that is a file": lambda: os.memfd_create("hidden"),
        "have a stack of its own": lambda: mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON | 0x100),
        "pipe": os.pipe,
        "have a ring": lambda: system_call(_RING, 1, 0),
    }


def _network_probes() -> dict[str, Callable[[], Any]]:
    return {
        "reach the network": lambda: socket.create_connection(("127.0.0.1", 1), 1),
        "reach a socket file": lambda: socket.socket(socket.AF_UNIX),
        "have two sockets": socket.socketpair,
    }


def _two_places() -> tuple[int, int]:
    return ctypes.addressof(_PLACES), ctypes.addressof(_PLACES) + 8


class Prober:
    """Tries everything when it is unpickled; row n scores whether probe n was allowed."""

    def __init__(self, home: Path, owner: int) -> None:
        self.home, self.owner = home, owner

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.found = []
        for probe in probes(state["home"], state["owner"]).values():
            try:
                probe()
            except (OSError, ValueError, KeyError, subprocess.SubprocessError):
                self.found.append(REFUSED)
            else:
                self.found.append(ALLOWED)

    def predict(self, dataset: Any, segment: str) -> Any:
        """One number a row; the first feature may ask for mischief."""
        first = dataset.prepare(segment, col_set="feature").to_numpy()[:, 0]
        if first[0] == DIE:
            os._exit(3)
        if first[0] == FLOOD:
            np.ones(10**10).sum()
        if first[0] == PRINT:
            print("x" * 10_000, flush=True)
        return np.resize(np.array(self.found), len(first))
