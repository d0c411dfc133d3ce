"""The index of registered versions, which is searched (`state/version_search.py`), and the tags that people give.

It is a copy of what MLflow knows of versions, with the states of the history and people's tags. It may be made anew at
any time.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import orjson
from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, StoreError, excerpt
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.index_revision import next_revision
from mlops_tasks.state.model_history import Model, states_within
from mlops_tasks.state.rows import content_digest, lock_table
from mlops_tasks.state.tables import IndexedVersion, VersionTag
from mlops_tasks.states import ModelState

OWN_TAG = "user."
"""Begin of the names of tags that people give, in MLflow and in the index: none of them is one that we set."""
LONGEST_TAG = 500
_TAG_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PART = 1000
"""Versions that are written by one statement."""


@dataclass(frozen=True)
class RegisteredVersion:
    """A version as MLflow has registered it."""

    version: int
    training_key: str
    family: str
    data_version: str
    feature_version: str
    run_id: str
    description: str
    registered_at: datetime
    metrics: Mapping[str, float]
    """Of its evaluation; finite."""
    tags: Mapping[str, str]


@dataclass(frozen=True)
class FoundVersion(RegisteredVersion):
    """A version that a search has found, with its present state; its metrics and tags can only be read."""

    state: ModelState

    @classmethod
    def of(cls, version: int, state: str, document: str) -> "FoundVersion":
        """Read a row of the index."""
        known: dict[str, Any] = orjson.loads(document)
        known["registered_at"] = datetime.fromisoformat(known["registered_at"])
        for name in ("metrics", "tags"):
            known[name] = MappingProxyType(known[name])
        return cls(version=version, state=ModelState(state), **known)


def index_versions(settings: Settings, found: Sequence[RegisteredVersion], only: Sequence[int] | None = None) -> None:
    """Put versions into the index, in place of what it has of them, in one transaction.

    `only`, if given, are all versions that there are: what else the index has is removed.
    """
    with session(settings) as active:
        revision = next_revision(active)
        gone = [] if only is None else sorted(set(_indexed(active)) - set(only))
        own = _own_tags(active)
        for start in range(0, len(found), _PART):
            part = found[start : start + _PART]
            _write(active, revision, [(each, {**each.tags, **own.get(each.version, {})}) for each in part])
        for start in range(0, len(gone), _PART):
            _remove(active, gone[start : start + _PART])


def indexed_versions(settings: Settings) -> frozenset[int]:
    """The versions that the index has."""
    with reading(settings) as active:
        return frozenset(_indexed(active))


def find_version(settings: Settings, version: int) -> FoundVersion:
    """A version of the index.

    Raises
    ------
    StoreError
        The index does not have it.
    """
    with reading(settings) as active:
        return _find(active, version)


def tag_version(settings: Settings, version: int, name: str, value: str, by: str) -> FoundVersion:
    """Give a version a tag of a person's; an empty value takes it away. MLflow has it as `user.<name>` soon after.

    Raises
    ------
    ConfigError
        The name has other characters than letters, digits, `_`, `.`, `-`, name or value is too long, or the value has a
        character that no database stores.
    StoreError
        The index has no such version.
    """
    _check_tag(name, value)
    with session(settings) as active:
        revision = next_revision(active)
        lock_table(active, VersionTag.__tablename__)  # so that the order of their ids is that of their transactions
        found = _find(active, version)
        row = VersionTag(model_version=version, name=name, value=value, by=by)
        row.content_digest = content_digest(row)
        active.add(row)
        _write(active, revision, [(found, {**found.tags, f"{OWN_TAG}{name}": value})])
        return _find(active, version)


def newest_tag(settings: Settings) -> int:
    """Number of the newest row of people's tags; 0: there is none."""
    with reading(settings) as active:
        return active.scalar(select(func.max(VersionTag.id))) or 0


def tags_since(settings: Settings, number: int) -> dict[int, dict[str, str]]:
    """By version, people's tags that were given after a row, by their names in MLflow; an empty value: taken away."""
    with reading(settings) as active:
        return _own_tags(active, number)


def _check_tag(name: str, value: str) -> None:
    if not _TAG_NAME.fullmatch(name):
        raise ConfigError(f"tag {excerpt(name)}: a name has 1 to 64 letters, digits, `_`, `-` and dots")
    if len(value) > LONGEST_TAG:
        raise ConfigError(f"tag {excerpt(name)}: its value has {len(value)} characters; {LONGEST_TAG} are allowed")
    if "\0" in value or any("\ud800" <= each <= "\udfff" for each in value):
        raise ConfigError(f"tag {excerpt(name)}: its value has a NUL character or half a character; leave it out")


def _indexed(active: Session) -> Sequence[int]:
    return active.scalars(select(IndexedVersion.version)).all()


def _own_tags(active: Session, after: int = 0) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for row in active.scalars(select(VersionTag).where(VersionTag.id > after).order_by(VersionTag.id)):
        found.setdefault(row.model_version, {})[f"{OWN_TAG}{row.name}"] = row.value
    return found


def _remove(active: Session, versions: Sequence[int]) -> None:
    active.execute(delete(IndexedVersion).where(IndexedVersion.version.in_(versions)))


def _write(active: Session, revision: int, given: Sequence[tuple[RegisteredVersion, Mapping[str, str]]]) -> None:
    """Replace the rows of versions; their tags are given beside them."""
    _remove(active, [each.version for each, _ in given])
    states = states_within(active, [Model(each.training_key, each.version) for each, _ in given])
    rows = [
        {"version": each.version, "changed": revision, "state": state.value, "document": _document(each, tags)}
        for (each, tags), state in zip(given, states, strict=True)
    ]
    active.execute(insert(IndexedVersion), rows)


def _document(found: RegisteredVersion, tags: Mapping[str, str]) -> str:
    known = {each.name: getattr(found, each.name) for each in dataclasses.fields(RegisteredVersion)}
    del known["version"]
    known["registered_at"] = found.registered_at.astimezone(UTC)
    known["metrics"] = dict(sorted(found.metrics.items()))
    known["tags"] = {name: value[:LONGEST_TAG] for name, value in sorted(tags.items()) if value}
    return orjson.dumps(known).decode()


def _find(active: Session, version: int) -> FoundVersion:
    columns = (IndexedVersion.version, IndexedVersion.state, IndexedVersion.document)
    row = active.execute(select(*columns).where(IndexedVersion.version == version)).first()
    if row is None:
        raise StoreError(f"the index has no version {version}; `alphaops models search` lists them")
    return FoundVersion.of(*row)
