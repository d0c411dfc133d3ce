"""Some rows of a parquet file, however large it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

_BATCH = 1000
"""Rows that are decoded at once."""


@dataclass(frozen=True)
class Rows:
    """Some neighbouring rows; `total` is the number of all rows of the file."""

    total: int
    frame: pd.DataFrame


def rows_of(path: Path, start: int, count: int, columns: Sequence[str]) -> Rows:
    """The rows from `start` (from 0) on, at most `count`. Earlier row groups are passed over without being read."""
    with pq.ParquetFile(path) as file:
        table = _slice(file, start, count, list(columns))
        return Rows(file.metadata.num_rows, table.to_pandas())


def _slice(file: pq.ParquetFile, start: int, count: int, columns: list[str]) -> pa.Table:
    group, before = 0, 0
    while group < file.metadata.num_row_groups and before + file.metadata.row_group(group).num_rows <= start:
        before += file.metadata.row_group(group).num_rows
        group += 1
    parts: list[pa.RecordBatch] = []
    groups = list(range(group, file.metadata.num_row_groups))
    for batch in file.iter_batches(batch_size=_BATCH, row_groups=groups, columns=columns) if groups else ():
        part = batch.slice(max(0, start - before), count)
        before += batch.num_rows
        if part.num_rows:
            parts.append(part)
            count -= part.num_rows
        if not count:
            break
    schema = pa.schema([file.schema_arrow.field(name) for name in columns])
    return pa.Table.from_batches(parts, parts[0].schema if parts else schema)
