"""Close a Linux process off: from files, from other processes, from the network, from memory without end.

Landlock (kernel 5.13) leaves it the files that are named, seccomp takes the system calls that reach beyond it. Both
hold for root too, and for good, of the calling thread and those that it starts. So where a whole process is closed off,
no other thread may be running yet: standard library only, so that nothing has started one before.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

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
_NO_NEW_PRIVILEGES, _SECCOMP, _SECCOMP_FILTER = 38, 22, 2

_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/urandom"),
    *("/sys/devices/system/cpu", "/proc/cpuinfo", "/proc/meminfo", "/proc/self"),
)

_GPU_FILES = ("/proc/driver/nvidia", "/proc/modules", "/sys/bus/pci", "/sys/devices", "/sys/class/infiniband")

_DENIED: Mapping[str, tuple[int, int]] = {
    **{"socket": (41, 198), "io_uring_setup": (425, 425), "execve": (59, 221), "execveat": (322, 281)},
    **{"kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138)},
    **{"rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434)},
    **{"pidfd_getfd": (438, 438), "ptrace": (101, 117), "process_vm_readv": (310, 270)},
    **{"process_vm_writev": (311, 271), "bpf": (321, 280), "perf_event_open": (298, 241), "add_key": (248, 217)},
    **{"request_key": (249, 218), "keyctl": (250, 219), "init_module": (175, 105), "finit_module": (313, 273)},
    **{"fork": (57, -1), "vfork": (58, -1)},
}
"""System calls that reach other processes or the network; their numbers on x86-64 and on ARM, -1: there is none."""
_MACHINES = ("x86_64", "aarch64")
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE, _CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
_CLONE_THREAD = 0x10000
_OTHER_ABI = 0x40000000
"""Numbers from here on are of x86's second set of calls."""
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _EPERM, _ENOSYS = 0x7FFF0000, 0x00050000, 1, 38


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
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory_mb * 1e6),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _call("prctl(no new privileges)", _LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _restrict_files([readable, *_libraries(hidden)])
    _restrict_calls(platform.machine())


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


def _restrict_calls(machine: str) -> None:
    if machine not in _MACHINES:
        raise SandboxError(f"its processor is {machine}; known are {', '.join(_MACHINES)}")
    program = b"".join(_filter(machine))
    content = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(content))
    _call("seccomp", _LIBC.prctl(_SECCOMP, _SECCOMP_FILTER, header, 0, 0))


def _filter(machine: str) -> Iterator[bytes]:
    """A program of classic BPF over (number, architecture, ..., first argument): one answer a system call."""
    yield from [_step(_LOAD, 4), _step(_EQUAL, _ARCHITECTURE[machine], 1, 0), _step(_RETURN, _ERROR | _EPERM)]
    yield from [_step(_LOAD, 0), _step(_AT_LEAST, _OTHER_ABI, 0, 1), _step(_RETURN, _ERROR | _EPERM)]
    column = _MACHINES.index(machine)
    for number in (row[column] for row in _DENIED.values() if row[column] >= 0):
        yield from [_step(_EQUAL, number, 0, 1), _step(_RETURN, _ERROR | _EPERM)]
    # The C library falls back to clone, whose flags can be seen here: threads are made, processes are not.
    yield from [_step(_EQUAL, _CLONE3, 0, 1), _step(_RETURN, _ERROR | _ENOSYS)]
    yield from [_step(_EQUAL, _CLONE[machine], 1, 0), _step(_RETURN, _ALLOW)]
    yield from [_step(_LOAD, 16), _step(_ANY_BIT, _CLONE_THREAD, 1, 0), _step(_RETURN, _ERROR | _EPERM)]
    yield _step(_RETURN, _ALLOW)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _call(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise SandboxError(number, f"{what}: {os.strerror(number)}")
    return result
