"""A process that closes itself off and tries things: `python -m tests.security.confined <readable> <home> <what>`.

It prints a JSON object. What: `calls`, the numbers of the system calls that are not refused, of all that were asked
for; or the name of a way to take memory, and how much of a gigabyte it got.
"""

import ctypes
import errno
import json
import mmap
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlops_tasks.modeling.sandbox import close_off

LIMIT_MB = 300
WANTED = 1_000_000_000
PAGE = mmap.PAGESIZE
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = _LIBC.mremap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBC.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
_FAILED = ctypes.c_void_p(-1).value


def calls(numbers: list[int]) -> list[int]:
    """Those that are not refused: made with arguments that are 0, which none that is refused looks at."""
    allowed = []
    for number in numbers:
        ctypes.set_errno(0)
        answer = _LIBC.syscall(ctypes.c_long(number), *[ctypes.c_long(0)] * 6)
        if answer >= 0 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
            allowed.append(number)
    return allowed


def _touched(place: int | None) -> int:
    """Write a byte to each page of a gigabyte; how many bytes that was."""
    if place in (None, _FAILED):
        raise MemoryError(os.strerror(ctypes.get_errno()))
    for offset in range(0, WANTED, PAGE):
        ctypes.c_char.from_address(place + offset).value = b"x"  # type: ignore[operator]
    return WANTED


def _mapped(flags: int, rights: int = mmap.PROT_READ | mmap.PROT_WRITE, file: int = -1) -> int:
    return _touched(_LIBC.mmap(None, WANTED, rights, flags, file, 0))


def _made_writable() -> int:
    place = _LIBC.mmap(None, WANTED, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANON, -1, 0)
    if _LIBC.mprotect(ctypes.c_void_p(place), ctypes.c_size_t(WANTED), mmap.PROT_READ | mmap.PROT_WRITE):
        raise MemoryError
    return _touched(place)


def _grown_stack() -> int:
    stack = next(line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[stack]"))
    first, last = (int(each, 16) for each in stack.split()[0].split("-"))
    return _touched(_LIBC.mremap(first, last - first, WANTED, 1))


def _shared_file() -> int:
    file = os.memfd_create("hidden")
    os.ftruncate(file, WANTED)
    return _mapped(mmap.MAP_SHARED, file=file)


def _system_v() -> int:
    key = _LIBC.shmget(0, ctypes.c_size_t(WANTED), 0o1600)
    if key < 0:
        raise MemoryError
    _LIBC.shmat.restype = ctypes.c_void_p
    return _touched(_LIBC.shmat(key, None, 0))


def _lifted() -> int:
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)
    return len(bytearray(WANTED))


def _pipes() -> int:
    taken = 0
    while taken < WANTED:
        _, end = os.pipe()
        os.set_blocking(end, False)
        taken += os.write(end, bytes(1 << 16))
    return taken


WAYS: dict[str, Callable[[], int]] = {
    "the heap": lambda: len(bytearray(WANTED)),
    "a private mapping": lambda: _mapped(mmap.MAP_PRIVATE | mmap.MAP_ANON),
    "a shared mapping": lambda: _mapped(mmap.MAP_SHARED | mmap.MAP_ANON),
    "a shared mapping by its other name": lambda: _mapped(0x3 | mmap.MAP_ANON),
    "a stack": lambda: _mapped(mmap.MAP_PRIVATE | mmap.MAP_ANON | 0x100),
    "a mapping made writable": _made_writable,
    "the first thread's stack, grown": _grown_stack,
    "a file in memory": _shared_file,
    "System V": _system_v,
    "a lifted limit": _lifted,
    "pipes": _pipes,
}


def main() -> None:
    """Close off, try, and say what came of it."""
    readable, home, what = sys.argv[1:4]
    close_off(Path(readable), Path(home), LIMIT_MB)
    found: Any
    if what == "calls":
        found = calls(json.loads(sys.argv[4]))
    else:
        try:
            found = WAYS[what]()
        except (MemoryError, OSError, ValueError):
            found = 0
    os.write(1, json.dumps(found).encode())


if __name__ == "__main__":
    main()
