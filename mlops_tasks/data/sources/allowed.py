"""Which files may be read as bars or as names: the one policy for every path that a form, an API or a setting gives.

The files that the settings name are allowed, and those below the folders that they allow. Links are followed first, so
the file itself must lie there. Whoever gave the name, /proc, /sys, /dev and the secrets are never read, and of the home
folder (MLOPS_HOME) only what the settings name. A file is checked before it is opened and again when it is open, so
that it cannot be replaced in between.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Self

from mlops_tasks.config import SYNTHETIC, Settings, TableSource, VendorSource
from mlops_tasks.errors import SourceError, SourceUnavailableError, excerpt

NEVER = tuple(map(Path, ("/proc", "/sys", "/dev")))
"""These hold no data, but expose processes and the machine."""
_SHOWN = 200
"""Number of characters of a refused path that the message quotes."""


@dataclass(frozen=True)
class AllowedFiles:
    """The policy of some settings.

    Attributes
    ----------
    roots
        Files and folders, links resolved. A folder stands for everything below it, except hidden files and folders.
    home, secrets
        MLOPS_HOME and its secrets, links resolved.
    """

    roots: tuple[Path, ...]
    home: Path
    secrets: Path

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What these settings allow."""
        home = settings.home.resolve()
        named = [_real(path) for path in _named_paths(settings)]
        given = settings.data.allowed_folders
        folders = _folders_of(named, home) if given is None else [_real(folder) for folder in given]
        others = [_real(path) for path in _other_paths(settings)]
        return cls((*named, *others, *folders), home, settings.secrets_dir.resolve())

    def check(self, path: str | Path) -> Path:
        """Where a path leads, links followed; nothing is opened.

        Raises
        ------
        SourceError
            It leads to something that is not allowed, whether it exists or not.
        """
        text = str(path)
        try:
            real = Path(text).expanduser().resolve() if text.isprintable() else None
        except (OSError, RuntimeError, ValueError):  # a loop of links, no such user
            real = None
        if real is None or not self._admits(real):
            raise SourceError(
                f"{excerpt(text, _SHOWN)}: rule allowed_source: neither a source that the settings name nor below a "
                "folder that they allow (hidden files never are); choose a name of data.sources, or ask whoever keeps "
                "the settings to add the folder to data.allowed_folders"
            )
        return real

    @contextmanager
    def open(self, path: str | Path) -> Iterator[BufferedReader]:
        """The bytes of an allowed file.

        Raises
        ------
        SourceError
            As for `check`, or it is not a regular file.
        OSError
            The system does not open it.
        """
        real = self.check(path)
        _refuse_special(real, os.lstat(real))
        # A pipe that has replaced the file would block a plain open, and a link would lead elsewhere.
        handle = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            _refuse_special(real, os.fstat(handle))
            if Path(f"/proc/self/fd/{handle}").resolve() != real:
                raise SourceUnavailableError(f"{real}: rule readable_file: another file took its place; run again")
            yield file

    def _admits(self, real: Path) -> bool:
        if any(real.is_relative_to(folder) for folder in (*NEVER, self.secrets)):
            return False
        return any(self._lies_in(real, root) for root in self.roots)

    def _lies_in(self, real: Path, root: Path) -> bool:
        if not real.is_relative_to(root) or any(part.startswith(".") for part in real.relative_to(root).parts):
            return False
        return root.is_relative_to(self.home) or not real.is_relative_to(self.home)


def _named_paths(settings: Settings) -> Iterator[str]:
    """The configured source and universe, as far as they are paths."""
    data = settings.data
    spec = data.sources.get(data.source)
    if isinstance(spec, TableSource):
        yield spec.path
    elif spec is None and data.source != SYNTHETIC:
        yield data.source
    if data.universe:
        yield data.universe


def _other_paths(settings: Settings) -> Iterator[str]:
    """The files of the named sources that are not in use."""
    for spec in settings.data.sources.values():
        if isinstance(spec, TableSource):
            yield spec.path
        elif isinstance(spec, VendorSource) and isinstance(spec.instruments, str):
            yield spec.instruments


def _folders_of(named: list[Path], home: Path) -> list[Path]:
    """The folders that these files lie in, except one that contains MLOPS_HOME, such as a user's home folder."""
    return [path.parent for path in named if path.is_file() and not home.is_relative_to(path.parent)]


def _real(path: str) -> Path:
    return Path(path).expanduser().resolve()


def _refuse_special(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{path}: rule regular_file: not a regular file; give a file of bars or of names")
