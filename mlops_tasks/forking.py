"""A process that imports what its children need and then only forks: they begin at once, and share what it has read."""

import contextlib
import gc
import importlib
import os
from collections.abc import Iterable
from pathlib import Path

from mlops_tasks.errors import StackError

_FORK_SAFE = ("jemalloc_bg_thd",)
"""Threads that are stopped and started around a fork by the library that they belong to."""
_THREADS = Path("/proc/self/task")


def import_before_forks(names: Iterable[str]) -> None:
    """Import modules; what is not installed is left out, and whoever needs it will say so.

    Raises
    ------
    StackError
        A thread runs now, which no child would have; only Linux can tell.
    """
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    _end_idle_threads()
    threads = [each for each in _THREADS.iterdir() if each.name != str(os.getpid())] if _THREADS.is_dir() else []
    if unsafe := {each.joinpath("comm").read_text().strip() for each in threads}.difference(_FORK_SAFE):
        raise StackError(f"a library has started threads while it was imported: {', '.join(unsafe)}")
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page


def _end_idle_threads() -> None:
    """Fork once: OpenBLAS ends its threads before a fork, and starts them again when it needs them."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
