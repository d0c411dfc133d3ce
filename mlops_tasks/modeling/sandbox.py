"""Closes a Linux process off from files, from other processes, from the network, and from unlimited memory.

Landlock (kernel 5.13) leaves it the files that are named, seccomp the system calls that reach nothing outside it
(`system_calls.py`). Both apply to root too, and permanently, to the calling thread and those that it starts. So when a
whole process is closed off, no other thread may be running yet. This module therefore imports only the standard
library, which starts no thread.
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
"""Version of Landlock to the first bit beyond the rights that it knows (version 4 added none)."""
_READ_FILE, _READ_FOLDER = 0b0101, 0b1101
"""Execute and read; for folders, also list. Mapping a library needs execute."""
_READ_WRITE = 0b0110 | 1 << 14
"""For a file: read, write and truncate."""
_NETWORK_SINCE, _NETWORK = 4, 0b11
_SCOPES_SINCE, _SCOPES = 6, 0b11
"""Signals to processes outside, and their sockets without a path."""
_NO_NEW_PRIVILEGES = 38

_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/urandom"),
    *("/sys/devices/system/cpu", "/proc/cpuinfo", "/proc/meminfo", "/proc/self"),
)

_GPU_FILES = ("/proc/driver/nvidia", "/proc/modules", "/sys/bus/pci", "/sys/devices", "/sys/class/infiniband")

_STACK = 1 << 26
"""Bytes of the first thread's stack, which does not count as data; the stacks of other threads do."""
_DESCRIPTORS = 256
"""Open files at once: no limit on memory counts the content of a pipe."""
_MORE_ADDRESSES = 1 << 36
"""Bytes of address space beyond the limit on memory: libraries and reservations cost little, mostly page tables."""
_CAPABILITIES, _READ_ALL = 0x20080522, 1 << 2
"""Version of the structure, and the capability that lets root read other users' files, which is left to Landlock."""


class SandboxError(OSError):
    """This system cannot close a process off."""


def close_off(readable: Path, hidden: Path, memory_mb: float) -> None:
    """Leave this process the interpreter's libraries, the folder `readable`, its open files and this much memory.

    Parameters
    ----------
    hidden
        A folder of which only `readable` may be read, even if the folder of a library contains it.
    memory_mb
        In units of 10^6 bytes.

    Raises
    ------
    SandboxError
        The kernel has no Landlock, or the processor is not one of the supported ones.
    """
    machine = platform.machine()
    if machine not in MACHINES:
        raise SandboxError(f"its processor is {machine}; supported are {', '.join(MACHINES)}")
    _limit(int(memory_mb * 1e6))
    _call("prctl(no new privileges)", _LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _drop_capabilities()
    _restrict_files([readable, *_libraries(hidden)])
    _call("seccomp", restrict_calls(machine))


def close_off_thread(writable: Sequence[Path], hidden: Path) -> None:
    """Leave the calling thread, and those that it will start, the interpreter's libraries and the folders `writable`.

    It keeps the process's memory and its open files: this stops code from reading what it should not, but does not
    contain malicious code.

    Parameters
    ----------
    hidden
        A folder of which only `writable` may be read, even if the folder of a library contains it.

    Raises
    ------
    SandboxError
        The kernel has no Landlock.
    """
    _call("prctl(no new privileges)", _LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _restrict_files([*_libraries(hidden), *map(Path, _GPU_FILES)], [*writable, *Path("/dev").glob("nvidia*")])


def _limit(memory: int) -> None:
    """Lower this process's limits permanently: to `memory` writable bytes, and to fixed numbers of other resources."""
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
    """Leave root no more rights than a user: otherwise limits, for example, would not hold."""
    header = struct.pack("=Ii", _CAPABILITIES, 0)
    sets = ctypes.create_string_buffer(24)
    _call("capget", _LIBC.capget(header, sets))
    kept = [each & (_READ_ALL if place < 2 else 0) for place, each in enumerate(struct.unpack("=6I", sets.raw))]
    _call("capset", _LIBC.capset(header, struct.pack("=6I", *kept)))


def _libraries(hidden: Path) -> list[Path]:
    roots = [Path(each) for each in (*_SYSTEM, sys.prefix, sys.base_prefix, *sys.path) if each]
    return [path for root in roots for path in _around(root, hidden.resolve())]


def _around(root: Path, hidden: Path) -> Iterator[Path]:
    """The folder, or, if it contains the hidden one, everything else in it."""
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
        return  # it does not exist: nothing to read
    rule = struct.pack("=Qi", rights, opened)
    _call(f"landlock: {path}", _LIBC.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
    os.close(opened)


def _call(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise SandboxError(number, f"{what}: {os.strerror(number)}")
    return result
