"""What machines share (`shared.store`): vintages, features and trainings, each complete or absent.

    objects/<2 digits>/<sha256>     the bytes of a file, under their digest
    <kind>/<key>.json               a listing: the files of a folder with their digests, written last
    pointers/<path below the home>  a small JSON file that may change, as it is at home

The home of each machine is its cache: what is missing there is fetched and verified before it can be seen. A listing is
written once, by whoever is first; equal keys stand for equal content. All functions do nothing where no store is set.
"""

import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.errors import DamagedFileError
from mlops_tasks.files import (
    digest_of,
    digest_of_file,
    folder_lock,
    new_folder,
    plain_name,
    read_json,
    retire_folder,
    write_json,
)
from mlops_tasks.object_stores import Found, ObjectStore, object_store

log = logging.getLogger(__name__)

_SHA256 = re.compile("[0-9a-f]{64}")


class Kind(StrEnum):
    """What is shared."""

    VINTAGES = "vintages"
    PARTITIONS = "partitions"
    FEATURES = "features"
    TRAININGS = "trainings"
    EVALUATIONS = "evaluations"

    @property
    def is_replaced(self) -> bool:
        """Whether a newer one takes the place of an older one of the same key."""
        return self is Kind.EVALUATIONS


@dataclass(frozen=True)
class Listing:
    """The files of one folder; a file's path below it to its SHA-256 and its bytes."""

    kind: Kind
    key: str
    files: Mapping[str, tuple[str, int]]

    @classmethod
    def of(cls, kind: Kind, key: str, folder: Path, names: Iterable[str]) -> "Listing":
        """Of files as they are now."""
        found = {name: folder / name for name in sorted(names)}
        return cls(kind, key, {name: (digest_of_file(path), path.stat().st_size) for name, path in found.items()})

    @property
    def name(self) -> str:
        """The object's."""
        return f"{self.kind}/{plain_name(self.key, 'key')}.json"

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {"kind": self.kind, "key": self.key, "files": {name: list(each) for name, each in self.files.items()}}

    def lies_in(self, folder: Path) -> bool:
        """Whether every file is there as it is listed."""
        try:
            return Listing.of(self.kind, self.key, folder, self.files) == self
        except OSError:
            return False


def publish(settings: Settings, kind: Kind, key: str, folder: Path, names: Iterable[str] | None = None) -> None:
    """Store a folder's files (or those of some names) that will not change: all of them, and then the listing.

    What is stored already stays, except of a kind that is replaced. A call that is killed leaves nothing that anybody
    sees; the next one stores what is missing.

    Raises
    ------
    StoreError
        The store does not answer.
    """
    if not settings.shared.store or (not kind.is_replaced and is_published(settings, kind, key)):
        return
    store = object_store(settings.shared)
    listing = Listing.of(kind, key, folder, _files(folder) if names is None else names)
    for name, (digest, size) in listing.files.items():
        if store.size(_object(digest)) != size:
            store.upload(folder / name, _object(digest))
    if kind.is_replaced:
        store.write(listing.name, _sealed(listing.to_json()))
    else:
        store.write_if(listing.name, _sealed(listing.to_json()), None)
    log.info("%s %s is in the shared store: %d files", kind, key, len(listing.files))


def is_published(settings: Settings, kind: Kind, key: str) -> bool:
    """Whether the store has a whole folder of this key; StoreError where it does not answer."""
    return bool(settings.shared.store) and _listing(object_store(settings.shared), kind, key) is not None


def fetch(settings: Settings, kind: Kind, key: str, target: Path) -> bool:
    """Make a folder, in place of a broken one, from the store; returns whether the store has it.

    Raises
    ------
    DamagedFileError
        An object is not what was written, or is gone; the folder is as it was before.
    StoreError
        The store does not answer.
    """
    if not settings.shared.store:
        return False
    store, was_there = object_store(settings.shared), target.is_dir()
    listing = _listing(store, kind, key)
    if listing is None:
        return False
    with folder_lock(_fetching(settings, kind)):
        if was_there or not target.is_dir():  # else another task of this machine has fetched it meanwhile
            with new_folder(target) as folder:
                _download(store, listing, folder)
                retire_folder(target)
            log.info("%s %s: fetched %d files from the shared store", kind, key, len(listing.files))
    return True


def refresh(settings: Settings, kind: Kind, key: str, target: Path) -> bool:
    """The same, unless the folder has these very files already."""
    if not settings.shared.store:
        return False
    listing = _listing(object_store(settings.shared), kind, key)
    return listing is not None and (listing.lies_in(target) or fetch(settings, kind, key, target))


def fetch_files(settings: Settings, kind: Kind, key: str, folder: Path) -> bool:
    """Fetch files into a folder that holds others too, each in one step and in the order of their names.

    Returns and raises what `fetch` does.
    """
    if not settings.shared.store:
        return False
    store = object_store(settings.shared)
    listing = _listing(store, kind, key)
    if listing is None:
        return False
    place = _fetching(settings, kind)
    with folder_lock(place):
        if not listing.lies_in(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place) as beside:
                _download(store, listing, Path(beside))
                for name in sorted(listing.files):
                    Path(beside, name).replace(folder / name)
            log.info("%s %s: fetched from the shared store", kind, key)
    return True


def push(settings: Settings, path: Path) -> None:
    """Store a small JSON file of the home as it is now. The last writer wins: of two, each is right by itself."""
    if settings.shared.store:
        object_store(settings.shared).write(_pointer(settings, path), _sealed(read_json(path)))


def pull(settings: Settings, path: Path) -> None:
    """Let a small JSON file of the home be as the store has it; it stays where the store has none.

    Raises
    ------
    DamagedFileError
        The object is not what was written.
    StoreError
        The store does not answer.
    """
    if not settings.shared.store:
        return
    store, name = object_store(settings.shared), _pointer(settings, path)
    found = store.read(name)
    if found is None:
        return
    content = _unsealed(found, store.address(name))
    if not _holds(path, content):
        write_json(path, content)


def replace(settings: Settings, path: Path, content: Any, may: Callable[[Any], bool]) -> bool:
    """Store other content of a small JSON file, if what the store has (None: nothing) may be replaced by it.

    No other machine can come between the look and the write. Returns whether the store has the content now; the file at
    home is not touched. True where no store is set.
    """
    if not settings.shared.store:
        return True
    store, name = object_store(settings.shared), _pointer(settings, path)
    found = store.read(name)
    before = None if found is None else _unsealed(found, store.address(name))
    if before == content:
        return True
    return may(before) and store.write_if(name, _sealed(content), None if found is None else found.tag)


def _holds(path: Path, content: Any) -> bool:
    try:
        return path.is_file() and bool(read_json(path) == content)
    except DamagedFileError:
        return False


def _files(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _object(digest: str) -> str:
    return f"objects/{digest[:2]}/{digest}"


def _pointer(settings: Settings, path: Path) -> str:
    return f"pointers/{settings.relative(path)}"


def _fetching(settings: Settings, kind: Kind) -> Path:
    """What is on its way; its lock lets one task of a machine fetch what several want."""
    return settings.home / "fetching" / kind


def _sealed(content: Any) -> bytes:
    return json.dumps({"content": content, "digest": digest_of(content, length=64)}, sort_keys=True).encode()


def _unsealed(found: Found, address: str) -> Any:
    try:
        whole = json.loads(found.content)
        content = whole["content"]
        intact = digest_of(content, length=64) == whole["digest"]
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise DamagedFileError(
            f"{address}: not what was written; nothing of it is used. Remove it, and run the stage that made it again "
            "on a machine that has it"
        )
    return content


def _listing(store: ObjectStore, kind: Kind, key: str) -> Listing | None:
    """A verified listing, whose names lead nowhere but into its folder; None where there is none."""
    name = Listing(kind, key, {}).name
    found = store.read(name)
    if found is None:
        return None
    content = _unsealed(found, store.address(name))
    try:
        files = {str(path): (str(digest), int(size)) for path, (digest, size) in content["files"].items()}
        ours = content["kind"] == kind and content["key"] == key
        good = all(_is_inside(path) and _SHA256.fullmatch(digest) for path, (digest, _) in files.items())
    except (ValueError, KeyError, TypeError, AttributeError):
        ours = good = False
    if not (ours and good):
        raise DamagedFileError(f"{store.address(name)}: no listing of {kind} {key}; remove it from the shared store")
    return Listing(kind, key, files)


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and "\0" not in name


def _download(store: ObjectStore, listing: Listing, folder: Path) -> None:
    """Every file of a listing, each verified."""
    for name, (digest, _) in listing.files.items():
        path, address = folder / name, store.address(_object(digest))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            store.download(_object(digest), path)
            wrong = digest_of_file(path) != digest
        except FileNotFoundError:
            wrong = True
        if wrong:
            raise DamagedFileError(
                f"{address}: gone, or not what was written as {name}; nothing of {listing.kind} {listing.key} is used. "
                f"Remove it and {store.address(listing.name)}, and run the stage that made it again on a machine that "
                "has it"
            )
