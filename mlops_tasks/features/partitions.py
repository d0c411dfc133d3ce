"""Partition files of the feature store: one calendar year of features, sorted by date.

They are named by what their values depend on and never changed: written under another name, then renamed. Beside each
is a JSON file of the same name with the statistics of its columns, its size and its checksum.
"""

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.errors import StoreError
from mlops_tasks.features.statistics import ColumnStatistics, describe_columns, merge_columns
from mlops_tasks.files import full_disk_named, read_json, sync, write_json
from mlops_tasks.verified import VerifiedFiles

_GROUP_ROWS = 16_384
"""Rows of a row group, rounded up to whole days: small enough that one day is read in milliseconds."""

_CACHED_BYTES = 1 << 28
"""A larger file does not stay in the system's cache once it is written: with its years it would fill all memory."""

_GROUPS_A_READ = 2
"""Row groups decoded at once: what is read beside the result stays small whatever the range."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Partition:
    """The features of one calendar year."""

    year: int
    digest: str
    rows: int


class OpenPartition:
    """The row groups of a partition that hold days of a range.

    Raises
    ------
    StoreError
        The file is not a partition, or a part of it is missing.
    """

    def __init__(self, path: Path, first: pd.Timestamp, last: pd.Timestamp) -> None:
        try:
            self.file = pq.ParquetFile(path, memory_map=True, read_dictionary=[INSTRUMENT])
        except (pa.ArrowInvalid, OSError) as error:
            raise StoreError(
                f"{path}: a damaged partition ({error}); remove it and run features.compute again"
            ) from error
        statistics = [
            self.file.metadata.row_group(group).column(0).statistics for group in range(self.file.num_row_groups)
        ]
        self.groups = [n for n, each in enumerate(statistics) if each.max >= first and each.min <= last]

    def keys(self) -> pa.Table:
        """Columns datetime and instrument of the range's row groups, all their rows."""
        return self.file.read_row_groups(self.groups, [DATETIME, INSTRUMENT])

    def tables(self, columns: Sequence[str], keep: Mask) -> Iterator[tuple[pa.Table, Mask]]:
        """Columns of a few row groups at a time, in the file's order, with the part of `keep` for their rows.

        Row groups without a row to keep are not read.
        """
        rows = [self.file.metadata.row_group(group).num_rows for group in self.groups]
        ends = np.cumsum([0, *rows])
        wanted = [n for n, end in enumerate(ends[1:]) if keep[ends[n] : end].any()]
        for first in range(0, len(wanted), _GROUPS_A_READ):
            some = wanted[first : first + _GROUPS_A_READ]
            kept = np.concatenate([keep[ends[n] : ends[n + 1]] for n in some])
            yield self.file.read_row_groups([self.groups[n] for n in some], list(columns), use_threads=False), kept

    def read(self, names: Sequence[str], keep: Mask, out: NDArray[np.float32]) -> None:
        """Fill `out` (features, kept rows)."""
        done = 0
        for table, kept in self.tables(names, keep):
            count = int(kept.sum())
            _copy_rows(table, names, kept, out[:, done : done + count])
            done += count
            del table  # before the next one is decoded


def write_partition(
    path: Path, names: Sequence[str], index: pd.MultiIndex, pieces: Iterable[NDArray[np.float32]]
) -> str:
    """Write a partition and its statistics, then rename them into place, the partition last; return its `checksum`.

    Its bytes depend on its content only.

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
        [
            pa.field(DATETIME, pa.timestamp("ns"), nullable=False),
            pa.field(INSTRUMENT, pa.dictionary(pa.int32(), pa.string()), nullable=False),
            *(pa.field(name, pa.float32(), nullable=False) for name in names),
        ]
    )
    unfinished = path.with_suffix(".tmp")
    described = []
    with full_disk_named(path):
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
                described.append(describe_columns(names, values))
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
            written = checksum(unfinished)
            size, crc32 = map(int, written.split(":"))
            if size > _CACHED_BYTES:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    columns = {name: each.to_json() for name, each in merge_columns(described).items()}
    write_json(statistics_path(path), {"columns": columns, "rows": len(index), "bytes": size, "crc32": crc32})
    unfinished.replace(path)
    sync(path.parent)
    return written


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


def statistics_path(path: Path) -> Path:
    """The JSON file beside a partition."""
    return path.with_suffix(".json")


def read_statistics(path: Path) -> dict[str, ColumnStatistics] | None:
    """Statistics of a partition's columns; None for one that was written before there were any."""
    beside = statistics_path(path)
    if not beside.is_file():
        return None
    return {name: ColumnStatistics.from_json(each) for name, each in read_json(beside)["columns"].items()}


def is_intact(path: Path, memory: VerifiedFiles | None = None) -> bool:
    """Whether a partition is there with the size and checksum that it was written with.

    With a memory it is read only if it has changed since the last look. One without its statistics is not intact:
    nothing records what it was.
    """
    try:
        recorded = read_json(statistics_path(path))
        expected = _as_digest(recorded["bytes"], recorded["crc32"])
        return memory.has(path, expected, checksum) if memory else checksum(path) == expected
    except (OSError, ValueError, KeyError, TypeError):
        return False


def checksum(path: Path) -> str:
    """Size of a file and its CRC-32: a SHA-256 would take a tenth of the time that the features take.

    It finds damage and changes by hand. Whoever can write the file can write its checksum, so neither finds forgery.
    """
    found = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            found = zlib.crc32(piece, found)
    return _as_digest(path.stat().st_size, found)


def _as_digest(size: int, crc32: int) -> str:
    return f"{size}:{crc32}"


def _copy_rows(table: pa.Table, names: Sequence[str], keep: Mask, out: NDArray[np.float32]) -> None:
    for number, name in enumerate(names):
        column = table[name].to_numpy()
        out[number] = column if len(column) == out.shape[1] else column[keep]


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
