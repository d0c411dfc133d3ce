"""The index of registered versions: searched by words, tags, family, state, metrics and dates, in milliseconds.

It is a copy of what MLflow knows of versions, with the states of the history and the tags that people have given. It
may be made anew at any time.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, func, insert, select
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, StoreError, excerpt
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.model_history import Model, state_within
from mlops_tasks.state.rows import content_digest, lock_table
from mlops_tasks.state.tables import IndexedMetric, IndexedTag, IndexedVersion, VersionTag
from mlops_tasks.states import ModelState

OWN_TAG = "user."
"""Begin of the names of tags that people give, in MLflow and in the index: none of them is one that we set."""
LONGEST_TAG = 500
_TAG_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
SORTED_BY = ("version", "registered_at", "family", "state", "data_version")
METRIC = "metric."
"""Before a metric's name: what is sorted by it."""
LARGEST_PAGE = 1000
_COPIED = (
    *("version", "training_key", "family", "data_version", "feature_version", "run_id", "description"),
    "registered_at",
)


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
    """A version that a search has found, with its present state."""

    state: ModelState


@dataclass(frozen=True)
class MetricRange:
    """The versions whose metric lies between two numbers, which are included; those without it do not."""

    name: str
    low: float | None = None
    high: float | None = None


def metric_range(name: str, bounds: str) -> MetricRange:
    """The range in a text `low:high`, either of which may be left out.

    Raises
    ------
    ConfigError
        It is no such text, or NaN.
    """
    low, colon, high = bounds.partition(":")
    try:
        numbers = [None if not each.strip() else float(each) for each in (low, high)]
    except ValueError:
        numbers = [math.nan]
    if not colon or any(each is not None and math.isnan(each) for each in numbers):
        raise ConfigError(f"metric {excerpt(name)}: {excerpt(bounds)} is no range; write it as low:high, e.g. 0.02:")
    return MetricRange(name, *numbers)


@dataclass(frozen=True)
class VersionSearch:
    """What is searched for: all conditions hold. None and empty: no condition."""

    text: str = ""
    """Words, all of which occur in the description, the keys or the tags; upper and lower case are the same."""
    tags: Mapping[str, str] = field(default_factory=dict)
    family: str | None = None
    state: ModelState | None = None
    data_version: str | None = None
    metrics: tuple[MetricRange, ...] = ()
    since: date | None = None
    """First day (UTC) of the registration."""
    until: date | None = None
    """Last day (UTC) of the registration."""
    sort: str = "version"
    """One of `SORTED_BY`, or `metric.<name>`; versions without the metric come last."""
    ascending: bool = False
    page: int = 1
    size: int = 50


@dataclass(frozen=True)
class VersionPage:
    """A page of what a search has found."""

    total: int
    """Number of versions on all pages."""
    versions: tuple[FoundVersion, ...]


def index_versions(settings: Settings, found: Sequence[RegisteredVersion], only: Sequence[int] | None = None) -> None:
    """Put versions into the index, in place of what it has of them, in one transaction.

    `only`, if given, are all versions that there are: what else the index has is removed.
    """
    with session(settings) as active:
        lock_table(active, IndexedVersion.__tablename__)
        gone = [] if only is None else sorted(set(_indexed(active)) - set(only))
        own = _own_tags(active)
        for start in range(0, len(found), LARGEST_PAGE):
            part = found[start : start + LARGEST_PAGE]
            _remove(active, [each.version for each in part])
            _insert(active, [(each, {**each.tags, **own.get(each.version, {})}) for each in part])
        _remove(active, gone)


def indexed_versions(settings: Settings) -> frozenset[int]:
    """The versions that the index has."""
    with reading(settings) as active:
        return frozenset(_indexed(active))


def search_versions(settings: Settings, wanted: VersionSearch) -> VersionPage:
    """The versions that meet all conditions, sorted; equal ones by their number, the newest first.

    Raises
    ------
    ConfigError
        There is no such order, the page is not positive or too large, or a text has a NUL character.
    """
    _check(wanted)
    query = select(IndexedVersion).where(*_conditions(wanted))
    with reading(settings) as active:
        total = active.scalar(select(func.count()).select_from(IndexedVersion).where(*_conditions(wanted))) or 0
        page = _sorted(query, wanted).limit(wanted.size).offset((wanted.page - 1) * wanted.size)
        return VersionPage(total, _read(active, active.scalars(page).all()))


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
        The name has other characters than letters, digits, `_`, `.`, `-`, or name or value is too long.
    StoreError
        The index has no such version.
    """
    _check_tag(name, value)
    with session(settings) as active:
        lock_table(active, IndexedVersion.__tablename__)
        lock_table(active, VersionTag.__tablename__)  # so that the order of their ids is that of their transactions
        found = _find(active, version)
        row = VersionTag(model_version=version, name=name, value=value, by=by)
        row.content_digest = content_digest(row)
        active.add(row)
        tags = {**found.tags, f"{OWN_TAG}{name}": value}
        _remove(active, [version])
        _insert(active, [(found, tags)])
        return _find(active, version)


def newest_tag(settings: Settings) -> int:
    """Number of the newest row of people's tags; 0: there is none."""
    with reading(settings) as active:
        return active.scalar(select(func.max(VersionTag.id))) or 0


def tags_since(settings: Settings, number: int) -> dict[int, dict[str, str]]:
    """By version, people's tags that were given after a row, by their names in MLflow; an empty value: taken away."""
    with reading(settings) as active:
        return _own_tags(active, number)


def _check(wanted: VersionSearch) -> None:
    if wanted.sort not in SORTED_BY and not wanted.sort.startswith(METRIC):
        raise ConfigError(f"sort {excerpt(wanted.sort)}: use one of {', '.join(SORTED_BY)}, or {METRIC}<name>")
    texts = (wanted.text, wanted.family, wanted.data_version, wanted.sort, *wanted.tags, *wanted.tags.values())
    if any("\0" in each for each in (*texts, *(each.name for each in wanted.metrics)) if each):
        raise ConfigError("a text to search for has a NUL character; leave it out")
    if wanted.page < 1 or not 1 <= wanted.size <= LARGEST_PAGE:
        raise ConfigError(
            f"page {wanted.page} of {wanted.size}: pages begin at 1, and have 1 to {LARGEST_PAGE} versions"
        )


def _check_tag(name: str, value: str) -> None:
    if not _TAG_NAME.fullmatch(name):
        raise ConfigError(f"tag {excerpt(name)}: a name has 1 to 64 letters, digits, `_`, `-` and dots")
    if len(value) > LONGEST_TAG:
        raise ConfigError(f"tag {excerpt(name)}: its value has {len(value)} characters; {LONGEST_TAG} are allowed")


def _indexed(active: Session) -> Sequence[int]:
    return active.scalars(select(IndexedVersion.version)).all()


def _own_tags(active: Session, after: int = 0) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for row in active.scalars(select(VersionTag).where(VersionTag.id > after).order_by(VersionTag.id)):
        found.setdefault(row.model_version, {})[f"{OWN_TAG}{row.name}"] = row.value
    return found


def _remove(active: Session, versions: Sequence[int]) -> None:
    for column in (IndexedVersion.version, IndexedTag.version, IndexedMetric.version):
        active.execute(delete(column.class_).where(column.in_(versions)))


def _insert(active: Session, given: Sequence[tuple[RegisteredVersion, Mapping[str, str]]]) -> None:
    versions: list[dict[str, Any]] = []
    tags: list[dict[str, Any]] = []
    metrics: list[dict[str, Any]] = []
    for each, own in given:
        shown = {name: value[:LONGEST_TAG] for name, value in own.items() if value}
        said = (str(each.version), each.training_key, each.family, each.data_version, each.feature_version, each.run_id)
        state = state_within(active, Model(each.training_key, each.version))
        versions.append(
            {
                **{name: getattr(each, name) for name in _COPIED},
                "state": state.value,
                "text": "\n".join((*said, each.description, *shown, *shown.values())).lower(),
            }
        )
        tags += [{"version": each.version, "name": name, "value": value} for name, value in shown.items()]
        metrics += [{"version": each.version, "name": name, "value": value} for name, value in each.metrics.items()]
    for table, rows in ((IndexedVersion, versions), (IndexedTag, tags), (IndexedMetric, metrics)):
        if rows:
            active.execute(insert(table), rows)


def _conditions(wanted: VersionSearch) -> list[ColumnElement[bool]]:
    found = [IndexedVersion.text.contains(word, autoescape=True) for word in wanted.text.lower().split()]
    for column, value in (
        (IndexedVersion.family, wanted.family),
        (IndexedVersion.state, wanted.state),
        (IndexedVersion.data_version, wanted.data_version),
    ):
        if value is not None:
            found.append(column == str(value))
    for name, value in wanted.tags.items():
        tagged = and_(IndexedTag.name == name, IndexedTag.value == value[:LONGEST_TAG])
        found.append(IndexedVersion.version.in_(select(IndexedTag.version).where(tagged)))
    for asked in wanted.metrics:
        inside = [IndexedMetric.name == asked.name]
        inside += [] if asked.low is None else [IndexedMetric.value >= asked.low]
        inside += [] if asked.high is None else [IndexedMetric.value <= asked.high]
        found.append(IndexedVersion.version.in_(select(IndexedMetric.version).where(*inside)))
    if wanted.since is not None:
        found.append(IndexedVersion.registered_at >= datetime.combine(wanted.since, time(), UTC))
    if wanted.until is not None:
        found.append(IndexedVersion.registered_at < datetime.combine(wanted.until, time(), UTC) + timedelta(days=1))
    return found


def _sorted(query: Select[IndexedVersion], wanted: VersionSearch) -> Select[IndexedVersion]:
    newest = IndexedVersion.version.desc()
    if not wanted.sort.startswith(METRIC):
        column = getattr(IndexedVersion, wanted.sort)
        return query.order_by(column.asc() if wanted.ascending else column.desc(), newest)
    of_version = and_(
        IndexedMetric.version == IndexedVersion.version, IndexedMetric.name == wanted.sort.removeprefix(METRIC)
    )
    value = IndexedMetric.value
    by_value = value.asc() if wanted.ascending else value.desc()
    return query.outerjoin(IndexedMetric, of_version).order_by(value.is_(None), by_value, newest)


def _find(active: Session, version: int) -> FoundVersion:
    rows = active.scalars(select(IndexedVersion).where(IndexedVersion.version == version)).all()
    if not rows:
        raise StoreError(f"the index has no version {version}; `alphaops models search` lists them")
    return _read(active, rows)[0]


def _read(active: Session, rows: Sequence[IndexedVersion]) -> tuple[FoundVersion, ...]:
    versions = [row.version for row in rows]
    tags: dict[int, dict[str, str]] = {version: {} for version in versions}
    metrics: dict[int, dict[str, float]] = {version: {} for version in versions}
    for tag in active.scalars(select(IndexedTag).where(IndexedTag.version.in_(versions)).order_by(IndexedTag.name)):
        tags[tag.version][tag.name] = tag.value
    query = select(IndexedMetric).where(IndexedMetric.version.in_(versions)).order_by(IndexedMetric.name)
    for metric in active.scalars(query):
        metrics[metric.version][metric.name] = metric.value
    return tuple(
        FoundVersion(
            version=row.version,
            training_key=row.training_key,
            family=row.family,
            data_version=row.data_version,
            feature_version=row.feature_version,
            run_id=row.run_id,
            description=row.description,
            registered_at=row.registered_at,
            metrics=metrics[row.version],
            tags=tags[row.version],
            state=ModelState(row.state),
        )
        for row in rows
    )
