"""The index of versions in memory: each process that searches keeps a copy, and asks the database what has changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, case, select

from mlops_tasks.config import Settings
from mlops_tasks.state.database import FileStates, querying, settled_files
from mlops_tasks.state.index_revision import NO_REVISION, Revision, is_known, newest_revision
from mlops_tasks.state.model_index import FoundVersion
from mlops_tasks.state.tables import IndexedVersion

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND, _DAY = timedelta(microseconds=1), timedelta(days=1)


@dataclass(frozen=True)
class Words:
    """A text of each version, as a number that sorts as the text does."""

    numbers: NDArray[np.int64]
    """`(n,)`, from 0; -1: the version has none."""
    known: Mapping[str, int]
    """The numbers of all texts that occur."""

    @classmethod
    def of(cls, texts: Sequence[str | None]) -> Self:
        """Number them."""
        known = {text: number for number, text in enumerate(sorted({each for each in texts if each is not None}))}
        numbers = (-1 if each is None else known[each] for each in texts)
        return cls(np.fromiter(numbers, np.int64, len(texts)), known)

    def equal(self, text: str) -> NDArray[np.bool_]:
        """Which versions have a text."""
        number = self.known.get(text)
        return np.zeros(len(self.numbers), bool) if number is None else self.numbers == number


@dataclass(frozen=True)
class Texts:
    """A text of each version, one after the other, in which words are looked for in all of them at once."""

    letters: NDArray[np.uint8]
    """UTF-8, each text followed by a line's end, which no word has."""
    begins: NDArray[np.int64]
    """`(n,)`: where each text begins."""
    counts: NDArray[np.int64]
    """`(256,)`: how often each letter occurs."""

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Self:
        """Join them."""
        letters = np.frombuffer(b"".join(each + b"\n" for each in texts), np.uint8)
        lengths = np.fromiter((len(each) + 1 for each in texts), np.int64, len(texts))
        return cls(letters, np.cumsum(lengths) - lengths, np.bincount(letters, minlength=256))

    def containing(self, word: str) -> NDArray[np.bool_]:
        """Which texts contain a word, `(n,)`: of the places of its rarest letter, those that its others agree with."""
        wanted = np.frombuffer(encoded(word), np.uint8)
        rarest = int(np.argmin(self.counts[wanted]))
        places = np.flatnonzero(self.letters == wanted[rarest]) - rarest
        places = places[(places >= 0) & (places + len(wanted) <= len(self.letters))]
        for place, letter in enumerate(wanted):
            places = places[self.letters[places + place] == letter]
        found = np.zeros(len(self.begins), bool)
        found[np.searchsorted(self.begins, places, side="right") - 1] = True
        return found


@dataclass(frozen=True)
class Catalogue:
    """All versions of the index as they were at one of its revisions, newest first; nobody changes it.

    Its columns are made when they are first asked for.
    """

    address: str
    """Of the database."""
    revision: Revision
    versions: Sequence[FoundVersion]
    said: Sequence[bytes]
    """What a search for words looks at, in lower case, in UTF-8."""
    _tags: dict[str, Words] = field(default_factory=dict)
    _metrics: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @cached_property
    def texts(self) -> Texts:
        """What a search for words looks at."""
        return Texts.of(self.said)

    @cached_property
    def families(self) -> Words:
        """Their families."""
        return Words.of([each.family for each in self.versions])

    @cached_property
    def states(self) -> Words:
        """Their states."""
        return Words.of([each.state.value for each in self.versions])

    @cached_property
    def data_versions(self) -> Words:
        """Their data versions."""
        return Words.of([each.data_version for each in self.versions])

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """Their numbers, `(n,)`."""
        return np.fromiter((each.version for each in self.versions), np.int64, len(self.versions))

    @cached_property
    def registered(self) -> NDArray[np.int64]:
        """When they were registered, `(n,)`, in microseconds since 1970 (UTC)."""
        times = ((each.registered_at - _EPOCH) // _MICROSECOND for each in self.versions)
        return np.fromiter(times, np.int64, len(self.versions))

    @cached_property
    def names(self) -> tuple[frozenset[str], frozenset[str]]:
        """The names of all tags and of all metrics."""
        tags = frozenset(name for each in self.versions for name in each.tags)
        return tags, frozenset(name for each in self.versions for name in each.metrics)

    def tag(self, name: str) -> Words:
        """A tag of each version; names that no version has take no memory."""
        if name not in self.names[0]:
            return Words.of([None] * len(self.versions))
        if name not in self._tags:
            self._tags[name] = Words.of([each.tags.get(name) for each in self.versions])
        return self._tags[name]

    def metric(self, name: str) -> NDArray[np.float64]:
        """A metric of each version, `(n,)`; NaN: it has none."""
        if name not in self.names[1]:
            return np.full(len(self.versions), np.nan)
        if name not in self._metrics:
            values = (each.metrics.get(name, np.nan) for each in self.versions)
            self._metrics[name] = np.fromiter(values, np.float64, len(self.versions))
        return self._metrics[name]


def encoded(text: str) -> bytes:
    """UTF-8; half a character, which a command line can give, is left as it is, and found nowhere."""
    return text.encode(errors="surrogatepass")


def begin_of(day: date) -> int:
    """The first microsecond of a day (UTC), since 1970."""
    return (day - _EPOCH.date()) // _DAY * (_DAY // _MICROSECOND)


_kept: dict[str, tuple[Catalogue, FileStates | None]] = {}
"""The copy of the database that this process has searched last, and what its files looked like just before."""


def catalogue(settings: Settings) -> Catalogue:
    """The index as it is now. What has not changed since the last search of this process is not read again."""
    address = settings.state_database
    kept, files = _kept.get(address, (None, None))
    found = settled_files(address)
    if kept is not None and found is not None and found == files:
        return kept  # opening a SQLite database takes longer than a search
    with querying(settings) as active:
        revision = newest_revision(active)
        if kept is None or kept.revision != revision:
            known = kept is not None and is_known(active, kept.revision)
            before = kept if kept is not None and known else Catalogue(address, NO_REVISION, (), ())
            kept = _renewed(active, before, revision)
    _kept.clear()
    _kept[address] = kept, found
    return kept


def _renewed(active: Connection, kept: Catalogue, revision: Revision) -> Catalogue:
    """One statement, which sees one moment: all versions, with the content of those that have changed."""
    changed = IndexedVersion.changed > kept.revision.number
    content = case((changed, IndexedVersion.document))
    query = select(IndexedVersion.version, IndexedVersion.state, content).order_by(IndexedVersion.version.desc())
    before = {each.version: (each, said) for each, said in zip(kept.versions, kept.said, strict=True)}
    found = [
        before[version] if document is None else _entry(FoundVersion.of(version, state, document))
        for version, state, document in active.execute(query)
    ]
    versions, said = (tuple(each) for each in zip(*found, strict=True)) if found else ((), ())
    return Catalogue(kept.address, revision, versions, said)


def _entry(found: FoundVersion) -> tuple[FoundVersion, bytes]:
    keys = (str(found.version), found.training_key, found.family, found.data_version, found.feature_version)
    said = dict.fromkeys((*keys, found.run_id, found.description, *found.tags, *found.tags.values()))
    return found, encoded("\n".join(said).lower())
