"""A closed-off process makes the system calls that are named, no others, and takes no memory beyond its limit."""

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlops_tasks.config import PROJECT
from mlops_tasks.modeling.system_calls import MACHINES
from tests.security.confined import WANTED, WAYS

HARMLESS = (
    *(
        "stat",
        "getcwd",
        "mmap",
        "munmap",
        "madvise",
        "mincore",
        "clone",
        "rt_sigaction",
        "clock_gettime",
        "gettimeofday",
    ),
    *("getpid", "gettid", "geteuid", "uname", "sysinfo", "getrusage", "sched_yield", "times", "statfs", "prlimit64"),
)
"""Some of what is allowed, to be made with arguments that are 0."""

OF_PROBES = frozenset({335, 336})
"""On x86-64: the kernel's own returns from probes, which it does not filter, and ends a process that makes them."""


def confined(folder: Path, what: str, *more: str) -> Any:
    """What `confined.py` says."""
    home = folder / "home"
    for each in (home, folder / "readable"):
        each.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.security.confined", str(folder / "readable"), str(home), what, *more]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def numbers_of(*names: str) -> set[int]:
    """Of system calls on this machine."""
    from mlops_tasks.modeling import system_calls

    column = MACHINES.index(platform.machine())
    return {system_calls._ALLOWED[name][column] for name in names or system_calls._ALLOWED} - {-1}


def test_every_call_that_is_not_named_is_refused(tmp_path: Path) -> None:
    """Of all numbers up to a thousand, those of x86's second set, and wild ones: EPERM, or ENOSYS for the newest."""
    named = numbers_of()
    others = sorted({*range(1000), *range(0x40000000, 0x40000250), 2**31 - 1} - named - OF_PROBES)
    assert len(others) > 1500
    assert confined(tmp_path, "calls", json.dumps(others)) == []


def test_what_is_named_is_let_through(tmp_path: Path) -> None:
    """The kernel answers; calls that are allowed with some arguments only are refused where 0 is none of them."""
    refused = numbers_of("clone", "prctl", "ioctl")
    harmless = numbers_of(*HARMLESS) - refused
    assert set(confined(tmp_path, "calls", json.dumps(sorted(harmless)))) == harmless
    assert confined(tmp_path, "calls", json.dumps(sorted(refused))) == []


@pytest.mark.parametrize("way", WAYS)
def test_no_way_leads_beyond_the_limit_of_memory(way: str, tmp_path: Path) -> None:
    """A gigabyte is not to be had where 300 MB are allowed, whatever kind of memory is asked for, by root neither."""
    assert confined(tmp_path, way) < WANTED


def test_memory_below_the_limit_is_to_be_had(tmp_path: Path) -> None:
    """The attacks above work where nothing is closed off, so it is the limit that ends them."""
    code = "from tests.security.confined import WAYS; print(WAYS['a shared mapping']())"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert int(done.stdout) == WANTED
