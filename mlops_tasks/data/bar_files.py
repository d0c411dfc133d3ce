"""The bars of one calendar year in a parquet file: how they are written, read, ordered and digested.

A digest covers the bars themselves, not the bytes of the file: row order, row groups and compression do not matter.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_tasks.columns import BAR_FIELDS, DATETIME, INSTRUMENT

ROW_GROUP = 1 << 17
"""Fewest rows that are read at a time: a month of 5,000 instruments."""


@dataclass(frozen=True)
class YearOfBars:
    """What is known about a year's bars.

    Attributes
    ----------
    digest, rows
        As `digest_years` gives them.
    first, last
        The first and the last day, ISO; empty where only the year is known.
    """

    year: str
    digest: str
    rows: int
    first: str = ""
    last: str = ""

    def __str__(self) -> str:
        return f"bars {self.year} {self.digest} {self.rows} {self.first or '*'} {self.last or '*'}"

    def lies_in(self, path: Path) -> bool:
        """Whether a file holds exactly these bars, and its row groups describe themselves correctly.

        The whole file is read, without the shortcut by which filters trust the days that a row group claims to hold.
        """
        file = pq.ParquetFile(path, read_dictionary=[INSTRUMENT])
        table = file.read([DATETIME, INSTRUMENT, *BAR_FIELDS])
        days = table[DATETIME].to_numpy()
        frame = sorted_frame(table, BAR_FIELDS)
        return (
            len(table) == self.rows
            and _digest_bars(frame) == self.digest
            and str(days.min())[:10] == (self.first or str(days.min())[:10])
            and str(days.max())[:10] == (self.last or str(days.max())[:10])
            and _groups_are_true(file, days)
        )


def digest_years(bars: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Year to {digest, rows} over canonical bars: instruments, days and every field's float64 bytes."""
    years = bars[DATETIME].dt.year.to_numpy()
    return {
        str(year): {"digest": _digest_bars(bars[years == year]), "rows": int((years == year).sum())}
        for year in np.unique(years)
    }


def write_bars(folder: Path, bars: pd.DataFrame) -> None:
    """One file per year, day after day, so that a few days can be read without the rest of their year.

    The bytes depend on the bars alone, so unchanged years share storage.
    """
    folder.mkdir()
    years = bars[DATETIME].dt.year.to_numpy()
    for year in np.unique(years):
        part = bars[years == year].sort_values(DATETIME, kind="stable")
        columns = {
            DATETIME: pa.array(part[DATETIME].to_numpy(), type=pa.timestamp("ns")),
            INSTRUMENT: pa.array(part[INSTRUMENT].to_list(), type=pa.string()),
            # from_pandas is off: a NaN stays a NaN, and a column without one has the same bytes either way.
            **{name: pa.array(part[name].to_numpy(), type=pa.float64(), from_pandas=False) for name in BAR_FIELDS},
        }
        pq.write_table(pa.table(columns), folder / f"{year}.parquet", compression="zstd", row_group_size=ROW_GROUP)


def instrument_codes(table: pa.Table) -> tuple[Any, Any]:
    """Each row's place among the sorted names, and these names, of a table with dictionary-encoded instruments."""
    instrument = table.unify_dictionaries()[INSTRUMENT].combine_chunks()
    if isinstance(instrument, pa.ChunkedArray):
        instrument = instrument.chunk(0)
    names = np.asarray(instrument.dictionary.to_pylist(), dtype=object)
    by_name = np.argsort(names)
    rank = np.empty(len(names), dtype=np.int64)
    rank[by_name] = np.arange(len(names))
    return rank[instrument.indices.to_numpy(zero_copy_only=False)], names[by_name]


def sorted_frame(table: pa.Table, fields: Sequence[str]) -> pd.DataFrame:
    """Columns datetime, instrument and `fields` of such a table, sorted by instrument and datetime, RangeIndex."""
    codes, names = instrument_codes(table)
    days = table[DATETIME].to_numpy().astype("datetime64[ns]")
    order = _sort_order(codes, days)
    columns = {DATETIME: days[order], INSTRUMENT: pd.array(names, dtype="str").take(codes[order])}
    return pd.DataFrame(columns | {name: table[name].to_numpy()[order] for name in fields})


def _sort_order(codes: Any, days: Any) -> Any:
    """The order by code, then day. Files are already in the order of days, and NumPy sorts short integers by radix."""
    if np.any(days[1:] < days[:-1]):
        return np.lexsort((days, codes))
    short = codes.astype(np.uint16) if codes.max(initial=0) <= np.iinfo(np.uint16).max else codes
    return np.argsort(short, kind="stable")


def _digest_bars(bars: pd.DataFrame) -> str:
    codes, names = pd.factorize(bars[INSTRUMENT])
    digest = hashlib.sha256("\n".join(names).encode())
    for values in (codes.astype("<i8"), bars[DATETIME].to_numpy().astype("datetime64[D]").astype("<i8")):
        digest.update(values.tobytes())
    for name in BAR_FIELDS:
        digest.update(name.encode())
        digest.update(bars[name].to_numpy().astype("<f8").tobytes())
    return digest.hexdigest()[:16]


def _groups_are_true(file: pq.ParquetFile, days: Any) -> bool:
    """Whether the first and last day of each row group are those that it claims, which filters rely on."""
    begin = 0
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        own = days[begin : begin + group.num_rows]
        begin += group.num_rows
        claimed = next(
            group.column(n).statistics for n in range(group.num_columns) if group.column(n).path_in_schema == DATETIME
        )
        if (pd.Timestamp(claimed.min), pd.Timestamp(claimed.max)) != (pd.Timestamp(own.min()), pd.Timestamp(own.max())):
            return False
    return True
