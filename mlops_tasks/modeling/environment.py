"""What a model was made by: the interpreter, the packages, the lock that they come from, and the state of the code."""

import hashlib
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from typing import Any

from mlops_tasks.config import PROJECT
from mlops_tasks.files import digest_of, digest_of_file
from mlops_tasks.modeling.model_zoo.families import PACKAGES

LOCK = PROJECT / "requirements.txt"
COMPUTING = ("numpy", "numba", "pandas")
"""Distributions that compute features and scores, whatever the family."""
LEARNING = ("pyqlib", "scipy", "pyarrow")
"""Distributions that take part in a training, and in no score."""


@dataclass(frozen=True)
class Environment:
    """What runs the code."""

    python: str
    """The version: `3.11.7`."""
    packages: Mapping[str, str]
    """Distribution to version, with its build (`2.13.0+cpu`)."""
    lock: str | None
    """SHA-256 of `requirements.txt`; None: there is none, as where only the package is installed."""

    @classmethod
    def here(cls, packages: Iterable[str]) -> "Environment":
        """That of this process, as far as these distributions; those that are not installed are left out."""
        found = {name: _version_of(name) for name in sorted(set(packages))}
        return cls(platform.python_version(), {name: text for name, text in found.items() if text}, lock_digest())

    @classmethod
    def of_family(cls, family: str) -> "Environment":
        """That of this process, as far as models of a family depend on it."""
        return cls.here((*PACKAGES[family], *COMPUTING, *LEARNING))

    @classmethod
    def whole(cls) -> "Environment":
        """That of this process, as far as models of any family depend on it."""
        return cls.here((*(name for names in PACKAGES.values() for name in names), *COMPUTING, *LEARNING))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"python": self.python, "packages": dict(self.packages), "lock": self.lock}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Environment":
        """The inverse of `to_json`."""
        return cls(content["python"], dict(content["packages"]), content["lock"])


@cache
def lock_digest() -> str | None:
    """SHA-256 of the lock; None where there is none."""
    return digest_of_file(LOCK) if LOCK.is_file() else None


def _version_of(name: str) -> str:
    try:
        return package_version(name)
    except PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class CodeState:
    """The project's code at one moment."""

    version: str
    """Of the package."""
    commit: str | None = None
    """None: it is no checkout."""
    dirty: bool | None = None
    """Whether files differed from the commit, or were added; None: it is no checkout."""
    changes: str | None = None
    """Digest of what differed; None: nothing did."""

    @classmethod
    def here(cls) -> "CodeState":
        """That of the project as it lies on the disk now."""
        version = package_version("mlops_tasks")
        commit = _git("rev-parse", "HEAD")
        if commit is None:
            return cls(version)
        status = _git("status", "--porcelain") or ""
        if not status:
            return cls(version, commit, dirty=False)
        changed = hashlib.sha256((_git("diff", "HEAD", "--binary") or "").encode()).hexdigest()
        return cls(version, commit, dirty=True, changes=digest_of([status, changed]))

    @property
    def text(self) -> str:
        """In a word: `0.1.0+3ec27c8a11f0`, with `-dirty` where files differed."""
        if self.commit is None:
            return self.version
        return f"{self.version}+{self.commit[:12]}{'-dirty' if self.dirty else ''}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return dict(vars(self))


def _git(*arguments: str) -> str | None:
    """The answer of git about the project, without its last line end; None: it is no checkout."""
    command = ["git", "-C", str(PROJECT), *arguments]
    try:
        found = subprocess.run(command, capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.decode(errors="replace").strip()
