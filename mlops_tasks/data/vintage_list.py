"""The vintages page by page, and what is known of one: for pages and the API, which read no bars."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.data.revisions.approvals import Approval, approvals
from mlops_tasks.data.snapshots import pointer_path
from mlops_tasks.data.vintage_files import MANIFEST
from mlops_tasks.data.vintages import current_version, is_complete, vintage_path
from mlops_tasks.errors import ErrorKind, StoreError, excerpt
from mlops_tasks.files import read_json


class NoVintageError(StoreError, LookupError):
    """There is no vintage of this data version, neither on disk nor in DVC."""

    kind = ErrorKind.CONFIGURATION


@dataclass(frozen=True)
class ListedVintage:
    """A vintage. What its manifest says is None while it is in DVC only.

    Attributes
    ----------
    created
        When its manifest, or else its pointer, was written.
    source
        The last part of the name of what it was read from.
    """

    data_version: str
    in_use: bool
    on_disk: bool
    in_dvc: bool
    created: datetime
    rows: int | None
    instruments: int | None
    first_date: str | None
    last_date: str | None
    source: str | None
    received: int | None
    quarantined: int | None


@dataclass(frozen=True)
class RawInput:
    """A file, or an answer of a database or vendor, that a vintage was read from."""

    name: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class VintagePage:
    """Some vintages, the newest first, of `total`."""

    total: int
    vintages: Sequence[ListedVintage]


@dataclass(frozen=True)
class VintageDetail:
    """A vintage, and what is recorded about it.

    Attributes
    ----------
    years
        Year to its number of bars.
    approved
        Approvals by which it may follow another one, the oldest first.
    """

    vintage: ListedVintage
    years: dict[str, int]
    inputs: Sequence[RawInput]
    approved: Sequence[Approval]


def vintage_page(settings: Settings, first: int, count: int) -> VintagePage:
    """Some vintages, of which the manifests are read, in the order of all, the newest first."""
    folder = settings.data_dir / "vintages"
    versions = {path.name.removesuffix(".dvc") for path in folder.glob("[!.]*") if path.suffix in ("", ".dvc")}
    ordered = sorted(versions, key=lambda version: (_created(settings, version), version), reverse=True)
    in_use = current_version(settings)
    shown = [_listed(settings, version, in_use) for version in ordered[first : first + count]]
    return VintagePage(len(ordered), shown)


def find_vintage(settings: Settings, data_version: str) -> VintageDetail:
    """A vintage with what is recorded about it.

    Raises
    ------
    NoVintageError
        There is none.
    """
    if not (vintage_path(settings, data_version).is_dir() or pointer_path(settings, data_version).is_file()):
        raise NoVintageError(f"there is no vintage {excerpt(data_version)}, neither on disk nor in DVC")
    manifest = _manifest(settings, data_version)
    return VintageDetail(
        vintage=_listed(settings, data_version, current_version(settings)),
        years={year: content["rows"] for year, content in sorted(manifest.get("years", {}).items())},
        inputs=[_input(each) for each in manifest.get("raw", [])],
        approved=approvals(settings, f"*_{data_version}"),
    )


def _listed(settings: Settings, data_version: str, in_use: str | None) -> ListedVintage:
    manifest = _manifest(settings, data_version)
    source = manifest.get("source")
    return ListedVintage(
        data_version=data_version,
        in_use=data_version == in_use,
        on_disk=bool(manifest),
        in_dvc=pointer_path(settings, data_version).is_file(),
        created=datetime.fromtimestamp(_created(settings, data_version), UTC),
        source=None if source is None else PurePosixPath(source).name,
        rows=manifest.get("rows"),
        instruments=manifest.get("instruments"),
        first_date=manifest.get("first_date"),
        last_date=manifest.get("last_date"),
        received=manifest.get("received"),
        quarantined=manifest.get("quarantined"),
    )


def _manifest(settings: Settings, data_version: str) -> dict[str, Any]:
    """The manifest of a vintage that is complete; empty for another one."""
    path = vintage_path(settings, data_version)
    return dict(read_json(path / MANIFEST)) if is_complete(path) else {}


def _created(settings: Settings, data_version: str) -> float:
    path = vintage_path(settings, data_version)
    candidates = (path / MANIFEST, pointer_path(settings, data_version), path)
    return next((time for each in candidates if (time := _written(each)) is not None), 0.0)


def _written(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _input(raw: dict[str, Any]) -> RawInput:
    return RawInput(PurePosixPath(str(raw["name"])).name, str(raw["sha256"]), int(raw["rows"]))
