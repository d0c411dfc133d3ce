"""Close a Linux process off: from files, from other processes, from the network, from memory without end.

Landlock (kernel 5.13) leaves it the files that are named, seccomp the system calls that reach nothing beyond it
(`system_calls.py`). Both hold for root too, and for good, of the calling thread and those that it starts. So where a
whole process is closed off, no other thread may be running yet: standard library only, so that nothing has started one
before.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mlops_tasks.modeling.system_calls import MACHINES, restrict_calls

_LIBC = ctypes.CDLL(None, use_errno=True)

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_FILE_RIGHTS = {1: 1 << 13, 2: 1 << 14, 3: 1 << 15, 5: 1 << 16}
"""From which version of Landlock on rights up to which bit are known (version 4 added none)."""
_READ_FILE, _READ_FOLDER = 0b0101, 0b1101
"""Execute and read; for folders, list too. Execute is what a library is mapped with."""
_READ_WRITE = 0b0110 | 1 << 14
"""Of a file: read, write and truncate."""
_NETWORK_SINCE, _NETWORK = 4, 0b11
_SCOPES_SINCE, _SCOPES = 6, 0b11
"""Signals, and sockets without a path, of processes outside."""
_NO_NEW_PRIVILEGES = 38

_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/urandom"),
    *("/sys/devices/system/cpu", "/proc/cpuinfo", "/proc/meminfo", "/proc/self"),
)

_GPU_FILES = ("/proc/driver/nvidia", "/proc/modules", "/sys/bus/pci", "/sys/devices", "/sys/class/infiniband")

_STACK = 1 << 26
"""Bytes of the first thread's stack, which counts as no data; the others' stacks do."""
_DESCRIPTORS = 256
"""Open files at once: a pipe's content is counted by no limit on memory."""
_MORE_ADDRESSES = 1 << 36
"""Bytes of addresses beyond the limit on memory: libraries and reserved places cost little, their page tables most."""
_CAPABILITIES, _READ_ALL = 0x20080522, 1 << 2
"""Version of the structure, and what lets root read files that are another user's: that is left to Landlock."""


class SandboxError(OSError):
    """This system cannot close a process off."""


def close_off(readable: Path, hidden: Path, memory_mb: float) -> None:
    """Leave this process the interpreter's libraries, the folder `readable`, its open files and so much memory.

    Parameters
    ----------
    hidden
        A folder of which nothing may be read but what `readable` is, also where a library's folder lies around it.
    memory_mb
        Of 10^6 bytes.

    Raises
    ------
    SandboxError
        The kernel has no Landlock, or the processor is none that is known here.
    """
    machine = platform.machine()
    if machine not in MACHINES:
        raise SandboxError(f"its processor is {machine}; known are {', '.join(MACHINES)}")
    _limit(int(memory_mb * 1e6))
    _call("prctl(no new privileges)", _LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _drop_capabilities()
    _restrict_files([readable, *_libraries(hidden)])
    _call("seccomp", restrict_calls(machine))


def close_off_thread(writable: Sequence[Path], hidden: Path) -> None:
    """Leave the calling thread, and those that it will start, the interpreter's libraries and the folders `writable`.

    It keeps the process's memory and its open files: this stops code from reading what it should not, and is no prison
    for code that is out to do harm.

    Parameters
    ----------
    hidden
        A folder of which nothing may be read but `writable`, also where a library's folder lies around it.

    Raises
    ------
    SandboxError
        The kernel has no Landlock.
    """
    _call("prctl(no new privileges)", _LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _restrict_files([*_libraries(hidden), *map(Path, _GPU_FILES)], [*writable, *Path("/dev").glob("nvidia*")])


def _limit(memory: int) -> None:
    """Lower this process's limits for good, to `memory` bytes that it can write, and to fixed numbers of the rest."""
    limits = {
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_STACK: _STACK,
        resource.RLIMIT_AS: memory + _MORE_ADDRESSES,
        resource.RLIMIT_NOFILE: _DESCRIPTORS,
        resource.RLIMIT_CORE: 0,
    }
    for limit, most in limits.items():
        hard = resource.getrlimit(limit)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (allowed, allowed))


def _drop_capabilities() -> None:
    """Leave root no more than a user may do: its limits, say, would not hold."""
    header = struct.pack("=Ii", _CAPABILITIES, 0)
    sets = ctypes.create_string_buffer(24)
    _call("capget", _LIBC.capget(header, sets))
    kept = [each & (_READ_ALL if place < 2 else 0) for place, each in enumerate(struct.unpack("=6I", sets.raw))]
    _call("capset", _LIBC.capset(header, struct.pack("=6I", *kept)))


def _libraries(hidden: Path) -> list[Path]:
    roots = [Path(each) for each in (*_SYSTEM, sys.prefix, sys.base_prefix, *sys.path) if each]
    return [path for root in roots for path in _around(root, hidden.resolve())]


def _around(root: Path, hidden: Path) -> Iterator[Path]:
    """The folder, or, where it holds the hidden one, all that lies beside that."""
    root = root.resolve()
    if not hidden.is_relative_to(root):
        yield root
    elif root != hidden:
        for child in root.iterdir():
            yield from _around(child, hidden)


def _restrict_files(readable: Iterable[Path], writable: Iterable[Path] = ()) -> None:
    version = _LIBC.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        raise SandboxError("its kernel has no Landlock (Linux 5.13 and later, named in the boot option lsm=)")
    rights = next(bit for since, bit in sorted(_FILE_RIGHTS.items(), reverse=True) if version >= since) - 1
    network = _NETWORK if version >= _NETWORK_SINCE else 0
    scopes = _SCOPES if version >= _SCOPES_SINCE else 0
    attributes = struct.pack("QQQ", rights, network, scopes)
    ruleset = _call("landlock", _LIBC.syscall(_CREATE_RULESET, attributes, len(attributes), 0))
    for path in readable:
        _allow(ruleset, path, _READ_FOLDER if path.is_dir() else _READ_FILE)
    for path in writable:
        _allow(ruleset, path, rights if path.is_dir() else _READ_WRITE & rights)
    _allow(ruleset, Path(os.devnull), _READ_WRITE & rights)
    _call("landlock", _LIBC.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not there: nothing to read
    rule = struct.pack("=Qi", rights, opened)
    _call(f"landlock: {path}", _LIBC.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
    os.close(opened)


def _call(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise SandboxError(number, f"{what}: {os.strerror(number)}")
    return result
