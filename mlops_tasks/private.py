"""Everything below MLOPS_HOME is its owner's alone: other users of the machine can neither list nor open any of it."""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mlops_tasks.errors import ConfigError

log = logging.getLogger(__name__)

UMASK = 0o077
OTHERS = 0o077
"""Permission bits of everybody but the owner."""
_GUARDED = ("secrets", "run", "state", "mlflow", "airflow", "data", "data/.dvc", "features")
"""Folders that are looked at by themselves as well, with the files in the first two: they stay closed should somebody
open the home."""
_GUARDED_FILES = ("secrets/*", "run/*", "verified.txt")


def be_private() -> None:
    """Let every file that this process and its children make be readable by their owner only; first of all done."""
    os.umask(UMASK)


def mode_of(path: Path) -> int:
    """Permission bits, a link's own not followed."""
    return stat.S_IMODE(path.lstat().st_mode)


def open_to_others(home: Path) -> list[Path]:
    """Of the home, its folders, sockets, locks and secrets those that other users may enter, read or write."""
    paths = [home, *(home / name for name in _GUARDED), *(path for name in _GUARDED_FILES for path in home.glob(name))]
    return [path for path in paths if path.exists() and not path.is_symlink() and mode_of(path) & OTHERS]


def is_foreign(path: Path) -> bool:
    """Whether somebody else owns it, root not counted: whoever owns a folder may change what lies in it."""
    return path.exists() and path.stat().st_uid not in {os.geteuid(), 0}


def make_private(home: Path) -> int:
    """Make the home, or take others' permissions from one that is open and from all below it; how many had some.

    The home itself is closed first, which keeps strangers out at once; the rest is looked at only where it was open.

    Raises
    ------
    ConfigError
        Somebody else owns the home, or its permissions cannot be changed.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if is_foreign(home):
        raise ConfigError(
            f"{home} belongs to user {home.stat().st_uid}: give it to the user who runs this (chown -R), or choose "
            "another MLOPS_HOME"
        )
    if not open_to_others(home):
        return 0
    try:
        return sum(_close(path) for path in (home, *_below(home)))
    except PermissionError as error:
        raise ConfigError(f"{home} cannot be closed to other users ({error}); as its owner: chmod 700 {home}") from None


def private_folder(folder: Path) -> Path:
    """Make a folder that only its owner can enter, or make it so.

    Raises
    ------
    ConfigError
        It is a link, or somebody else owns it: what lies in it is not ours.
    """
    if not folder.parent.exists():
        private_folder(folder.parent)
    folder.mkdir(exist_ok=True, mode=0o700)
    if folder.is_symlink() or folder.lstat().st_uid != os.geteuid():
        raise ConfigError(f"{folder} is a link or belongs to somebody else; remove it, or choose another MLOPS_HOME")
    folder.chmod(0o700)
    return folder


def _close(path: Path) -> bool:
    """Take others' permissions away; whether there were any. What is gone meanwhile had none."""
    try:
        mode = mode_of(path)
        if not mode & OTHERS or path.is_symlink():
            return False
        path.chmod(mode & ~OTHERS)
    except FileNotFoundError:
        return False
    return True


def _below(folder: Path) -> Iterator[Path]:
    """All that lies below a folder; links are not followed."""
    for entry in os.scandir(folder):
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path))
