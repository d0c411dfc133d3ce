"""The feature store: partitions of one calendar year, named by what their values depend on.

A partition depends on the feature set, the engine's version, the bars of its year and of the earlier years that its
longest window reaches into, the trading days of that range, and which instruments begin in it. One more day of bars
therefore recomputes the newest year only, a restated bar its own year and the next ones that its window reaches, and
unchanged bars nothing. A feature version is an ordered list of partitions.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.errors import StoreError
from mlops_tasks.features.sets import FeatureSet, find_feature_set
from mlops_tasks.files import digest_of, folder_lock, new_folder, read_json, write_json

log = logging.getLogger(__name__)

Day: TypeAlias = date | str | pd.Timestamp

_GROUP_ROWS = 16_384
"""Rows of a row group, rounded up to whole days: small enough that one day is read in milliseconds."""

_GROUPS_A_READ = 4
"""Row groups decoded at once: what is read beside the result stays small whatever the range."""


@dataclass(frozen=True)
class Partition:
    """The features of one calendar year."""

    year: int
    digest: str
    rows: int


@dataclass(frozen=True)
class FeatureVersion:
    """A stored feature set over one vintage.

    Attributes
    ----------
    data_version
        The vintage it was computed from; from `get`, the first one that had these very bars.
    computed_rows
        Rows that the call had to compute; the others were there already.
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

    def __init__(self, settings: Settings) -> None:
        self.root = settings.features_dir
        self.partitions = self.root / "partitions"

    def compute(self, vintage: Vintage, feature_set: str = "alpha158") -> FeatureVersion:
        """Bring the features of a vintage into the store; what is there already is not computed again.

        All instruments and exactly the rows that have a bar; membership is applied on reading.

        Raises
        ------
        ConfigError
            Unknown feature set, or a wrong expression in it.
        """
        definition = find_feature_set(feature_set)
        with folder_lock(self.partitions):
            self._remove_unfinished()
            job = _Job(definition, vintage)
            wanted = [job.partition(year) for year in job.years]
            missing = [partition for partition in wanted if not self._file(partition).is_file()]
            for partition in missing:
                self._write(partition, job)
            version = FeatureVersion(
                feature_version=digest_of([definition.name, definition.digest, [each.digest for each in wanted]]),
                feature_set=definition.name,
                names=definition.names,
                rows=sum(partition.rows for partition in wanted),
                partitions=tuple(wanted),
                data_version=vintage.data_version,
                computed_rows=sum(partition.rows for partition in missing),
            )
            self._write_manifest(version, definition)
            write_json(
                self._pointer(vintage.data_version, definition.name), {"feature_version": version.feature_version}
            )
        return version

    def find(self, data_version: str, feature_set: str = "alpha158") -> str | None:
        """The feature version that was last computed for a data version, or None while there is none."""
        path = self._pointer(data_version, feature_set)
        return str(read_json(path)["feature_version"]) if path.is_file() else None

    def get(self, feature_version: str) -> FeatureVersion:
        """A stored version.

        Raises
        ------
        StoreError
            There is none of that name.
        """
        path = self._manifest(feature_version)
        if not path.is_file():
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

    def expressions(self, feature_version: str) -> dict[str, str]:
        """Feature name to the expression that a stored version was computed by.

        Raises
        ------
        StoreError
            There is none of that name.
        """
        self.get(feature_version)
        return dict(read_json(self._manifest(feature_version))["expressions"])

    def load(
        self,
        feature_version: str,
        start: Day | None = None,
        end: Day | None = None,
        members: Vintage | None = None,
        columns: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Features as one float32 frame.

        Parameters
        ----------
        feature_version
            Of this store.
        start, end
            First and last day, both included; default: all.
        members
            Keep the rows of instruments that are members of this vintage's universe on that day; default: all rows.
        columns
            Which features; default: all, in the set's order.

        Returns
        -------
        Index (datetime, instrument), sorted by both in that order. NaN where a feature has no value.

        Raises
        ------
        StoreError
            Unknown version or column, or a partition is gone.
        """
        version = self.get(feature_version)
        names = version.names if columns is None else tuple(columns)
        unknown = sorted(set(names) - set(version.names))
        if unknown:
            raise StoreError(f"feature version {feature_version} has no columns {unknown}; it is {version.feature_set}")
        first, last = pd.Timestamp(start or "1677-09-22"), pd.Timestamp(end or "2262-04-11")
        parts = [
            _OpenPartition(self._existing(partition), first, last)
            for partition in version.partitions
            if first.year <= partition.year <= last.year
        ]
        index, keep = _select(parts, first, last, members)
        values = np.empty((len(names), len(index)), np.float32)
        begin = 0
        for part, kept in zip(parts, keep, strict=True):
            end_row = begin + int(kept.sum())
            part.read(names, kept, values[:, begin:end_row])
            begin = end_row
        return pd.DataFrame(values.T, index=index, columns=list(names), copy=False)

    def _write(self, partition: Partition, job: "_Job") -> None:
        values, panel_index = job.compute(partition.year)
        _write_parquet(self._file(partition), job.definition.names, values, panel_index)
        log.info("features %s: %s rows of %s", partition.year, partition.rows, job.definition.name)

    def _write_manifest(self, version: FeatureVersion, definition: FeatureSet) -> None:
        target = self._manifest(version.feature_version)
        if target.is_file():
            return
        content = asdict(version) | {
            "definition": definition.digest,
            "expressions": dict(definition.expressions),
        }
        del content["computed_rows"]
        with new_folder(target.parent) as folder:
            write_json(folder / target.name, content)

    def _pointer(self, data_version: str, feature_set: str) -> Path:
        """Versions are shared by vintages with equal bars, so a manifest cannot name them all."""
        return self.root / "by_vintage" / f"{data_version}.{feature_set}.json"

    def _manifest(self, feature_version: str) -> Path:
        return self.root / feature_version / "manifest.json"

    def _file(self, partition: Partition) -> Path:
        return self.partitions / f"{partition.digest}.parquet"

    def _existing(self, partition: Partition) -> Path:
        path = self._file(partition)
        if not path.is_file():
            raise StoreError(f"{path}: the partition of {partition.year} is gone; run features.compute again")
        return path

    def _remove_unfinished(self) -> None:
        for left in self.partitions.glob("*.tmp"):
            left.unlink()


class _Job:
    """One feature set over one vintage."""

    def __init__(self, definition: FeatureSet, vintage: Vintage) -> None:
        self.definition = definition
        self.vintage = vintage
        self.years = sorted(int(year) for year in vintage.manifest["years"])
        keys = vintage.bars(fields=())
        begins = np.flatnonzero(~keys[INSTRUMENT].duplicated().to_numpy())
        self.first_days = keys.iloc[begins].set_index(INSTRUMENT)[DATETIME]
        self.calendar = pd.DatetimeIndex(np.unique(keys[DATETIME].to_numpy()), name=DATETIME)

    @cached_property
    def plan(self) -> Any:
        from mlops_tasks.features.engine import make_plan

        return make_plan(self.definition.nodes)

    def days(self, year: int) -> tuple[pd.DatetimeIndex, int]:
        """Trading days that a year's values depend on, and how many of them precede the year."""
        begin, end = self.calendar.searchsorted([pd.Timestamp(year, 1, 1), pd.Timestamp(year + 1, 1, 1)])
        before = int(min(begin, self.definition.lookback_rows))
        return self.calendar[begin - before : end], before

    def partition(self, year: int) -> Partition:
        """The partition of a year, named by everything that its values depend on."""
        days, _ = self.days(year)
        years = self.vintage.manifest["years"]
        begins = self.first_days[(self.first_days > days[0]) & (self.first_days <= days[-1])]
        identity = {
            "definition": self.definition.digest,
            "bars": [years[str(each)]["digest"] for each in self.years if days[0].year <= each <= year],
            "days": days.strftime("%Y%m%d").tolist(),
            "begins": sorted(zip(begins.index, begins.dt.strftime("%Y%m%d"), strict=True)),
        }
        return Partition(year, digest_of(identity), int(years[str(year)]["rows"]))

    def compute(self, year: int) -> tuple[NDArray[np.float32], pd.MultiIndex]:
        """Values (features, rows) and the index of the rows, by datetime and instrument."""
        from mlops_tasks.features.engine import evaluate
        from mlops_tasks.features.panel import build_panel

        days, before = self.days(year)
        bars = self.vintage.adjusted_bars(days[0], days[-1])
        first_rows = pd.Series(days.searchsorted(pd.DatetimeIndex(self.first_days)), index=self.first_days.index)
        panel = build_panel(bars, days, self.plan.fields, first_rows)
        order = panel.bar_order(first_row=before)
        index = pd.MultiIndex(
            levels=[panel.calendar, panel.instruments],
            codes=[panel.rows[order], panel.codes[order]],
            names=[DATETIME, INSTRUMENT],
            verify_integrity=False,
        )
        return evaluate(self.plan, panel, panel.positions(order)), index


class _OpenPartition:
    """The row groups of a partition that hold days of a range."""

    def __init__(self, path: Path, first: pd.Timestamp, last: pd.Timestamp) -> None:
        self.file = pq.ParquetFile(path, memory_map=True, read_dictionary=[INSTRUMENT])
        statistics = [
            self.file.metadata.row_group(group).column(0).statistics for group in range(self.file.num_row_groups)
        ]
        self.groups = [n for n, each in enumerate(statistics) if each.max >= first and each.min <= last]

    def keys(self) -> pa.Table:
        return self.file.read_row_groups(self.groups, [DATETIME, INSTRUMENT])

    def read(self, names: Sequence[str], keep: NDArray[np.bool_], out: NDArray[np.float32]) -> None:
        """Fill `out` (features, kept rows)."""
        if not keep.any():
            return
        row, done = 0, 0
        for first in range(0, len(self.groups), _GROUPS_A_READ):
            groups = self.groups[first : first + _GROUPS_A_READ]
            table = self.file.read_row_groups(groups, list(names), use_threads=False)
            kept = keep[row : row + len(table)]
            count = int(kept.sum())
            for number, name in enumerate(names):
                column = table[name].to_numpy()
                out[number, done : done + count] = column if count == len(table) else column[kept]
            row, done = row + len(table), done + count


def _select(
    parts: Sequence[_OpenPartition], first: pd.Timestamp, last: pd.Timestamp, members: Vintage | None
) -> tuple[pd.MultiIndex, list[NDArray[np.bool_]]]:
    """The index of the rows to read, and for each partition which of its rows they are."""
    tables = [part.keys() for part in parts]
    if not tables:
        return pd.MultiIndex.from_arrays(
            [pd.DatetimeIndex([]), pd.Index([], dtype="str")], names=[DATETIME, INSTRUMENT]
        ), []
    table = pa.concat_tables(tables).unify_dictionaries()
    index = _index_of(table)
    days = table[DATETIME].to_numpy()
    keep = (days >= first.to_datetime64()) & (days <= last.to_datetime64())
    if members is not None:
        keep &= members.membership_mask(index)
    ends = np.cumsum([len(each) for each in tables])
    return index[keep].remove_unused_levels(), np.split(keep, ends[:-1])


def _index_of(table: pa.Table) -> pd.MultiIndex:
    instrument = table[INSTRUMENT].combine_chunks()
    names = np.asarray(instrument.dictionary.to_pylist(), dtype=object)
    by_name = np.argsort(names)
    rank = np.empty(len(names), np.int64)
    rank[by_name] = np.arange(len(names))
    days, day_codes = np.unique(table[DATETIME].to_numpy(), return_inverse=True)
    return pd.MultiIndex(
        levels=[pd.DatetimeIndex(days), pd.Index(names[by_name], dtype="str")],
        codes=[day_codes, rank[instrument.indices.to_numpy()]],
        names=[DATETIME, INSTRUMENT],
        verify_integrity=False,
    )


def _write_parquet(path: Path, names: Sequence[str], values: NDArray[np.float32], index: pd.MultiIndex) -> None:
    """Write a partition beside its place and rename it; its bytes depend on its content only."""
    days, codes = index.codes
    instruments = pa.array(index.levels[1].to_list(), type=pa.string())
    schema = pa.schema(
        [(DATETIME, pa.timestamp("ns")), (INSTRUMENT, pa.dictionary(pa.int32(), pa.string()))]
        + [(name, pa.float32()) for name in names]
    )
    unfinished = path.with_suffix(".tmp")
    with pq.ParquetWriter(
        unfinished,
        schema,
        compression="none",
        use_dictionary=[INSTRUMENT],
        write_statistics=[DATETIME],
        store_schema=True,
    ) as writer:
        for begin, end in _row_groups(np.asarray(days)):
            rows = slice(begin, end)
            key = [
                pa.array(index.levels[0].to_numpy().astype("datetime64[ns]")[days[rows]]),
                pa.DictionaryArray.from_arrays(pa.array(codes[rows], pa.int32()), instruments),
            ]
            features = [pa.array(column[rows], from_pandas=False) for column in values]
            writer.write_table(pa.Table.from_arrays(key + features, schema=schema), row_group_size=end - begin)
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)


def _row_groups(days: NDArray[np.int64]) -> Iterable[tuple[int, int]]:
    """Ranges of rows that hold whole days, each of `_GROUP_ROWS` rows or a little more."""
    day_begins = np.append(np.flatnonzero(np.diff(days, prepend=-1)), len(days))
    begin = 0
    while begin < len(days):
        later = int(np.searchsorted(day_begins, begin + _GROUP_ROWS))
        end = int(day_begins[min(later, len(day_begins) - 1)])
        yield begin, end
        begin = end
