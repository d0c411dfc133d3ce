"""Reads from the feature store: ranges of days, instruments and columns, or each instrument's newest row.

Files are given from the oldest to the newest.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.features.partitions import Mask, OpenPartition

Order = Literal["C", "F"]
"""Layout of a frame's values: row-major (C), which gathers rows fast, or column-major (F)."""


@dataclass(frozen=True)
class Selection:
    """Which part of a version is read.

    Attributes
    ----------
    first, last
        Days, both included.
    members
        Only rows of instruments that are members of this vintage's universe on that day; None: all rows.
    instruments
        Only these; None: all. One that the version lacks has no row.
    """

    names: tuple[str, ...]
    first: pd.Timestamp
    last: pd.Timestamp
    members: Vintage | None = None
    instruments: Collection[str] | None = None

    def mask(self, index: pd.MultiIndex) -> Mask:
        """Which rows of an index, sorted by day, are selected."""
        begin, end = index.codes[0].searchsorted(index.levels[0].slice_locs(self.first, self.last))
        keep = np.zeros(len(index), np.bool_)
        keep[begin:end] = True
        if self.instruments is not None:
            keep &= index.levels[1].isin(list(self.instruments))[index.codes[1]]
        if self.members is not None:
            keep &= self.members.membership_mask(index)
        return keep


def read_frame(paths: Sequence[Path], selection: Selection, order: Order = "F") -> pd.DataFrame:
    """The selected features as one float32 block."""
    parts = _open(paths, selection)
    tables = [part.keys() for part in parts]
    index = _index_of(tables)
    keep = selection.mask(index)
    masks = np.split(keep, np.cumsum([len(each) for each in tables])[:-1]) if parts else []
    index = index if keep.all() else index[keep].remove_unused_levels()
    return _fill(zip(parts, masks, strict=True), index, selection.names, order)


def read_newest(paths: Sequence[Path], selection: Selection) -> pd.DataFrame:
    """The newest selected row of each instrument.

    Partitions are looked through from the newest to the oldest, until every instrument that was asked for is found.
    """
    wanted = None if selection.instruments is None else len(set(selection.instruments))
    found: list[tuple[OpenPartition, Mask]] = []
    keys: list[pd.DataFrame] = []
    names = pd.Index([], dtype="str")
    for part in reversed(_open(paths, selection)):
        index = _index_of([part.keys()])
        candidates = selection.mask(index) & ~index.levels[1].isin(names)[index.codes[1]]
        rows = np.flatnonzero(candidates)[::-1]
        newest = np.sort(rows[np.unique(index.codes[1][rows], return_index=True)[1]])
        keep = np.zeros(len(index), np.bool_)
        keep[newest] = True
        found.insert(0, (part, keep))
        keys.insert(0, index[newest].to_frame(index=False))
        names = names.append(pd.Index(keys[0][INSTRUMENT]))
        if len(names) == wanted:
            break
    index = pd.MultiIndex.from_frame(pd.concat(keys, ignore_index=True)) if keys else _index_of([])
    return _fill(found, index, selection.names, "F")


def read_table(paths: Sequence[Path], selection: Selection) -> pa.Table:
    """The selected features as an Arrow table.

    It refers to the buffers that the row groups were decoded into; only rows that are picked one by one are copied.
    """
    columns = [DATETIME, INSTRUMENT, *selection.names]
    pieces = [
        _pick(_columns(table, columns), kept)
        for part in _open(paths, selection)
        for table, kept in part.tables(columns, selection.mask(_index_of([part.keys()])))
    ]
    if not pieces:
        fields = [(DATETIME, pa.timestamp("ns")), (INSTRUMENT, pa.dictionary(pa.int32(), pa.string()))]
        return pa.schema(fields + [(name, pa.float32()) for name in selection.names]).empty_table()
    return pa.concat_tables(pieces).unify_dictionaries()


def _open(paths: Sequence[Path], selection: Selection) -> list[OpenPartition]:
    """The partitions that hold days of the range, in the order of their paths: the oldest first."""
    parts = [OpenPartition(path, selection.first, selection.last) for path in paths]
    return [part for part in parts if part.groups]


def _fill(
    parts: Iterable[tuple[OpenPartition, Mask]], index: pd.MultiIndex, names: Sequence[str], order: Order
) -> pd.DataFrame:
    """A frame of the kept rows of each partition; `index` has as many."""
    values = np.empty((len(index), len(names)), np.float32, order)
    begin = 0
    for part, keep in parts:
        end = begin + int(keep.sum())
        part.read(names, keep, values[begin:end].T)
        begin = end
    return pd.DataFrame(values, index=index, columns=list(names), copy=False)


def _index_of(tables: Sequence[pa.Table]) -> pd.MultiIndex:
    """The index of key columns that are sorted by day."""
    if not tables:
        levels = [pd.DatetimeIndex([], dtype="datetime64[ns]"), pd.Index([], dtype="str")]
        return pd.MultiIndex(levels=levels, codes=[[], []], names=[DATETIME, INSTRUMENT])
    table = pa.concat_tables([_columns(each, [DATETIME, INSTRUMENT]) for each in tables]).unify_dictionaries()
    instrument = table[INSTRUMENT].combine_chunks()
    names = np.asarray(instrument.dictionary.to_pylist(), dtype=object)
    by_name = np.argsort(names)
    rank = np.empty(len(names), np.int32)
    rank[by_name] = np.arange(len(names), dtype=np.int32)
    days = table[DATETIME].to_numpy()
    begins = np.flatnonzero(np.append(True, days[1:] != days[:-1]))
    lengths = np.diff(begins, append=len(days))
    return pd.MultiIndex(
        levels=[pd.DatetimeIndex(days[begins]), pd.Index(names[by_name], dtype="str")],
        codes=[np.repeat(np.arange(len(begins), dtype=np.int32), lengths), rank[instrument.indices.to_numpy()]],
        names=[DATETIME, INSTRUMENT],
        verify_integrity=False,
    )


def _columns(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Columns in this order, without the file's own metadata, so that files of several years can be concatenated."""
    return pa.Table.from_arrays([table[name] for name in columns], names=list(columns))


def _pick(table: pa.Table, keep: Mask) -> pa.Table:
    """The kept rows, at least one; a slice where they are neighbours."""
    rows = np.flatnonzero(keep)
    if rows[-1] - rows[0] + 1 == len(rows):
        return table.slice(int(rows[0]), len(rows))
    return table.take(pa.array(rows))
