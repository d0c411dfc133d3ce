"""Qlib's binary stores, derived from vintages, and the project's only `qlib.init`.

`data/qlib/<data_version>/` is laid out as `data/qlib/files.py` says. Prices are adjusted and volume is divided by the
factor, Qlib's convention.

A new day costs only a day's work: where history did not change, the store of the version before that in use is moved
aside and the new days are added to its files, so the one in use is never touched. A killed writer leaves only a hidden
folder. A store that is missing, has another layout, or was touched by anybody else is written anew from its vintage, so
stores may be removed at any time. A reader that uses `init_qlib` holds a shared lock on its store, and such a store is
neither recycled nor removed.
"""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.data.qlib.files import CALENDAR_FILE, LAYOUT, UNIVERSE_FILE, add_bars, has_vwap, stores_vwap
from mlops_tasks.data.revisions.diff import read_diff
from mlops_tasks.data.vintages import Vintage, current_version, is_complete, load_vintage, vintage_path
from mlops_tasks.errors import StoreError
from mlops_tasks.files import folder_lock, new_folder, plain_name
from mlops_tasks.verified import verified_files

log = logging.getLogger(__name__)

_reading: list[IO[str]] = []
"""The locked file of the store that this process's Qlib reads. Qlib is a global of the process, and so is this."""


def qlib_store_path(settings: Settings, data_version: str) -> Path:
    """The folder of the store that belongs to a data version."""
    return settings.data_dir / "qlib" / plain_name(data_version, "data version")


def write_qlib_store(settings: Settings, vintage: Vintage) -> Path:
    """Write the store of a vintage, or find it there; return its folder."""
    with folder_lock(settings.data_dir):
        return ensure_store(settings, vintage)


def ensure_store(settings: Settings, vintage: Vintage) -> Path:
    """The same as `write_qlib_store`, for a caller that holds the data folder's lock."""
    target = qlib_store_path(settings, vintage.data_version)
    if _is_untouched(settings, target):
        return target
    if target.is_dir() or not _recycled(settings, target, vintage):
        _write_store(target, vintage)
    remember_store(settings, target)
    return target


def remember_store(settings: Settings, store: Path) -> None:
    """Record that a store, as it is now, is what its vintage gives. Any later change to its files will be detected."""
    verified_files(settings.home).note(_stamp(store), _fact(store))


def prune_stores(settings: Settings) -> None:
    """Remove all stores that nobody reads, except the one in use and the one written last before it.

    The caller holds the data folder's lock.
    """
    current = current_version(settings)
    others = [path for path in _stores(settings) if path.name != current]
    for store in others[1:]:
        with _alone(store) as alone:
            if alone:
                shutil.rmtree(store)
                log.info("Qlib store of %s is removed", store.name)


def init_qlib(settings: Settings, data_version: str, *, kernels: int = 1) -> Path:
    """Point Qlib at a vintage's store, written first if it is missing, and return that folder.

    The store is held as it is until this process ends or points Qlib at another one.

    Its recorder, if anything uses it, writes to a database below `home`; loading is done by `kernels` threads,
    because a forked pool hangs inside a task's process.

    Raises
    ------
    StoreError
        There is no such vintage.
    """
    path = _hold(settings, load_vintage(settings, data_version))
    import qlib
    from qlib.constant import REG_US

    recorder = settings.home / "qlib"
    recorder.mkdir(parents=True, exist_ok=True)
    qlib.init(
        provider_uri=str(path),
        region=REG_US,
        trade_unit=1,
        limit_threshold=None,
        deal_price="close",
        kernels=kernels,
        joblib_backend="threading",
        expression_cache=None,
        dataset_cache=None,
        logging_level=logging.WARNING,
        instrument_provider={
            "class": "LocalInstrumentProvider",
            "kwargs": {
                "backend": {
                    "class": "NameKeepingInstrumentStorage",
                    "module_path": "mlops_tasks.data.qlib.instruments",
                }
            },
        },
        exp_manager={
            "class": "MLflowExpManager",
            "module_path": "qlib.workflow.expm",
            "kwargs": {"uri": f"sqlite:///{recorder / 'experiments.db'}", "default_exp_name": "qlib"},
        },
    )
    return path


def _stores(settings: Settings) -> list[Path]:
    """The complete stores on disk, the one written last first."""
    stores = (settings.data_dir / "qlib").glob(f"[!.]*/{CALENDAR_FILE}")
    return [calendar.parents[1] for calendar in sorted(stores, key=lambda path: -path.stat().st_mtime_ns)]


def _is_untouched(settings: Settings, store: Path) -> bool:
    """Whether no file of a store has changed since it was written, by its status alone: a store can be rebuilt."""
    return store.is_dir() and verified_files(settings.home).knows(_stamp(store), _fact(store))


def _fact(store: Path) -> str:
    return f"qlib {store.name} in layout {LAYOUT}"


def _stamp(store: Path) -> str:
    """Digest of the names, inodes, sizes and times of all files of a store."""
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(store):
        folders.sort()
        for name in sorted(names):
            path = f"{folder}/{name}"
            status = os.stat(path, follow_symlinks=False)  # noqa: PTH116  there are thousands
            times = f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
            digest.update(f"{path[len(str(store)) :]} {times}\n".encode())
    return digest.hexdigest()


def _write_store(target: Path, vintage: Vintage) -> None:
    """Write a store. An existing one that was touched since it was written is replaced at the end."""
    with new_folder(target) as folder:
        add_bars(folder, vintage.adjusted_bars())
        _write_universe(folder, vintage)
        if target.is_dir():
            log.warning("Qlib store of %s may have changed since it was written: it is rewritten", vintage.data_version)
            shutil.rmtree(target)
    log.info("Qlib store of %s: %s instruments", vintage.data_version, vintage.instruments)


def _recycled(settings: Settings, target: Path, vintage: Vintage) -> bool:
    """Whether an older store could be turned into the vintage's."""
    for store in _stores(settings):
        added = _added_bars(settings, store, vintage)
        if added is not None and _is_untouched(settings, store) and _recycle(store, target, vintage, added):
            return True
    return False


def _added_bars(settings: Settings, store: Path, vintage: Vintage) -> pd.DataFrame | None:
    """The adjusted bars that a vintage has and `store` lacks. None if the store cannot become the vintage's.

    It cannot if it is in use, if no recorded diffs say that everything else is the same, or if it lacks a field.
    """
    current = current_version(settings)
    if store.name == current or not is_complete(vintage_path(settings, store.name)):
        return None
    first = _appended_from(settings, store.name, vintage.data_version)
    if first is None and current is not None and _appended_from(settings, current, vintage.data_version):
        first = _appended_from(settings, store.name, current)
    if first is None:
        return None
    old = load_vintage(settings, store.name)
    if first <= old.last_date:
        return None
    bars = vintage.adjusted_bars(start=first)
    known = not has_vwap(bars) or stores_vwap(store)
    return bars if known and old.rows + len(bars) == vintage.rows else None


def _appended_from(settings: Settings, old: str, new: str) -> str | None:
    """The first day that a vintage adds to another. None unless a recorded diff says that it only adds days."""
    diff = read_diff(settings, old, new)
    return diff["appended_from"] if diff is not None and diff["append_only"] else None


def _recycle(store: Path, target: Path, vintage: Vintage, added: pd.DataFrame) -> bool:
    """Turn a store that nobody reads into the vintage's. False if somebody reads it, or if it is incomplete."""
    with _alone(store) as alone:
        if not alone:
            return False
        try:
            with new_folder(target) as folder:
                store.rename(folder)
                add_bars(folder, added)
                _write_universe(folder, vintage)
        except (StoreError, OSError) as error:
            log.warning("Qlib store of %s cannot be added to and is removed: %s", store.name, error)
            return False
    log.info("Qlib store of %s: that of %s and %s more bars", vintage.data_version, store.name, len(added))
    return True


def _write_universe(folder: Path, vintage: Vintage) -> None:
    """The vintage's membership without instruments that have no bars, text for text."""
    names = set(vintage.instrument_names())
    spells = vintage.files.universe().read_text().splitlines(keepends=True)
    (folder / UNIVERSE_FILE).write_text("".join(line for line in spells if line.partition("\t")[0] in names))


def _hold(settings: Settings, vintage: Vintage) -> Path:
    """Lock a vintage's store for reading. Writers recycle under the data folder's lock, so it cannot move meanwhile."""
    with folder_lock(settings.data_dir):
        path = ensure_store(settings, vintage)
        file = (path / CALENDAR_FILE).open()
        fcntl.flock(file, fcntl.LOCK_SH)
    for other in _reading:
        other.close()
    _reading[:] = [file]
    return path


@contextmanager
def _alone(store: Path) -> Iterator[bool]:
    """Whether nobody reads a store through `init_qlib`. While the block lasts, nobody can begin to."""
    with (store / CALENDAR_FILE).open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
