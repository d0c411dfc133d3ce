"""DVC keeps every vintage: the data folder is a DVC repository without source control.

A vintage folder is added to the cache and linked from it, so that years shared by two vintages are stored once.
`data/vintages/<data_version>.dvc` is the pointer.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.data.dvc_places import own_places, remove_damaged
from mlops_tasks.data.vintages import Vintage, is_whole, load_vintage, vintage_path
from mlops_tasks.errors import DamagedFileError, StoreError
from mlops_tasks.files import folder_lock, full_disk_named
from mlops_tasks.shared_store import Kind, fetch

log = logging.getLogger(__name__)


def pointer_path(settings: Settings, data_version: str) -> Path:
    """DVC's pointer to a vintage."""
    folder = vintage_path(settings, data_version)
    return folder.with_name(f"{folder.name}.dvc")


def pin_vintage(settings: Settings, data_version: str) -> None:
    """Add a vintage to DVC's cache, and write its pointer last: it shows that the pin is complete.

    The caller holds the data folder's lock.
    """
    pointer = pointer_path(settings, data_version)
    pointer.unlink(missing_ok=True)
    with _repository(settings) as repository:
        repository.add(str(vintage_path(settings, data_version)))
    log.info("vintage %s is pinned: %s", data_version, pointer)


def is_kept(settings: Settings, data_version: str) -> bool:
    """Whether a vintage is pinned and complete, after restoring it if need be. The caller holds the data folder's lock.

    If it cannot be restored, its damaged parts are removed from DVC's cache, and the next pin stores it anew.
    """
    if not pointer_path(settings, data_version).is_file():
        return False
    try:
        _restored(settings, data_version)
    except StoreError as error:
        log.warning("%s", error)
        return False
    return True


def checkout_vintage(settings: Settings, data_version: str) -> Vintage:
    """A vintage with every file as it was written, restored where files are missing or damaged: from DVC's cache, or
    from the shared store.

    Raises
    ------
    StoreError
        Neither has such a vintage, or only a damaged one.
    """
    with folder_lock(settings.data_dir):
        try:
            return _restored(settings, data_version)
        except StoreError:
            if not fetch(settings, Kind.VINTAGES, data_version, vintage_path(settings, data_version)):
                raise
            return load_vintage(settings, data_version)


def _restored(settings: Settings, data_version: str) -> Vintage:
    path, pointer = vintage_path(settings, data_version), pointer_path(settings, data_version)
    if is_whole(settings, data_version):
        return load_vintage(settings, data_version)
    if not pointer.is_file():
        raise StoreError(f"{pointer}: no vintage {data_version} in DVC either; run sync_market_data on its source")
    shutil.rmtree(path, ignore_errors=True)
    _checkout(settings, pointer)
    if not is_whole(settings, data_version):
        shutil.rmtree(path, ignore_errors=True)
        remove_damaged(settings.data_dir / ".dvc" / "cache", pointer)
        raise DamagedFileError(
            f"{pointer}: what DVC holds of vintage {data_version} is damaged too, and was removed; run "
            "sync_market_data on its source, or bring data/.dvc/cache back from a backup"
        )
    log.warning("vintage %s is restored from DVC", data_version)
    return load_vintage(settings, data_version)


def _checkout(settings: Settings, pointer: Path) -> None:
    from dvc.exceptions import DvcException

    try:
        with _repository(settings) as repository:
            repository.checkout(targets=[str(pointer)], force=True)
    except DvcException as error:
        raise StoreError(
            f"{pointer}: DVC cannot restore it ({' '.join(str(error).split())}); run sync_market_data on its source"
        ) from error


@contextmanager
def _repository(settings: Settings) -> Iterator[Any]:
    """DVC, which reads and writes nothing outside the data folder and starts without any old state."""
    with own_places(settings.data_dir) as root:
        from dvc.repo import Repo

        logging.getLogger("dvc").setLevel(logging.WARNING)
        # The caller's lock admits one writer, so what a killed one left in DVC's own lock table is stale.
        (root / ".dvc" / "tmp" / "rwlock").unlink(missing_ok=True)
        with full_disk_named(root / ".dvc"), Repo(str(root)) as repository:
            yield repository
