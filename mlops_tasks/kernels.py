"""Compiled kernels: compiled once, when the environment is made, and loaded by every process from one cache.

A kernel states the types of its arguments where it is defined, so all of them can be compiled before anybody calls
them: `alphaops compile`, which `make env` and `make up` run. The cache lies in the environment (or where
`NUMBA_CACHE_DIR` says; in the user's cache folder where that is not writable, or writable by all), in a folder that is
named by the code of all kernels and their modules, the version of the compiler and the processor. What is missing there
is compiled at its first call.
"""

import fcntl
import hashlib
import importlib
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mlops_tasks.private import is_foreign, mode_of

MODULES = (
    "mlops_tasks.features.kernels",
    "mlops_tasks.features.indicators.kernels",
    "mlops_tasks.data.validation.measure_kernels",
    "mlops_tasks.modeling.metrics",
    "mlops_tasks.modeling.model_zoo.forest_kernel",
    "mlops_tasks.explain.kernels",
    "mlops_tasks.monitoring.kernels",
    "mlops_tasks.experiments.hashing",
)
"""Where kernels are defined, those that take longest to compile first."""

_KEPT_S = 30 * 86_400
"""Compiled code of other versions is removed when it is so old: another checkout may share the environment."""

_COMPLETE = "complete"
"""File that says that every kernel has been compiled."""


@dataclass(frozen=True)
class Kernel:
    """A compiled function and the types of the arguments that it is called with."""

    function: Any
    """Numba's dispatcher."""
    signatures: tuple[tuple[Any, ...], ...]

    @property
    def name(self) -> str:
        """`module:function`."""
        return f"{self.function.py_func.__module__}:{self.function.py_func.__name__}"


KERNELS: dict[str, Kernel] = {}
"""Every kernel whose module has been imported, by name."""


def kernel(*arguments: Any, also: tuple[tuple[Any, ...], ...] = ()) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function that is compiled for arguments of these Numba types, and of those that `also` lists.

    A call with other types is compiled at that moment, which takes seconds to a minute: make the call fit
    (`np.ascontiguousarray`, `float`).
    """
    import numba

    def decorate(function: Callable[..., Any]) -> Any:
        with _own_locator(numba.config):
            compiled = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
        made = Kernel(compiled, (arguments, *also))
        KERNELS[made.name] = made
        return compiled

    return decorate


def inner(function: Callable[..., Any]) -> Any:
    """Decorate a function that only kernels call: its code is compiled and kept with theirs."""
    import numba

    return numba.njit(nogil=True, error_model="numpy")(function)


def record(kind: Any, *fields: Any) -> Any:
    """The Numba type of a named tuple with fields of these types."""
    import numba

    return numba.types.NamedTuple(fields, kind)


def compile_kernels(say: Callable[[str], None]) -> None:
    """Compile every kernel that the cache lacks, on all cores; returns at once where that was done before.

    Parameters
    ----------
    say
        Told what is done: one line before the first kernel and one after each.
    """
    folder = cache_folder()
    if (folder / _COMPLETE).exists():
        return
    with _exclusive(folder):
        if (folder / _COMPLETE).exists():
            return
        started = time.monotonic()
        names = [name for module in MODULES for name in _kernels_of(module)]
        say(f"compiling {len(names)} kernels for this processor, once (about a minute)")
        with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=get_context("spawn")) as workers:
            compiled = {workers.submit(_compile, name): name for name in names}
            for number, done in enumerate(as_completed(compiled), start=1):
                name = compiled[done].partition(":")[2]
                say(f"  {number:2d}/{len(names)} {name} {done.result():.1f} s")
        (folder / _COMPLETE).touch()
        for other in folder.parent.glob("*/"):
            if other.stat().st_mtime < time.time() - _KEPT_S:
                shutil.rmtree(other, ignore_errors=True)
        say(f"compiled in {time.monotonic() - started:.0f} s into {folder}")


@lru_cache(maxsize=1)
def cache_folder() -> Path:
    """Where the compiled code of these kernels on this processor lies; made where it is missing."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    places = (
        [Path(chosen)] if chosen else [Path(sys.prefix, "kernels"), Path.home() / ".cache" / "alphaops" / "kernels"]
    )
    for place in places:
        folder = place / _processor_digest() / _code_digest()
        if (folder / _COMPLETE).exists():  # nothing is to be written
            return folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        if is_foreign(folder) or mode_of(folder) & 0o002:  # whoever can write there can have his code run here
            continue
        return folder
    try:
        return Path(tempfile.mkdtemp(prefix="alphaops_kernels_"))
    except OSError:  # a process that may not write anywhere
        return folder


def _code_digest() -> str:
    """Of the source of all kernels, the modules that hold it and the versions of what compiles it."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256(f"{platform.python_version()} {version('numba')} {version('llvmlite')}".encode())
    for module in MODULES:
        digest.update(module.encode())  # the files in the cache are named by it
        digest.update((root / module.replace(".", "/")).with_suffix(".py").read_bytes())
    return digest.hexdigest()[:16]


def _processor_digest() -> str:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    return hashlib.sha256(f"{llvm.get_host_cpu_name()} {features}".encode()).hexdigest()[:16]


class KernelCacheLocator:
    """Numba's question where a function's compiled code lies, answered with `cache_folder`.

    The folder's name holds the code, so there is no further stamp of the source.
    """

    def __init__(self, function: Any, file: str) -> None:
        self._name = function.__module__.replace(".", "_")
        self._py_file = file  # Numba's warnings name it

    @classmethod
    def from_function(cls, function: Any, file: str) -> "KernelCacheLocator":
        """The locator of a function; Numba's interface."""
        return cls(function, file)

    def ensure_cache_path(self) -> None:
        """It is made by who asks for it."""

    def get_cache_path(self) -> str:
        """The folder."""
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        """Always the same: see above."""
        return ""

    def get_disambiguator(self) -> str:
        """Modules' names, since files of two folders have the same one."""
        return self._name


@contextmanager
def _own_locator(config: Any) -> Iterator[None]:
    """Functions that are decorated inside are cached by `KernelCacheLocator`, other packages' as before."""
    before = config.CACHE_LOCATOR_CLASSES
    config.CACHE_LOCATOR_CLASSES = f"mlops_tasks.kernels.{KernelCacheLocator.__name__}"
    try:
        yield
    finally:
        config.CACHE_LOCATOR_CLASSES = before


def _kernels_of(module: str) -> list[str]:
    importlib.import_module(module)
    return [name for name in KERNELS if name.startswith(f"{module}:")]


def _compile(name: str) -> float:
    """In a worker: compile a kernel into the cache; seconds that it took."""
    importlib.import_module(name.partition(":")[0])
    started = time.monotonic()
    for signature in KERNELS[name].signatures:
        KERNELS[name].function.compile(signature)
    return time.monotonic() - started


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """One process compiles, the others wait for it."""
    with (folder.parent / f".lock-{folder.name}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
