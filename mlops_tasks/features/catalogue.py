"""The catalogue of the feature store: lists, compares and deletes versions."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.columns import DATETIME
from mlops_tasks.config import Settings
from mlops_tasks.errors import StoreError
from mlops_tasks.features.garbage import files_of, remove
from mlops_tasks.features.partitions import Partition
from mlops_tasks.features.statistics import ColumnStatistics
from mlops_tasks.features.store import MANIFEST, POINTERS, FeatureStore
from mlops_tasks.files import finite_or_none, folder_lock, read_json

_COLUMNS_A_TIME = 16
"""Columns that are compared at once, so that little of two years is in memory."""


@dataclass(frozen=True)
class FeatureVersionInfo:
    """What is known about a stored version. None or empty: it was written before that was recorded.

    Attributes
    ----------
    definition
        Digest of what is computed.
    expressions, indicators
        Name to text of the factors, and the entries of the indicators that follow them.
    inputs
        Fields of the bars that are read.
    window
        Calendar rows before the current one that a value depends on at most; None with an indicator that depends on
        every row since an instrument's first.
    data_versions
        Vintages that have these features, as far as a pointer records it.
    statistics
        Statistics of each column over all rows; None: not asked for, or not recorded.
    """

    feature_version: str
    feature_set: str
    names: tuple[str, ...]
    rows: int
    partitions: tuple[Partition, ...]
    data_version: str
    data_versions: tuple[str, ...]
    definition: str
    expressions: Mapping[str, str]
    indicators: tuple[Any, ...] = ()
    set_version: int | None = None
    owner: str | None = None
    description: str | None = None
    inputs: tuple[str, ...] = ()
    window: int | None = None
    first_date: str | None = None
    last_date: str | None = None
    instruments: int | None = None
    created: str | None = None
    statistics: Mapping[str, ColumnStatistics] | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """As a plain dict."""
        content = asdict(self)
        for name in ("names", "partitions", "data_versions", "indicators", "inputs"):
            content[name] = list(content[name])
        if self.statistics is not None:
            content["statistics"] = {name: each.to_json() for name, each in self.statistics.items()}
        return content


@dataclass(frozen=True)
class ColumnDifference:
    """Where a column of one year differs in the rows that both versions have.

    Attributes
    ----------
    values
        Rows in which the two differ; NaN equals NaN.
    appeared, vanished
        Those among them in which only the old one is NaN, and in which only the new one is.
    largest
        Largest absolute difference where both are finite; NaN where none is.
    first_date, last_date
        First and last day with a differing value.
    """

    year: int
    values: int
    appeared: int
    vanished: int
    largest: float
    first_date: str
    last_date: str


@dataclass(frozen=True)
class VersionComparison:
    """How two versions differ.

    Attributes
    ----------
    changed_definition
        Entries of the manifest that say how values are computed and that differ: name to (old, new).
    added, removed
        Columns that only the new version has, and only the old one.
    redefined
        Columns of both that are computed by another expression: name to (old, new).
    rows_added, rows_removed
        Rows that only the new version has, and only the old one.
    common_rows
        Rows of both.
    equal_years
        Years whose partitions are the same file: they were not compared.
    differences
        Column to its differences, one for each year that has any; columns without any are left out.
    statistics
        Column that differs to its (old, new) statistics over all rows; without those that were not recorded.
    """

    old: str
    new: str
    changed_definition: Mapping[str, tuple[Any, Any]]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    redefined: Mapping[str, tuple[str, str]]
    rows_added: int
    rows_removed: int
    common_rows: int
    equal_years: tuple[int, ...]
    differences: Mapping[str, tuple[ColumnDifference, ...]]
    statistics: Mapping[str, tuple[ColumnStatistics, ColumnStatistics]]

    def to_json(self) -> dict[str, Any]:
        """As a plain dict; null for NaN."""
        return asdict(self) | {
            "differences": {
                name: [asdict(each) | {"largest": finite_or_none(each.largest)} for each in years]
                for name, years in self.differences.items()
            },
            "statistics": {name: [each.to_json() for each in both] for name, both in self.statistics.items()},
        }


class FeatureCatalogue:
    """Lists, compares and deletes the versions of the store below `<home>/features`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = FeatureStore(settings)

    def versions(self, feature_set: str | None = None) -> list[FeatureVersionInfo]:
        """All versions, of one set where it is given, in the order in which they were made; without statistics."""
        pointers = self._data_versions()
        found = [self._info(path, pointers) for path in self.store.root.glob(f"[!.]*/{MANIFEST}")]
        chosen = [each for each in found if feature_set in (None, each.feature_set)]
        return sorted(chosen, key=lambda each: (each.created or "", each.feature_version))

    def info(self, feature_version: str) -> FeatureVersionInfo:
        """One version with the statistics of its columns.

        Raises
        ------
        StoreError
            There is no such version.
        """
        self.store.get(feature_version)
        path = self.store.root / feature_version / MANIFEST
        return self._info(path, self._data_versions(), statistics=True)

    def compare(self, old: str, new: str) -> VersionComparison:
        """How the version `new` differs from `old`; partitions that both name are not read.

        Raises
        ------
        StoreError
            A version, or one of its partitions, does not exist.
        """
        one, two = self.info(old), self.info(new)
        years = [{each.year: each for each in info.partitions} for info in (one, two)]
        equal = tuple(year for year in years[0] if years[0][year] == years[1].get(year))
        common = tuple(name for name in one.names if name in two.names)
        common_rows = sum(years[0][year].rows for year in equal)
        differences: dict[str, list[ColumnDifference]] = defaultdict(list)
        for year in years[0].keys() & years[1].keys() - set(equal):
            rows = self._common_rows(old, new, year)
            common_rows += len(rows.days)
            for name, found in self._differences((old, new), rows, common):
                differences[name].append(found)
        return VersionComparison(
            old=old,
            new=new,
            changed_definition={
                name: (getattr(one, name), getattr(two, name))
                for name in ("feature_set", "set_version", "definition", "indicators", "inputs", "window")
                if getattr(one, name) != getattr(two, name)
            },
            added=tuple(name for name in two.names if name not in one.names),
            removed=tuple(name for name in one.names if name not in two.names),
            redefined={
                name: (text, two.expressions[name])
                for name, text in one.expressions.items()
                if two.expressions.get(name, text) != text
            },
            rows_added=two.rows - common_rows,
            rows_removed=one.rows - common_rows,
            common_rows=common_rows,
            equal_years=equal,
            differences={
                name: tuple(sorted(differences[name], key=lambda each: each.year))
                for name in common
                if name in differences
            },
            statistics={
                name: (one.statistics[name], two.statistics[name])
                for name in common
                if name in differences and one.statistics and two.statistics
            },
        )

    def delete(
        self, feature_version: str, needed: Mapping[str, Collection[str]] | Collection[str] = ()
    ) -> dict[str, Any]:
        """Remove a version and the partitions that no other version names; after a kill, the next call continues.

        Parameters
        ----------
        feature_version
            Which one; it disappears from the list before the first of its partitions is removed.
        needed
            Versions that must stay; a mapping says who needs each
            (`registry.features_in_use.needed_feature_versions`).

        Returns
        -------
        The version, and how many files and folders were removed.

        Raises
        ------
        StoreError
            It is needed, or there is no such version and nothing is left of one.
        """
        if feature_version in needed:
            who = f" by {', '.join(needed[feature_version])}" if isinstance(needed, Mapping) else ""
            raise StoreError(
                f"feature version {feature_version} is needed{who}: keep it, or delete what needs it first"
            )
        with folder_lock(self.store.partitions):
            paths = files_of(self.settings, [feature_version])
            if not paths:
                self.store.get(feature_version)
            remove(paths)
        return {"feature_version": feature_version, "removed_files": len(paths)}

    def _info(self, path: Path, data_versions: Mapping[str, list[str]], statistics: bool = False) -> FeatureVersionInfo:
        content = read_json(path)
        name, known = path.parent.name, {each.name for each in fields(FeatureVersionInfo)}
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in content.items() if key in known
        }
        given["feature_version"] = name
        given["partitions"] = tuple(Partition(**each) for each in content["partitions"])
        given["data_versions"] = tuple(data_versions.get(name, ()))
        if statistics:
            given["statistics"] = self.store.statistics(given["partitions"])
        return FeatureVersionInfo(**given)

    def _data_versions(self) -> dict[str, list[str]]:
        """Feature version to the vintages whose pointers name it."""
        found: dict[str, set[str]] = defaultdict(set)
        for path in (self.store.root / POINTERS).glob("[!.]*.json"):
            found[read_json(path)["feature_version"]].add(path.name.partition(".")[0])
        return {name: sorted(data_versions) for name, data_versions in found.items()}

    def _common_rows(self, old: str, new: str, year: int) -> "_CommonRows":
        left, right = (self._load(version, year, ()).index for version in (old, new))
        places = right.get_indexer(left)
        both = np.flatnonzero(places >= 0)
        return _CommonRows(year, both, places[both], left.get_level_values(DATETIME)[both])

    def _differences(
        self, versions: tuple[str, str], rows: "_CommonRows", names: tuple[str, ...]
    ) -> Iterator[tuple[str, ColumnDifference]]:
        for begin in range(0, len(names), _COLUMNS_A_TIME):
            some = names[begin : begin + _COLUMNS_A_TIME]
            left, right = (self._load(version, rows.year, some).to_numpy() for version in versions)
            for number, name in enumerate(some):
                found = _difference(rows, left[rows.old, number], right[rows.new, number])
                if found is not None:
                    yield name, found

    def _load(self, version: str, year: int, names: tuple[str, ...]) -> pd.DataFrame:
        return self.store.load(version, f"{year}-01-01", f"{year}-12-31", columns=names)


@dataclass(frozen=True)
class _CommonRows:
    """Rows of one year that two versions have.

    Attributes
    ----------
    old, new
        Their places among all rows of the year, in each version.
    days
        Their days, ascending.
    """

    year: int
    old: NDArray[np.int64]
    new: NDArray[np.int64]
    days: pd.DatetimeIndex


def _difference(rows: _CommonRows, old: NDArray[np.float32], new: NDArray[np.float32]) -> ColumnDifference | None:
    """Where one column differs, or None."""
    missing = np.isnan(old), np.isnan(new)
    differing = np.flatnonzero((old != new) & ~(missing[0] & missing[1]))
    if not len(differing):
        return None
    finite = differing[np.isfinite(old[differing]) & np.isfinite(new[differing])]
    sizes = np.abs(new[finite].astype(np.float64) - old[finite])
    return ColumnDifference(
        year=rows.year,
        values=len(differing),
        appeared=int(missing[0][differing].sum()),
        vanished=int(missing[1][differing].sum()),
        largest=float(sizes.max()) if len(sizes) else nan,
        first_date=str(rows.days[differing[0]].date()),
        last_date=str(rows.days[differing[-1]].date()),
    )
