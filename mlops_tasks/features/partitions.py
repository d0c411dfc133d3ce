"""Partition files of the feature store: one calendar year of features, date after date.

Named by what their values depend on, never changed: written beside and renamed.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mlops_tasks.columns import DATETIME, INSTRUMENT

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


class OpenPartition:
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


def write_partition(
    path: Path, names: Sequence[str], index: pd.MultiIndex, pieces: Iterable[NDArray[np.float32]]
) -> None:
    """Write a partition beside its place and rename it; its bytes depend on its content only.

    Parameters
    ----------
    path
        Where it appears once it is complete.
    names, index
        Its columns, and its rows (datetime, instrument), sorted by both in that order.
    pieces
        Values (columns, rows), one piece after the other, each of one or more whole `row_groups` of the index: what is
        held in memory at once is up to the caller.
    """
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
        for values, begin, end in _by_group(pieces, row_groups(index)):
            key = [
                pa.array(index.levels[0].to_numpy().astype("datetime64[ns]")[days[begin:end]]),
                pa.DictionaryArray.from_arrays(pa.array(codes[begin:end], pa.int32()), instruments),
            ]
            features = [pa.array(column, from_pandas=False) for column in values]
            writer.write_table(pa.Table.from_arrays(key + features, schema=schema), row_group_size=end - begin)
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)


def row_groups(index: pd.MultiIndex) -> Iterator[tuple[int, int]]:
    """Ranges of rows that hold whole days, each of `_GROUP_ROWS` rows or a little more."""
    days = np.asarray(index.codes[0])
    day_begins = np.append(np.flatnonzero(np.diff(days, prepend=-1)), len(days))
    begin = 0
    while begin < len(days):
        later = int(np.searchsorted(day_begins, begin + _GROUP_ROWS))
        end = int(day_begins[min(later, len(day_begins) - 1)])
        yield begin, end
        begin = end


def _by_group(
    pieces: Iterable[NDArray[np.float32]], groups: Iterator[tuple[int, int]]
) -> Iterator[tuple[NDArray[np.float32], int, int]]:
    """The values of each row group, with its first row and its end."""
    for piece in pieces:
        done = 0
        while done < piece.shape[1]:
            begin, end = next(groups)
            yield piece[:, done : done + end - begin], begin, end
            done += end - begin
