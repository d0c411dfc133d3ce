"""Garbage collection of the feature store: versions that nothing needs, and files that no version names.

A version stays while a registered model needs it, while the vintage in use has it, while it is the newest of its set,
and for `features.retention_days` after it was last computed or found by `FeatureStore.compute`. Files are removed
in an order that leaves every remaining version whole after a kill at any point: first the pointers to a version, then
its manifest, then what no manifest names any more. The next run finishes the job.
"""

import logging
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import current_version
from mlops_tasks.errors import StoreError
from mlops_tasks.features.store import MANIFEST, PARTITIONS, POINTERS
from mlops_tasks.files import folder_lock, read_json

log = logging.getLogger(__name__)

_VERSION = re.compile("[0-9a-f]{16}")
_PARTITION_FILES = (".parquet", ".json")
"""In the order of removal: a partition without statistics is never seen, statistics without one are garbage."""


@dataclass(frozen=True)
class Collected:
    """What a collection removed, or would remove.

    Attributes
    ----------
    removed
        Feature versions, the oldest first.
    kept
        Feature version to why it stays.
    files
        How many files and folders were removed, those of the versions included.
    bytes_freed
        Their size.
    """

    removed: tuple[str, ...]
    kept: Mapping[str, str]
    files: int
    bytes_freed: int
    dry_run: bool

    def to_json(self) -> dict[str, Any]:
        """As a plain dict."""
        return asdict(self) | {"removed": list(self.removed), "kept": dict(self.kept)}


@dataclass(frozen=True)
class _Stored:
    """A version as its files describe it."""

    name: str
    feature_set: str
    partitions: frozenset[str]
    asked: datetime
    """When it was last computed or found."""
    data_versions: frozenset[str]
    """The vintages whose features these are."""


def collect_garbage(
    settings: Settings, needed: Collection[str] | Mapping[str, Any], now: datetime | None = None, dry_run: bool = False
) -> Collected:
    """Remove what nothing needs, and say what was removed and why the rest stays.

    Parameters
    ----------
    needed
        Feature versions that stay whatever their age; a mapping says who needs each
        (`registry.features_in_use.needed_feature_versions`).
    now
        The current time, UTC, by default.
    dry_run
        Only say what would be removed.

    Raises
    ------
    StoreError
        A manifest or pointer cannot be read, so it is unknown what it names; nothing is removed.
    """
    with folder_lock(settings.features_dir / PARTITIONS):
        stored = _stored_versions(settings)
        kept = _reasons(settings, stored, needed, now or datetime.now(UTC))
        gone = [each for each in sorted(stored, key=_age) if each.name not in kept]
        paths = files_of(settings, [each.name for each in gone])
        freed = sum(map(_size, paths))
        for name, reason in kept.items():
            log.info("feature version %s stays: %s", name, reason)
        for each in gone:
            log.info("feature version %s of %s is removed: last requested %s", each.name, each.feature_set, each.asked)
        if not dry_run:
            remove(paths)
    log.info("%s files, %s bytes %s", len(paths), f"{freed:,}", "would be freed" if dry_run else "freed")
    return Collected(tuple(each.name for each in gone), kept, len(paths), freed, dry_run)


def files_of(settings: Settings, gone: Collection[str]) -> list[Path]:
    """Files and folders to remove with some versions, orphans included, in the order in which they have to go.

    The caller holds the lock on the store's partitions.
    """
    root, stored = settings.features_dir, _stored_versions(settings)
    stays = {each.name for each in stored} - set(gone)
    named = set().union(*(each.partitions for each in stored if each.name in stays))
    pointers = [path for path in _pointers(settings) if _read(path)["feature_version"] not in stays]
    folders = [path for path in root.glob("[!.]*/") if _VERSION.fullmatch(path.name) and path.name not in stays]
    manifests = [path / MANIFEST for path in folders if (path / MANIFEST).is_file()]
    unnamed = [
        path
        for suffix in _PARTITION_FILES
        for path in sorted((root / PARTITIONS).glob(f"[!.]*{suffix}"))
        if path.stem not in named
    ]
    unfinished = [*(root / PARTITIONS).glob("*.tmp"), *root.glob(".*"), *root.glob("*/.*")]
    return [*pointers, *manifests, *folders, *unnamed, *(path for path in unfinished if path.name != ".lock")]


def remove(paths: Collection[Path]) -> None:
    """Remove files and folders, in this order."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _stored_versions(settings: Settings) -> list[_Stored]:
    pointers = {path: _read(path)["feature_version"] for path in _pointers(settings)}
    found = []
    for manifest in settings.features_dir.glob(f"[!.]*/{MANIFEST}"):
        content, name = _read(manifest), manifest.parent.name
        own = [path for path, target in pointers.items() if target == name]
        found.append(
            _Stored(
                name=name,
                feature_set=content["feature_set"],
                partitions=frozenset(each["digest"] for each in content["partitions"]),
                asked=datetime.fromtimestamp(max(path.stat().st_mtime for path in (manifest, *own)), UTC),
                data_versions=frozenset(path.name.partition(".")[0] for path in own),
            )
        )
    return found


def _reasons(
    settings: Settings, stored: Collection[_Stored], needed: Collection[str] | Mapping[str, Any], now: datetime
) -> dict[str, str]:
    in_use, days = current_version(settings), settings.features.retention_days
    newest = {each.feature_set: each.name for each in sorted(stored, key=_age)}
    reasons = {}
    for each in sorted(stored, key=_age):
        if each.name in needed:
            who = needed[each.name] if isinstance(needed, Mapping) else ["the caller"]
            reasons[each.name] = f"{', '.join(who)} needs it"
        elif in_use in each.data_versions:
            reasons[each.name] = f"the vintage in use, {in_use}, has it"
        elif newest[each.feature_set] == each.name:
            reasons[each.name] = f"it is the newest of {each.feature_set}"
        elif now - each.asked < timedelta(days=days):
            reasons[each.name] = f"requested on {each.asked:%Y-%m-%d}, less than {days} days ago"
    return reasons


def _size(path: Path) -> int:
    """Bytes of a file, or of what a hidden folder holds; a version's own files are listed beside its folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file() and path.name.startswith("."))


def _age(version: _Stored) -> tuple[datetime, str]:
    return version.asked, version.name


def _pointers(settings: Settings) -> list[Path]:
    return sorted((settings.features_dir / POINTERS).glob("[!.]*.json"))


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(read_json(path))
    except ValueError as error:
        raise StoreError(
            f"{path}: cannot be read ({error}), so it is unknown what it names; nothing was removed. Remove it and run "
            "features.compute on its data version again"
        ) from error
