"""What takes seconds to make and none to copy, made once a run by the first worker that needs it."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.files import folder_lock

FOLDER = "TESTS_MADE_ONCE"
"""Environment variable with the run's folder, by which its workers find it."""


def run_folder() -> Path:
    """The run's folder; the first process that asks makes it, its children find it, and it goes when that one ends."""
    if FOLDER not in os.environ:
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="alphaops_tests_")
        atexit.register(shutil.rmtree, os.environ[FOLDER], ignore_errors=True)
    return Path(os.environ[FOLDER])


def once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` has filled; it is there for all workers, so nobody writes into it."""
    place = run_folder() / name
    with folder_lock(place):
        made = place / "made"
        if not made.exists():
            new = Path(tempfile.mkdtemp(dir=place))
            make(new)
            new.rename(made)
    return made


def copy_state_databases() -> None:
    """From now on, where this process first needs a SQLite state database and there is none, it copies an empty one.

    Migrations would take most of what a test's database costs. Who calls `database.upgrade` migrates as everywhere.
    """
    from mlops_tasks.state import database

    upgrade_once = database._upgrade_once

    def upgrade(settings: Settings) -> None:
        file = database.sqlite_file(settings.state_database)
        if file is not None and not file.exists():
            empty = database.sqlite_file(Settings(home=once("state", _migrate)).state_database)
            assert empty is not None
            with folder_lock(file.parent):
                if not file.exists():
                    Path(shutil.copy(empty, file.with_suffix(".new"))).rename(file)
        upgrade_once(settings)

    database._upgrade_once = upgrade


def _migrate(home: Path) -> None:
    from mlops_tasks.state.database import upgrade

    upgrade(Settings(home=home))
