"""DVC keeps every vintage: the data folder is a DVC repository without source control.

A vintage folder is added to the cache and linked from it, so that the years that two vintages share are stored once;
`data/vintages/<data_version>.dvc` is the pointer. DVC's command line, which alone reports usage and looks for
updates, is never run, and both are off in its configuration too.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, is_complete, load_vintage, vintage_path
from mlops_tasks.errors import StoreError
from mlops_tasks.files import folder_lock, full_disk_named, write_text

log = logging.getLogger(__name__)

_CONFIG = """\
[core]
    no_scm = True
    analytics = false
    check_update = false
[cache]
    type = "reflink,hardlink,copy"
"""


def pointer_path(settings: Settings, data_version: str) -> Path:
    """DVC's pointer to a vintage."""
    folder = vintage_path(settings, data_version)
    return folder.with_name(f"{folder.name}.dvc")


def pin_vintage(settings: Settings, data_version: str) -> None:
    """Add a vintage to DVC's cache and write its pointer; the pointer is written last, so it stands for a finished pin.

    The caller holds the data folder's lock.
    """
    pointer = pointer_path(settings, data_version)
    if pointer.is_file():
        return
    with _repository(settings) as repository:
        repository.add(str(vintage_path(settings, data_version)))
    log.info("vintage %s is pinned: %s", data_version, pointer)


def checkout_vintage(settings: Settings, data_version: str) -> Vintage:
    """A vintage, restored from DVC's cache if its folder is gone or incomplete.

    Raises
    ------
    StoreError
        DVC has no such vintage either.
    """
    with folder_lock(settings.data_dir):
        path = vintage_path(settings, data_version)
        if is_complete(path):
            return load_vintage(settings, data_version)
        pointer = pointer_path(settings, data_version)
        if not pointer.is_file():
            raise StoreError(f"{pointer}: no vintage {data_version} in DVC either; run sync_market_data on its source")
        _checkout(settings, pointer)
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
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.WARNING)
    root = settings.data_dir
    config = root / ".dvc" / "config"
    if not config.is_file():
        write_text(config, _CONFIG)
    # The caller's lock admits one writer, so what a killed one left in DVC's own lock table is stale.
    (root / ".dvc" / "tmp" / "rwlock").unlink(missing_ok=True)
    site = {"core": {"site_cache_dir": str(root / ".dvc" / "site")}}
    with full_disk_named(root / ".dvc"), Repo(str(root), config=site) as repository:
        yield repository
