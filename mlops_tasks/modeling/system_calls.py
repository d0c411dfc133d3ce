"""The system calls that a closed-off process may make, as a seccomp program: all others are refused.

The allowed calls compute in the process's own memory and threads, ask for the time, read files that Landlock lets it
open, and use the streams that it was given. None of them names another process, changes a file's rights or a limit, or
takes memory that no limit counts. Calls that Linux adds later are refused too.
"""

import ctypes
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MACHINES = ("x86_64", "aarch64")

_ALLOWED: Mapping[str, tuple[int, int]] = {
    # Its streams, and files.
    **{"read": (0, 63), "pread64": (17, 67), "readv": (19, 65), "preadv": (295, 69), "write": (1, 64)},
    **{"writev": (20, 66), "lseek": (8, 62), "close": (3, 57), "open": (2, -1), "openat": (257, 56), "stat": (4, -1)},
    **{"fstat": (5, 80), "lstat": (6, -1), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, -1)},
    **{"faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, -1), "readlinkat": (267, 78)},
    **{"getdents64": (217, 61), "getcwd": (79, 17), "statfs": (137, 43), "fstatfs": (138, 44)},
    **{"fadvise64": (221, 223), "readahead": (187, 213), "dup": (32, 23), "dup2": (33, -1), "dup3": (292, 24)},
    **{"poll": (7, -1), "ppoll": (271, 73), "select": (23, -1), "pselect6": (270, 72), "fcntl": (72, 25)},
    **{"ioctl": (16, 29)},
    # Its own memory; without mremap, which could grow the first thread's stack and which C libraries can do without.
    **{"mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "madvise": (28, 233)},
    **{"brk": (12, 214), "mincore": (27, 232)},
    # Its own threads and signal handlers.
    **{"futex": (202, 98), "clone": (56, 220), "set_robust_list": (273, 99)},
    **{"rseq": (334, 293), "exit": (60, 93), "exit_group": (231, 94), "sched_yield": (24, 124), "prctl": (157, 167)},
    **{"sched_getaffinity": (204, 123), "sched_setaffinity": (203, 122), "sched_get_priority_max": (146, 125)},
    **{"sched_get_priority_min": (147, 126), "gettid": (186, 178), "getcpu": (309, 168)},
    **{"rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132)},
    **{"restart_syscall": (219, 128)},
    # The time, its identity and its place.
    **{"clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101)},
    **{"gettimeofday": (96, 169), "time": (201, -1), "times": (100, 153), "getrusage": (98, 165)},
    **{"getrandom": (318, 278), "uname": (63, 160), "sysinfo": (99, 179), "getpid": (39, 172), "getppid": (110, 173)},
    **{"getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177)},
    **{"getrlimit": (97, 163), "prlimit64": (302, 261)},
}
"""Numbers on x86-64 and on arm64; -1: there is none."""


@dataclass(frozen=True)
class _OneOf:
    """Half of an argument is one of some values."""

    word: int
    """Arguments have two words of 32 bits each, the lower one first."""
    values: tuple[int, ...]


@dataclass(frozen=True)
class _Has:
    """A bit is set."""

    word: int
    bit: int


@dataclass(frozen=True)
class _NotAllOf:
    """Some bits are not all set."""

    word: int
    bits: int


_THREAD = 0x10000
_SHARED, _ANONYMOUS, _GROWS_DOWN = 0x1, 0x20, 0x100
_DUPLICATE, _SET_FLAGS, _DUPLICATE_CLOSING = 0, 4, 1030
_IS_TERMINAL, _CLOSING, _NOT_CLOSING, _READABLE = 0x5401, 0x5451, 0x5450, 0x541B
_SET_NAME, _GET_NAME, _NAME_MEMORY = 15, 16, 0x53564D41

_CONDITIONS: Mapping[str, tuple[_OneOf | _Has | _NotAllOf, ...]] = {
    "clone": (_Has(0, _THREAD),),  # no process
    # Memory that RLIMIT_DATA does not count: shared, or a stack.
    "mmap": (_NotAllOf(6, _SHARED | _ANONYMOUS), _NotAllOf(6, _GROWS_DOWN)),
    "prlimit64": (_OneOf(0, (0,)), _OneOf(4, (0,)), _OneOf(5, (0,))),  # query its own
    "sched_setaffinity": (_OneOf(0, (0,)),),  # its own
    "prctl": (_OneOf(0, (_SET_NAME, _GET_NAME, _NAME_MEMORY)),),
    "fcntl": (_OneOf(2, (*range(_DUPLICATE, _SET_FLAGS + 1), _DUPLICATE_CLOSING)),),  # no locks, owners or signals
    "ioctl": (_OneOf(2, (_IS_TERMINAL, _CLOSING, _NOT_CLOSING, _READABLE)),),
}
"""Calls that are allowed only with some arguments."""

_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SINCE_5 = 424
"""Calls from here on came with Linux 5.1 or later: C libraries try them first and can do without them."""
_OTHER_ABI = 0x40000000
"""Numbers from here on belong to x86's second set of calls (x32)."""
_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _EPERM, _ENOSYS = 0x7FFF0000, 0x00050000, 1, 38
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16
"""Offsets of the fields of the data that the kernel gives to a seccomp program."""
_SECCOMP, _SECCOMP_FILTER = 22, 2

_LIBC = ctypes.CDLL(None, use_errno=True)


def restrict_calls(machine: str) -> int:
    """Refuse all other calls to the calling thread and to those that it will start.

    Parameters
    ----------
    machine
        One of `MACHINES`.

    Returns
    -------
    The result of `prctl`: below 0 if it failed.
    """
    program = b"".join(_program(machine))
    content = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(content))
    result: int = _LIBC.prctl(_SECCOMP, _SECCOMP_FILTER, header, 0, 0)
    return result


def _program(machine: str) -> Iterator[bytes]:
    """A classic BPF program that gives one answer per system call."""
    yield from [_step(_LOAD, _MACHINE), _step(_EQUAL, _ARCHITECTURE[machine], 1, 0), _refuse()]
    yield from [_step(_LOAD, _NUMBER), _step(_AT_LEAST, _OTHER_ABI, 0, 1), _refuse()]
    column = MACHINES.index(machine)
    for name, numbers in _ALLOWED.items():
        if numbers[column] < 0:
            continue
        answer = [step for each in _CONDITIONS.get(name, ()) for step in _demand(each)] + [_step(_RETURN, _ALLOW)]
        yield from [_step(_EQUAL, numbers[column], 0, len(answer)), *answer]
    yield from [_step(_AT_LEAST, _SINCE_5, 0, 1), _refuse(_ENOSYS), _refuse()]


def _demand(condition: _OneOf | _Has | _NotAllOf) -> list[bytes]:
    """Continue after these steps if the condition holds, and refuse if not."""
    load = _step(_LOAD, _ARGUMENTS + 4 * condition.word)
    match condition:
        case _OneOf(_, values):
            tests = [_step(_EQUAL, value, len(values) - place, 0) for place, value in enumerate(values)]
            return [load, *tests, _refuse()]
        case _Has(_, bit):
            return [load, _step(_ANY_BIT, bit, 1, 0), _refuse()]
        case _NotAllOf(_, bits):
            return [load, _step(_AND, bits), _step(_EQUAL, bits, 0, 1), _refuse()]


def _refuse(error: int = _EPERM) -> bytes:
    return _step(_RETURN, _ERROR | error)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
