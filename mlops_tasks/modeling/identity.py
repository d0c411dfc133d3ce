"""What a training depends on besides its data and its configuration: code, libraries, and the order of its sums.

A user's own class is followed through the files of the modules that it imports. Nothing is run for this, so what a
module imports by a computed name, or reads from a file, is not seen.
"""

import ast
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TypedDict

from mlops_tasks.errors import ConfigError
from mlops_tasks.files import digest_of, digest_of_file
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.modeling.model_zoo.families import LIBRARIES, PACKAGES, THREADS_CHANGE_BYTES

_INSTALLED = tuple(
    {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_CERTIFIED = ("columns.py", "files.py", "kernels.py", "training_folder.py", "data", "features", "modeling", "training")
"""The part of this package that leads from bars to scores, and the checks themselves."""


class TrainingIdentity(TypedDict):
    """The code, libraries and machine, as far as the bytes of a model depend on them."""

    source: str | None
    """Digest of the class that the configuration names; None where it names none."""
    libraries: dict[str, str]
    """Distribution to version."""
    device: str
    """`cpu`, or the GPU's name."""
    threads: int | None
    """None where they change nothing."""


def training_identity(config: TrainingConfig, threads: int) -> TrainingIdentity:
    """The part of a training's key that is neither data nor configuration.

    Raises
    ------
    ConfigError
        The class's module is not found.
    """
    return {
        "source": None if config.class_path is None else source_digest(config.class_path),
        "libraries": library_versions(config.family),
        "device": _device() if config.family == "network" else "cpu",
        "threads": threads if config.family in THREADS_CHANGE_BYTES else None,
    }


def library_versions(family: str) -> dict[str, str]:
    """Versions of the libraries that train a family, with their builds (`+cpu`, `+cu126`)."""
    return {name: package_version(name) for name in (*PACKAGES[family], "numpy", "pandas", "pyqlib", "scipy")}


def is_own(class_path: str) -> bool:
    """Whether a class is a user's own: neither of this project nor of the locked libraries that models come from."""
    return class_path.partition(":")[0].partition(".")[0] not in LIBRARIES


def own_source(class_path: str | None) -> str | None:
    """`source_digest` of a user's own class; None for other classes, which belong to an installed version."""
    return source_digest(class_path) if class_path is not None and is_own(class_path) else None


def source_digest(class_path: str) -> str:
    """SHA-256 (16 hex) over the files of a class's module and of all that it imports, except installed libraries.

    Raises
    ------
    ConfigError
        Its module is not found.
    """
    module = class_path.partition(":")[0]
    spec = _find(module)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"class_path {class_path!r}: no file of module {module} was found; put it on the path of every process "
            "that trains or scores"
        )
    files: dict[str, str] = {}
    _follow(module, spec, module.partition(".")[0], files)
    return digest_of(files)


@cache
def certified_code() -> str:
    """Digest of the code that leads from bars to scores, of the checks, and of the libraries that they use."""
    package = Path(__file__).resolve().parents[1]
    files = sorted(file for name in _CERTIFIED for file in _python_files(package / name))
    return digest_of(
        {
            "files": {file.relative_to(package).as_posix(): digest_of_file(file) for file in files},
            "libraries": {name: package_version(name) for name in ("numpy", "pandas", "pyqlib", "numba", "scipy")},
        }
    )


def _follow(name: str, spec: ModuleSpec, top: str, files: dict[str, str]) -> None:
    """Note a module's file, and those of the modules that it imports."""
    if name in files or spec.origin is None or not Path(spec.origin).is_file():
        return
    path = Path(spec.origin)
    files[name] = digest_of_file(path)
    if path.suffix != ".py" or top in LIBRARIES - {"mlops_tasks"}:
        return
    for imported in _imported(path, name, is_package=spec.submodule_search_locations is not None):
        found = _find(imported)
        if found is not None and _counts(imported, found, top):
            _follow(imported, found, top, files)


def _counts(name: str, spec: ModuleSpec, top: str) -> bool:
    """Whether a module belongs to the class's own package, or lies outside the folders of installed packages."""
    package = name.partition(".")[0]
    if package == "mlops_tasks":  # the engines have versions of their own
        return top == package and ".networks." in f"{name}."
    if package == top:
        return True
    return spec.origin is not None and not any(Path(spec.origin).resolve().is_relative_to(r) for r in _INSTALLED)


def _imported(path: Path, name: str, *, is_package: bool) -> Iterator[str]:
    """Modules that a file may import, by all import statements in it, and the packages that contain them."""
    around = name.split(".") if is_package else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = around[: len(around) - node.level + 1] if node.level else []
            stem = ".".join([*base, *filter(None, [node.module])])
            found = [stem, *(f"{stem}.{alias.name}" for alias in node.names)]
        else:
            continue
        for each in found:
            parts = each.split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _find(name: str) -> ModuleSpec | None:
    """Where a module lies, found without importing the packages that contain it."""
    path: list[str] | None = None
    spec: ModuleSpec | None = None
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:count]), path)
        if spec is None:
            return None
        path = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
        if path is None and count < len(parts):
            return None
    return spec


def _python_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else list(path.rglob("*.py"))


def _device() -> str:
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "cpu"
