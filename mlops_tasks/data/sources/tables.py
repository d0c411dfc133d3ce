"""Tables to parsed rows: reading files, vendor column names, raw prices."""

import logging
import zlib
from collections.abc import Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mlops_tasks.columns import BAR_FIELDS, DATETIME, FACTOR, INSTRUMENT, PRICES, VOLUME, VWAP
from mlops_tasks.config import PROJECT
from mlops_tasks.data.sources.cells import BadCells, parse_days, parse_instruments, parse_numbers
from mlops_tasks.data.sources.parsed import PARSE_ERROR, PARSED_COLUMNS, SOURCE_FILE, SOURCE_ROW
from mlops_tasks.data.sources.unreadable import reason_of
from mlops_tasks.errors import ConfigError, SourceError

log = logging.getLogger(__name__)

ALIASES_FILE = PROJECT / "include" / "config" / "sources.yaml"
CSV_SUFFIXES = (".csv", ".csv.gz")
REQUIRED = (DATETIME, INSTRUMENT, *PRICES, VOLUME)

Prices = Literal["adjusted", "raw"]


def load_aliases(path: Path = ALIASES_FILE) -> dict[str, list[str]]:
    """Standard column name to its vendor names, best first."""
    aliases: dict[str, list[str]] = yaml.safe_load(path.read_text())
    return aliases


def named_columns(source: str, columns: Mapping[str, str]) -> dict[str, list[str]]:
    """The aliases, with those of the columns that a source names itself replaced by that name.

    Raises
    ------
    ConfigError
        A key is no standard name.
    """
    aliases = load_aliases()
    for standard in columns:
        if standard not in aliases:
            raise ConfigError(
                f"data.sources.{source}.columns: {standard!r} is no standard name; use some of {', '.join(aliases)}"
            )
    return aliases | {standard: [column] for standard, column in columns.items()}


def read_table(file: BufferedReader, path: Path, aliases: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """All rows of one parquet or CSV file as `PARSED_COLUMNS`, in the file's order, prices as they stand there.

    Blank lines of a CSV file are no rows, but count in `source_row`. `path` tells the format and names the file.

    Raises
    ------
    SourceError
        The file cannot be read, lacks a required column, or has no rows.
    """
    read = _read_csv if is_csv(path) else _read_parquet
    try:
        table, names = read(file, path, aliases)
        frame = parse_table(table, names, str(path))
    except SourceError:
        raise
    except pd.errors.EmptyDataError:
        raise SourceError(f"{path}: rule table_not_empty: the file is empty; deliver a header and bars") from None
    except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
        raise unreadable(path, error) from None
    return not_empty(frame[~_blank(table)] if is_csv(path) else frame, str(path))


def parse_table(table: pa.Table, names: Mapping[str, str], origin: str) -> pd.DataFrame:
    """Every row of a table as `PARSED_COLUMNS`, in its order, prices as they stand there.

    `names` maps the standard names to those of the table (`map_columns`); `origin` becomes `source_file`.
    """
    frame, bad = _parse(table, names)
    frame[SOURCE_FILE] = pd.Categorical.from_codes(np.zeros(len(frame), dtype=np.int8), [origin])
    frame[SOURCE_ROW] = np.arange(1, len(frame) + 1)
    frame[PARSE_ERROR] = _error_column(len(frame), bad)
    return frame[list(PARSED_COLUMNS)]


def not_empty(frame: pd.DataFrame, origin: str) -> pd.DataFrame:
    """The frame, if it has rows.

    Raises
    ------
    SourceError
        It has none.
    """
    if frame.empty:
        raise SourceError(f"{origin}: rule table_not_empty: the table has no rows; deliver at least one bar")
    return frame


def to_raw(frame: pd.DataFrame, prices: Prices) -> pd.DataFrame:
    """Parsed rows with raw prices: adjusted / factor in float64, so that raw * factor gives a float32 source back
    exactly.

    `prices` says what open, high, low, close and vwap are where there is a factor. An instrument without any factor is
    unadjusted (factor 1); a single missing factor stays missing and fails validation.
    """
    known = frame.loc[frame[FACTOR].notna(), INSTRUMENT].unique()
    factor = frame[FACTOR].mask(~frame[INSTRUMENT].isin(known), 1.0)
    if prices == "raw":
        return frame.assign(**{FACTOR: factor})
    divisor = factor.where(factor > 0, 1.0)
    return frame.assign(**{FACTOR: factor}, **{name: frame[name] / divisor for name in (*PRICES, VWAP)})


def map_columns(origin: Path | str, columns: Sequence[str], aliases: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Standard name to the table's column name; case and blanks around a name do not matter.

    No message has the table's own names: while the required ones are missing it may be anything.

    Raises
    ------
    SourceError
        A required column is missing.
    """
    by_folded: dict[str, str] = {}
    for column in columns:
        by_folded.setdefault(column.strip().lower(), column)
    found = {
        standard: next((by_folded[n] for n in (name.strip().lower() for name in names) if n in by_folded), None)
        for standard, names in aliases.items()
    }
    mapped = {standard: column for standard, column in found.items() if column is not None}
    for standard in REQUIRED:
        if standard not in mapped:
            raise SourceError(
                f"{origin}: rule required_columns: column {standard!r} is missing (accepted names: "
                f"{', '.join(aliases[standard])}); rename the column there, name it in the source's `columns`, or add "
                f"its name to {ALIASES_FILE.relative_to(PROJECT)}"
            )
    ignored = len(columns) - len(mapped)
    if ignored:
        log.info("%s: %s other columns are ignored", origin, ignored)
    return mapped


def is_csv(path: Path) -> bool:
    """Whether the file's name says so."""
    return path.name.lower().endswith(CSV_SUFFIXES)


def _read_csv(
    file: BufferedReader, path: Path, aliases: Mapping[str, Sequence[str]]
) -> tuple[pa.Table, dict[str, str]]:
    """Every cell as text; blank lines are kept so that row numbers are the file's."""
    form: Any = {"encoding": "utf-8-sig", "compression": "gzip" if path.suffix.lower() == ".gz" else None}
    header = pd.read_csv(file, nrows=0, index_col=False, **form)
    names = map_columns(path, [str(c) for c in header.columns], aliases)
    file.seek(0)
    frame = pd.read_csv(
        file,
        dtype=str,
        na_filter=False,
        skip_blank_lines=False,
        usecols=list(names.values()),
        index_col=False,
        **form,
    )
    return pa.Table.from_pandas(frame, preserve_index=False), names


def _read_parquet(
    file: BufferedReader, path: Path, aliases: Mapping[str, Sequence[str]]
) -> tuple[pa.Table, dict[str, str]]:
    with pq.ParquetFile(file) as table:
        names = map_columns(path, table.schema_arrow.names, aliases)
        return table.read(columns=list(names.values())), names


def unreadable(path: Path, error: Exception) -> SourceError:
    """The error for a file that the system or its reader refuses."""
    return SourceError(
        f"{path}: rule readable_file: cannot be read as {'CSV' if is_csv(path) else 'parquet'} ({reason_of(error)}); "
        "deliver the file again, whole and readable"
    )


def _parse(table: pa.Table, names: Mapping[str, str]) -> tuple[pd.DataFrame, list[BadCells]]:
    days = parse_days(names[DATETIME].strip(), table[names[DATETIME]])
    instruments = parse_instruments(names[INSTRUMENT].strip(), table[names[INSTRUMENT]])
    columns = {DATETIME: days.values, INSTRUMENT: pd.array(instruments.values, dtype="str")}
    bad = [days.bad, instruments.bad]
    for field in BAR_FIELDS:
        if field in names:
            numbers = parse_numbers(names[field].strip(), table[names[field]])
            columns[field] = numbers.values
            bad.append(numbers.bad)
        else:
            columns[field] = np.full(table.num_rows, np.nan)
    return pd.DataFrame(columns), bad


def _error_column(rows: int, bad: Sequence[BadCells]) -> pd.Series:
    errors = np.full(rows, None, dtype=object)
    for cells in bad:
        for row, message in cells.items():
            errors[row] = message if errors[row] is None else f"{errors[row]}; {message}"
    return pd.Series(errors, dtype="str")


def _blank(table: pa.Table) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    frame = table.to_pandas()
    blank: np.ndarray[tuple[int], np.dtype[np.bool_]] = (frame.isna() | (frame == "")).all(axis=1).to_numpy()
    return blank
