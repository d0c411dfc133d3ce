"""The feature store: partitions of one calendar year, named by what their values depend on.

A partition depends on the feature set, the engine's version, the bars of its year and of the earlier years that its
longest window reaches into, the trading days of that range, and which instruments begin in it. What a new partition
shares with an existing one over another vintage is copied from it; `affected` says which rows are computed.
A feature version is an ordered list of partitions.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from itertools import groupby
from math import isinf
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.errors import DamagedFileError, StoreError
from mlops_tasks.features.partitions import Partition, is_intact, read_statistics, statistics_path, write_partition
from mlops_tasks.features.reading import Order, Selection, read_frame, read_newest, read_table
from mlops_tasks.features.sets import FeatureSet, find_feature_set, stored_feature_set
from mlops_tasks.features.statistics import ColumnStatistics, merge_columns
from mlops_tasks.files import digest_of, folder_lock, new_folder, plain_name, read_json, write_json
from mlops_tasks.shared_store import Kind, fetch, fetch_files, is_published, publish, pull, push
from mlops_tasks.verified import verified_files

if TYPE_CHECKING:
    from mlops_tasks.features.computation import BaseFeatures

log = logging.getLogger(__name__)

MANIFEST, POINTERS, PARTITIONS = "manifest.json", "by_vintage", "partitions"
"""File of a version; folders of the store."""

Day: TypeAlias = date | str | pd.Timestamp


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class FeatureVersion:
    """A stored feature set over one vintage.

    Attributes
    ----------
    data_version
        The vintage it was computed from; from `get`, the first one that had exactly these bars.
    computed_rows
        Rows that the call had to compute; the others existed already.
    """

    feature_version: str
    feature_set: str
    names: tuple[str, ...]
    rows: int
    partitions: tuple[Partition, ...]
    data_version: str
    computed_rows: int = 0


class FeatureStore:
    """Computes, lists and reads feature versions below `<home>/features`."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime] = _now) -> None:
        self.settings = settings
        self.clock = clock
        self.root = settings.features_dir
        self.partitions = self.root / PARTITIONS
        self.memory = verified_files(settings.home)

    def compute(
        self,
        vintage: Vintage,
        feature_set: str | FeatureSet = "alpha158",
        on_computed: Callable[[pd.MultiIndex], None] | None = None,
    ) -> FeatureVersion:
        """Compute the features of a vintage and store them; what is stored already is not computed again.

        All instruments and exactly the rows that have a bar; membership is applied on reading.

        Parameters
        ----------
        feature_set
            Name of a set, for its current definition, or a definition, e.g. that of an earlier version (`definition`).
        on_computed
            Called after each partition that was written, with its rows (datetime, instrument) that were computed.

        Raises
        ------
        ConfigError
            Unknown feature set, or a wrong expression in it.
        StoreError
            An instrument that an expression names has no bars, or the disk is full.
        """
        name = feature_set if isinstance(feature_set, str) else feature_set.digest
        definition = find_feature_set(feature_set, self.settings) if isinstance(feature_set, str) else feature_set
        with folder_lock(self.partitions):
            version = self._stored(vintage, definition) or self._compute(vintage, definition, on_computed)
            self._share(version)
            for key in {definition.digest, name}:
                pointer = self._pointer(vintage.data_version, key)
                write_json(pointer, {"feature_version": version.feature_version, "definition": definition.digest})
                push(self.settings, pointer)
        return version

    def find(self, data_version: str, feature_set: str = "alpha158") -> str | None:
        """The feature version that was last computed for a data version, or None while there is none.

        `feature_set` is a set's name, for its current definition, or the digest of a definition.

        Raises
        ------
        ConfigError
            The set is not known any more, or its definition is wrong.
        """
        path = self._pointer(data_version, feature_set)
        pull(self.settings, path)
        if not path.is_file():
            return None
        pointer = read_json(path)
        definition = pointer.get("definition")
        if definition != feature_set and definition != find_feature_set(feature_set, self.settings).digest:
            return None
        return str(pointer["feature_version"])

    def get(self, feature_version: str) -> FeatureVersion:
        """A stored version.

        Raises
        ------
        StoreError
            There is none of that name.
        """
        path = self._manifest(feature_version)
        if not self._has(feature_version):
            raise StoreError(f"{path}: no feature version {feature_version}; run features.compute on its data version")
        content = read_json(path)
        return FeatureVersion(
            feature_version=feature_version,
            feature_set=content["feature_set"],
            names=tuple(content["names"]),
            rows=content["rows"],
            partitions=tuple(Partition(**each) for each in content["partitions"]),
            data_version=content["data_version"],
        )

    def newest(self, feature_set: str) -> FeatureVersion | None:
        """The version that was last computed by a set's current definition, for any vintage; None without one.

        Raises
        ------
        ConfigError
            The set is not known, or its definition is wrong.
        """
        digest = find_feature_set(feature_set, self.settings).digest
        pointers = sorted(self.root.glob(f"{POINTERS}/[!.]*.{digest}.json"), key=lambda path: path.stat().st_mtime_ns)
        for pointer in reversed(pointers):
            name = read_json(pointer)["feature_version"]
            if self._manifest(name).is_file():
                return replace(self.get(name), data_version=pointer.name.partition(".")[0])
        return None

    def statistics(
        self, partitions: Sequence[Partition], first: Day | None = None, last: Day | None = None
    ) -> dict[str, ColumnStatistics] | None:
        """Statistics of the columns over all rows of the years of a span, without reading features; None where a
        partition has none, or where the span has no year."""
        years = pd.Timestamp(first or "1677-09-22").year, pd.Timestamp(last or "2262-04-11").year
        found = [read_statistics(self._file(each)) for each in partitions if years[0] <= each.year <= years[1]]
        recorded = [each for each in found if each is not None]
        return merge_columns(recorded) if recorded and len(recorded) == len(found) else None

    def definition(self, feature_version: str) -> FeatureSet:
        """The feature set by which a stored version was computed, whatever its name stands for now.

        Raises
        ------
        StoreError
            There is none of that name.
        """
        self.get(feature_version)
        return stored_feature_set(read_json(self._manifest(feature_version)))

    def load(  # noqa: PLR0913, PLR0917 - a version, the ways to select from it, and the layout
        self,
        feature_version: str,
        start: Day | None = None,
        end: Day | None = None,
        members: Vintage | None = None,
        columns: Sequence[str] | None = None,
        instruments: Collection[str] | None = None,
        order: Order = "F",
    ) -> pd.DataFrame:
        """Features as one float32 frame.

        Parameters
        ----------
        feature_version
            A version in this store.
        start, end
            First and last day, both included; default: all.
        members
            Keep the rows of instruments that are members of this vintage's universe on that day; default: all rows.
        columns
            Which features; default: all, in the set's order.
        instruments
            Only these; default: all. One without a row in the range is left out.
        order
            Layout of the values in memory: column-major (F), or row-major (C), which is for taking many rows.

        Returns
        -------
        Index (datetime, instrument), sorted by both in that order. NaN where a feature has no value.

        Raises
        ------
        StoreError
            Unknown version or column, or a partition is gone.
        DamagedFileError
            A partition that is needed is not what was written; `compute` computes it again.
        """
        return read_frame(*self._select(feature_version, (start, end), members, columns, instruments), order)

    def load_arrow(  # noqa: PLR0913, PLR0917 - as `load`
        self,
        feature_version: str,
        start: Day | None = None,
        end: Day | None = None,
        members: Vintage | None = None,
        columns: Sequence[str] | None = None,
        instruments: Collection[str] | None = None,
    ) -> pa.Table:
        """`load` as an Arrow table: datetime (timestamp[ns]), instrument (dictionary of strings), float32 features.

        A feature without a value is NaN, not null. A range of days is not copied out of the decoded row groups.
        """
        return read_table(*self._select(feature_version, (start, end), members, columns, instruments))

    def load_as_of(
        self,
        feature_version: str,
        day: Day,
        instruments: Collection[str] | None = None,
        max_age_days: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """The newest row of each instrument at or before a day.

        Parameters
        ----------
        feature_version
            A version in this store.
        day
            The last day whose features may be used.
        instruments
            Only these; default: every instrument that has a row by then, even if it has since been delisted.
        max_age_days
            Leave out rows that are older than this number of calendar days; default: any age.
        columns
            Which features; default: all, in the set's order.

        Returns
        -------
        As `load`, one row per instrument. Its datetime is the row's own day, so that its age can be seen.

        Raises
        ------
        StoreError
            As `load`.
        """
        start = None if max_age_days is None else pd.Timestamp(day) - pd.Timedelta(max_age_days, "D")
        return read_newest(*self._select(feature_version, (start, day), None, columns, instruments))

    def version_as_of(self, moment: datetime, feature_set: str = "alpha158") -> str:
        """The feature version that was in use at a moment: the newest that existed then, of the vintage in use then.

        Which vintage came into use when is recorded with every publication, and a version's manifest says when it was
        made, so this version holds neither a later restatement nor a later definition of the set.

        Parameters
        ----------
        moment
            With a time zone.
        feature_set
            Its name.

        Raises
        ------
        StoreError
            `moment` has no time zone, no publication is recorded until then, or there were no features of that vintage
            yet, or they are gone.
        """
        from mlops_tasks.state.history import publication_at

        if moment.tzinfo is None:
            raise StoreError(f"moment: {moment} has no time zone; give an aware time, e.g. datetime.now(UTC)")
        publication = publication_at(self.settings, moment)
        if publication is None:
            raise StoreError(f"no vintage is recorded as in use at {moment}; give a later moment")
        data_version = publication.data_version
        made = {}
        for pointer in (self.root / POINTERS).glob(f"{data_version}.*.json"):
            path = self._manifest(read_json(pointer)["feature_version"])
            content = read_json(path) if path.is_file() else {}
            if content.get("feature_set") == feature_set:
                # A manifest without a time is older than the record of publications.
                made[content["feature_version"]] = content.get("created", "")
        known = {name: at for name, at in made.items() if not at or datetime.fromisoformat(at) <= moment}
        if not known:
            raise StoreError(
                f"vintage {data_version} was in use at {moment}, but no {feature_set} features of it that were made by "
                f"then are stored (made later: {sorted(made) or 'none'}); load one of these, or give a later moment"
            )
        return max(known, key=lambda name: (known[name], name))

    def fetch(self, feature_version: str) -> None:
        """Fetch from the shared store what this machine lacks of a version, for a process that cannot reach the store.

        Raises
        ------
        StoreError
            There is none of that name, or a partition is gone.
        """
        if self.settings.shared.store:
            for partition in self.get(feature_version).partitions:
                self._existing(partition)

    def verify(self, feature_version: str) -> list[Partition]:
        """Partitions whose file is gone, or is no longer what was written; every byte of the version is read.

        Remove these files and run features.compute again. Damage that leaves a file's times unchanged is found only
        here.

        Raises
        ------
        StoreError
            There is no such version.
        """
        return [each for each in self.get(feature_version).partitions if not is_intact(self._file(each))]

    def _select(
        self,
        feature_version: str,
        span: tuple[Day | None, Day | None],
        members: Vintage | None,
        columns: Sequence[str] | None,
        instruments: Collection[str] | None,
    ) -> tuple[list[Path], Selection]:
        """The files that hold days of a span, the oldest first, and what to take from them."""
        version = self.get(feature_version)
        names = version.names if columns is None else tuple(columns)
        unknown = sorted(set(names) - set(version.names))
        if unknown:
            raise StoreError(f"feature version {feature_version} has no columns {unknown}; it is {version.feature_set}")
        first, last = pd.Timestamp(span[0] or "1677-09-22"), pd.Timestamp(span[1] or "2262-04-11")
        paths = [self._existing(each) for each in version.partitions if first.year <= each.year <= last.year]
        wanted = [instruments] if isinstance(instruments, str) else instruments
        return paths, Selection(names, first, last, members, wanted)

    def _stored(self, vintage: Vintage, definition: FeatureSet) -> FeatureVersion | None:
        """The version of a vintage, if all of it is there."""
        path = self._pointer(vintage.data_version, definition.digest)
        pull(self.settings, path)
        if not path.is_file() or not self._has(read_json(path)["feature_version"]):
            return None
        version = self.get(read_json(path)["feature_version"])
        if version.feature_set != definition.name or not all(map(self._is_intact, version.partitions)):
            return None
        return replace(version, data_version=vintage.data_version)

    def _compute(
        self, vintage: Vintage, definition: FeatureSet, on_computed: Callable[[pd.MultiIndex], None] | None
    ) -> FeatureVersion:
        from mlops_tasks.features.computation import Computation  # this loads the engine and the kernels' compiler

        self._remove_unfinished()
        job = Computation(definition, vintage)
        partitions = tuple(job.partition(year) for year in job.years)
        missing = [each for each in partitions if not self._is_intact(each)]
        bases = self._bases(vintage, definition) if missing else []
        computed_rows = 0
        pieces = job.pieces([each.year for each in missing], bases)
        for partition, (features, parts) in zip(missing, groupby(pieces, itemgetter(0)), strict=True):
            values = (part for _, part in parts)
            written = write_partition(self._file(partition), definition.names, features.index, values)
            self.memory.remember(self._file(partition), written)
            computed = features.index[features.computed]
            computed_rows += len(computed)
            log.info(
                "features %s of %s: computed %s of %s rows, of %s of %s instruments; partition %s of %s is written",
                *(definition.name, partition.year, f"{len(computed):,}", f"{partition.rows:,}"),
                *(len(np.unique(computed.codes[1])), len(features.index.levels[1])),
                *(missing.index(partition) + 1, len(missing)),
            )
            if on_computed is not None and len(computed):
                on_computed(computed)
        version = FeatureVersion(
            feature_version=digest_of([definition.name, definition.digest, [each.digest for each in partitions]]),
            feature_set=definition.name,
            names=definition.names,
            rows=sum(partition.rows for partition in partitions),
            partitions=partitions,
            data_version=vintage.data_version,
            computed_rows=computed_rows,
        )
        self._write_manifest(version, definition, vintage)
        return version

    def _bases(self, vintage: Vintage, definition: FeatureSet) -> "list[BaseFeatures]":
        """Stored features of this definition over other vintages, those that share most years with this one first."""
        from mlops_tasks.features.computation import BaseFeatures

        found, years = [], vintage.manifest["years"]
        for pointer in self.root.glob(f"{POINTERS}/*.{definition.digest}.json"):
            try:
                other = load_vintage(self.settings, pointer.name.partition(".")[0])
                version = self.get(read_json(pointer)["feature_version"])
            except StoreError as error:
                log.info("features of %s: cannot reuse older ones: %s", definition.name, error)
                continue
            shared = sum(other.manifest["years"].get(year) == content for year, content in years.items())
            files = {each.year: self._file(each) for each in version.partitions}
            found.append((shared, pointer.stat().st_mtime_ns, BaseFeatures(other, files)))
        return [base for *_, base in sorted(found, key=itemgetter(0, 1), reverse=True)]

    def _write_manifest(self, version: FeatureVersion, definition: FeatureSet, vintage: Vintage) -> None:
        target = self._manifest(version.feature_version)
        if target.is_file():
            return
        content = asdict(version) | definition.to_json()
        del content["computed_rows"]
        content |= {
            "inputs": list(definition.fields),
            "window": None if isinf(definition.lookback_rows) else int(definition.lookback_rows),
            "first_date": vintage.first_date,
            "last_date": vintage.last_date,
            "instruments": vintage.instruments,
            "created": self.clock().isoformat(timespec="seconds"),
        }
        with new_folder(target.parent) as folder:
            write_json(folder / target.name, content)

    def _pointer(self, data_version: str, feature_set: str) -> Path:
        """Versions are shared by vintages with equal bars, so a manifest cannot name them all."""
        return self.root / POINTERS / plain_name(f"{data_version}.{feature_set}.json", "data version and feature set")

    def _manifest(self, feature_version: str) -> Path:
        return self.root / plain_name(feature_version, "feature version") / MANIFEST

    def _has(self, feature_version: str) -> bool:
        """Whether a version is here by now; its partitions are fetched when they are read."""
        path = self._manifest(feature_version)
        return path.is_file() or fetch(self.settings, Kind.FEATURES, feature_version, path.parent)

    def _share(self, version: FeatureVersion) -> None:
        """Publish a version, its manifest after its partitions."""
        if is_published(self.settings, Kind.FEATURES, version.feature_version):
            return
        for each in version.partitions:
            files = self._file(each), statistics_path(self._file(each))
            publish(self.settings, Kind.PARTITIONS, each.digest, self.partitions, [path.name for path in files])
        publish(self.settings, Kind.FEATURES, version.feature_version, self._manifest(version.feature_version).parent)

    def _file(self, partition: Partition) -> Path:
        return self.partitions / f"{partition.digest}.parquet"

    def _existing(self, partition: Partition) -> Path:
        path = self._file(partition)
        if not self._is_intact(partition):
            if not path.is_file():
                raise StoreError(f"{path}: the partition of {partition.year} is gone; run features.compute again")
            raise DamagedFileError(
                f"{path}: not what was written (its size and checksum are not those in {partition.digest}.json); "
                "nothing of it is used. Run features.compute again (alphaops features compute) to replace it"
            )
        return path

    def _is_intact(self, partition: Partition) -> bool:
        """Whether a partition is here as it was written, fetched from the shared store where it was not."""
        path = self._file(partition)
        return is_intact(path, self.memory) or (
            fetch_files(self.settings, Kind.PARTITIONS, partition.digest, self.partitions)
            and is_intact(path, self.memory)
        )

    def _remove_unfinished(self) -> None:
        for left in self.partitions.glob("*.tmp"):
            left.unlink()
