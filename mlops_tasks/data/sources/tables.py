"""Tables to parsed rows: the columns of a file or a database as arrays, and many of them as one frame."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa

from mlops_tasks.columns import BAR_FIELDS, DATETIME, INSTRUMENT, PRECLOSE
from mlops_tasks.data.sources.cells import PLAIN, BadCells, CellForms, parse_days, parse_instruments, parse_numbers
from mlops_tasks.data.sources.column_names import ADJUSTED_CLOSE, AMOUNT
from mlops_tasks.data.sources.parsed import PARSE_ERROR, SOURCE_FILE, SOURCE_ROW
from mlops_tasks.errors import SourceError

NUMBERS = (*BAR_FIELDS, PRECLOSE, AMOUNT, ADJUSTED_CLOSE)
"""Columns of numbers that a table may have; the last two serve to derive fields (`derived.py`)."""


@dataclass(frozen=True)
class TablePart:
    """Rows of one table, in its order; all arrays have one length.

    Attributes
    ----------
    days
        `datetime64[ns]` at midnight, NaT where missing or not a date.
    names, codes
        The instrument of a row is `names[code]`; it has none where the code is -1.
    numbers
        Those of `NUMBERS` that the table has, float64.
    rows
        Number of the row in the table, from 1.
    errors
        Position to what could not be read there.
    whole
        Whether the end of the table shows that it is complete, as a line end does.
    words
        Number of cells that each word for a missing value, such as a dash, makes missing.
    """

    origin: str
    days: Any
    names: Sequence[str]
    codes: Any
    numbers: Mapping[str, Any]
    rows: Any
    errors: Mapping[int, str] = field(default_factory=dict)
    whole: bool = True
    words: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: Any) -> Self:
        """These rows, in this order."""
        places = {position: place for place, position in enumerate(positions.tolist())} if self.errors else {}
        return type(self)(
            self.origin,
            self.days[positions],
            self.names,
            self.codes[positions],
            {name: values[positions] for name, values in self.numbers.items()},
            self.rows[positions],
            {places[position]: error for position, error in self.errors.items() if position in places},
            self.whole,
            self.words,
        )

    def with_bad_rows(self, bad: Mapping[int, str]) -> Self:
        """With unreadable rows, given by their number in the table, in their place."""
        count, more = len(self), len(bad)
        whole = type(self)(
            self.origin,
            np.concatenate([self.days, np.full(more, "NaT", dtype="datetime64[ns]")]),
            self.names,
            np.concatenate([self.codes, np.full(more, -1, dtype=np.int32)]),
            {name: np.concatenate([values, np.full(more, np.nan)]) for name, values in self.numbers.items()},
            np.concatenate([self.rows, np.fromiter(bad, dtype=np.int64, count=more)]),
            {**self.errors, **dict(enumerate(bad.values(), start=count))},
            self.whole,
            self.words,
        )
        return whole.take(np.argsort(whole.rows, kind="stable"))

    def blank(self) -> Any:
        """(n,) whether there is nothing in a row."""
        empty = np.isnat(self.days) & (self.codes < 0)
        for values in self.numbers.values():
            empty &= np.isnan(values)
        empty[list(self.errors)] = False
        return empty


def parse_table(
    table: pa.Table,
    labels: Mapping[str, str],
    origin: str,
    forms: CellForms = PLAIN,
    *,
    instrument: str | None = None,
) -> TablePart:
    """Every row of a table whose columns have the standard names, numbers as they stand there.

    Parameters
    ----------
    labels
        Standard name to what messages call the column.
    origin
        Becomes `source_file`.
    instrument
        The instrument of all rows, where the table has no column for it.
    """
    days = parse_days(labels[DATETIME], table[DATETIME], forms)
    bad, words = [days.bad], Counter(days.words)
    if instrument is None:
        found = parse_instruments(labels[INSTRUMENT], table[INSTRUMENT])
        names, codes = found.names, found.codes
        bad.append(found.bad)
    else:
        names, codes = [instrument], np.zeros(table.num_rows, dtype=np.int32)
    numbers = {}
    for name in NUMBERS:
        if name in labels:
            parsed = parse_numbers(labels[name], table[name], forms)
            numbers[name] = parsed.values
            bad.append(parsed.bad)
            words.update(parsed.words)
    rows = np.arange(1, table.num_rows + 1)
    return TablePart(origin, days.values, names, codes, numbers, rows, _joined(bad), words=words)


def assemble(parts: Sequence[TablePart]) -> pd.DataFrame:
    """The rows of all parts, one after the other: key, `BAR_FIELDS` (NaN where a table has none), provenance, and after
    them the other `NUMBERS` that any table has."""
    names: dict[str, int] = {}
    codes = [_coded(part, names) for part in parts]
    origins = {part.origin: place for place, part in enumerate({part.origin: part for part in parts}.values())}
    present = {name for part in parts for name in part.numbers}
    columns = {
        DATETIME: _concatenated([part.days for part in parts]),
        INSTRUMENT: _texts(pa.DictionaryArray.from_arrays(_masked(_concatenated(codes)), _large(list(names)))),
        **{name: _numbers(parts, name) for name in BAR_FIELDS},
        SOURCE_FILE: pd.Categorical.from_codes(
            np.repeat([origins[part.origin] for part in parts], [len(part) for part in parts]), list(origins)
        ),
        SOURCE_ROW: _concatenated([part.rows for part in parts]),
        PARSE_ERROR: _errors(parts),
        **{name: _numbers(parts, name) for name in NUMBERS if name in present and name not in BAR_FIELDS},
    }
    return pd.DataFrame(columns, copy=False)


def not_empty(part: TablePart) -> TablePart:
    """The part, if it has rows.

    Raises
    ------
    SourceError
        It has none.
    """
    if not len(part):
        raise SourceError(f"{part.origin}: rule table_not_empty: the table has no rows; deliver at least one bar")
    return part


def _joined(bad: Sequence[BadCells]) -> dict[int, str]:
    errors: dict[int, str] = {}
    for cells in bad:
        for row, message in cells.items():
            errors[row] = message if row not in errors else f"{errors[row]}; {message}"
    return errors


def _coded(part: TablePart, names: dict[str, int]) -> Any:
    """Codes of all parts' names, which are added to `names`."""
    places = np.array([*(names.setdefault(name, len(names)) for name in part.names), -1], dtype=np.int32)
    return places[part.codes]


def _numbers(parts: Sequence[TablePart], name: str) -> Any:
    return _concatenated([part.numbers[name] if name in part.numbers else np.full(len(part), np.nan) for part in parts])


def _concatenated(arrays: Sequence[Any]) -> Any:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _masked(codes: Any) -> pa.Array:
    return pa.array(codes, pa.int32(), mask=codes < 0)


def _large(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.large_string())


def _texts(column: pa.Array) -> pd.Series:
    return pa.table({"text": column.cast(pa.large_string())}).to_pandas()["text"].astype("str")


def _errors(parts: Sequence[TablePart]) -> pd.Series:
    count = sum(len(part) for part in parts)
    positions: list[int] = []
    messages: list[str] = []
    start = 0
    for part in parts:
        positions += [start + position for position in part.errors]
        messages += part.errors.values()
        start += len(part)
    codes = np.full(count, -1, dtype=np.int32)
    codes[positions] = np.arange(len(messages), dtype=np.int32)
    return _texts(pa.DictionaryArray.from_arrays(_masked(codes), _large(messages)))
