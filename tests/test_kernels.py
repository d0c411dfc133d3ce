"""The kernels: compiled before they are called, in a cache that is named by their code and the processor."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_tasks import kernels

ADDED = """
import sys
import numpy as np
from mlops_tasks.kernels import cache_folder, kernel
from numba import types

@kernel(types.int64[::1])
def total(values):
    result = 0
    for value in values:
        result += value
    return result

total.compile(total_types := (types.int64[::1],))
assert total(np.arange(4)) == 6
print(cache_folder())
print(sum(total.stats.cache_hits.values()), sum(total.stats.cache_misses.values()))
"""


def imported() -> dict[str, kernels.Kernel]:
    for module in kernels.MODULES:
        importlib.import_module(module)
    return kernels.KERNELS


@pytest.mark.parametrize("name", sorted(imported()))
def test_every_kernel_is_in_the_cache(name: str) -> None:
    """What a kernel is said to be called with is loaded, not compiled; `make env` has made it."""
    made = imported()[name]
    assert (kernels.cache_folder() / "complete").exists(), "make env"
    for signature in made.signatures:
        made.function.compile(signature)
    assert not made.function.stats.cache_misses


def test_the_cache_is_named_by_code_and_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other code of any kernel, or another processor, is another folder."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    folder = kernels.cache_folder.__wrapped__()
    assert folder == kernels.cache_folder.__wrapped__()
    with monkeypatch.context() as patch:
        patch.setattr("llvmlite.binding.get_host_cpu_name", lambda: "another")
        assert kernels.cache_folder.__wrapped__().parent != folder.parent
    with monkeypatch.context() as patch:
        read = Path.read_bytes
        patch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path.name == "metrics.py"))
        other = kernels.cache_folder.__wrapped__()
    assert (other.parent, other.name != folder.name) == (folder.parent, True)


def test_a_moved_module_is_compiled_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is compiled is kept under the name of its module: the same code in another one is another folder."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"the same code")
    monkeypatch.setattr(kernels, "MODULES", ("mlops_tasks.data.kernels",))
    folder = kernels.cache_folder.__wrapped__()
    monkeypatch.setattr(kernels, "MODULES", ("mlops_tasks.data.validation.kernels",))
    assert kernels.cache_folder.__wrapped__() != folder


def test_a_folder_that_cannot_be_written_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment that belongs to somebody else leaves the cache to the user's own folder."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    (tmp_path / "kernels").write_text("in the way")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert kernels.cache_folder.__wrapped__().is_relative_to(tmp_path / "home" / ".cache" / "alphaops")


def test_processes_share_what_one_has_compiled(tmp_path: Path) -> None:
    """The second process loads the first one's code; other packages' functions are cached where they always were."""
    script = tmp_path / "added.py"
    script.write_text(ADDED)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    told = [
        subprocess.run(
            [sys.executable, script], env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert [each[1:] for each in told] == [["0", "1"], ["1", "0"]]
    assert Path(told[0][0]).is_relative_to(tmp_path / "cache")


def test_compiling_again_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call sees that all is there, and says nothing."""
    monkeypatch.setattr(kernels, "ProcessPoolExecutor", None)
    said: list[str] = []
    kernels.compile_kernels(said.append)
    assert said == []
