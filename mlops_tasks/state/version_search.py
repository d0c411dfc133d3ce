"""Search of the index of versions by words, tags, family, state, metrics and dates."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, excerpt
from mlops_tasks.state.model_index import LONGEST_TAG, FoundVersion
from mlops_tasks.state.version_catalogue import Catalogue, begin_of, catalogue
from mlops_tasks.states import ModelState

SORTED_BY = ("version", "registered_at", "family", "state", "data_version")
METRIC = "metric."
"""Before a metric's name: what is sorted by it."""
LARGEST_PAGE = 1000
LONGEST_TEXT = 1000
"""Characters of a text to search for."""


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
    """What is searched for: all conditions hold. None and empty: no condition. No text is a pattern."""

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


def search_versions(settings: Settings, wanted: VersionSearch) -> VersionPage:
    """The versions that meet all conditions, sorted; equal ones by their number, the newest first.

    Raises
    ------
    ConfigError
        There is no such order, the page is not positive or too large, or a text is too long or has a NUL character.
    """
    _check(wanted)
    known = catalogue(settings)
    places = np.flatnonzero(_meeting(known, wanted))
    first = (wanted.page - 1) * wanted.size
    if first >= len(places):
        return VersionPage(len(places), ())
    order = _order(known, wanted, places)[first : first + wanted.size]
    return VersionPage(len(places), tuple(known.versions[place] for place in order))


def known_families(settings: Settings) -> list[str]:
    """The families that versions of the index have, by name."""
    return sorted(catalogue(settings).families.known)


def known_metrics(settings: Settings) -> list[str]:
    """The metrics that versions of the index have, by name."""
    return sorted(catalogue(settings).names[1])


def _check(wanted: VersionSearch) -> None:
    if wanted.sort not in SORTED_BY and not wanted.sort.startswith(METRIC):
        raise ConfigError(f"sort {excerpt(wanted.sort)}: use one of {', '.join(SORTED_BY)}, or {METRIC}<name>")
    texts = (wanted.text, wanted.family, wanted.data_version, wanted.sort, *wanted.tags, *wanted.tags.values())
    for each in (*texts, *(each.name for each in wanted.metrics)):
        if each and "\0" in each:
            raise ConfigError(f"{excerpt(each)}: a text to search for has a NUL character; leave it out")
        if each and len(each) > LONGEST_TEXT:
            raise ConfigError(f"{excerpt(each)}: {len(each)} characters to search for; {LONGEST_TEXT} are allowed")
    if wanted.page < 1 or not 1 <= wanted.size <= LARGEST_PAGE:
        raise ConfigError(
            f"page {wanted.page} of {wanted.size}: pages begin at 1, and have 1 to {LARGEST_PAGE} versions"
        )


def _meeting(known: Catalogue, wanted: VersionSearch) -> NDArray[np.bool_]:
    """Which versions meet all conditions, `(n,)`."""
    found = np.ones(len(known.versions), bool)
    for condition in _conditions(known, wanted):
        found &= condition
    return found


def _conditions(known: Catalogue, wanted: VersionSearch) -> Iterator[NDArray[np.bool_]]:
    for word in dict.fromkeys(wanted.text.lower().split()):
        yield known.texts.containing(word)
    if wanted.family is not None:
        yield known.families.equal(wanted.family)
    if wanted.state is not None:
        yield known.states.equal(wanted.state.value)
    if wanted.data_version is not None:
        yield known.data_versions.equal(wanted.data_version)
    for name, value in wanted.tags.items():
        yield known.tag(name).equal(value[:LONGEST_TAG])
    for asked in wanted.metrics:
        yield known.metric(asked.name) >= (-math.inf if asked.low is None else asked.low)
        yield known.metric(asked.name) <= (math.inf if asked.high is None else asked.high)
    if wanted.since is not None:
        yield known.registered >= begin_of(wanted.since)
    if wanted.until is not None:
        yield known.registered < begin_of(wanted.until) + timedelta(days=1) // timedelta(microseconds=1)


def _order(known: Catalogue, wanted: VersionSearch, places: NDArray[np.intp]) -> NDArray[np.intp]:
    """The places in the order that is wanted; the places of equal ones are ascending, which is the newest first."""
    if wanted.sort.startswith(METRIC):
        values = known.metric(wanted.sort.removeprefix(METRIC))[places]
        signed = values if wanted.ascending else -values
        return places[np.argsort(np.where(np.isnan(values), math.inf, signed), kind="stable")]
    keys = {
        "version": lambda: known.numbers,
        "registered_at": lambda: known.registered,
        "family": lambda: known.families.numbers,
        "state": lambda: known.states.numbers,
        "data_version": lambda: known.data_versions.numbers,
    }[wanted.sort]()[places]
    return places[np.argsort(keys if wanted.ascending else -keys, kind="stable")]
