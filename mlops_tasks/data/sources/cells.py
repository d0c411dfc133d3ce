"""Cells to values: numbers, days and instrument names, with the text of each cell that is none.

A bad cell never raises: a column of a million rows with one typing error must name that row, not stop at it.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlops_tasks.errors import excerpt

BadCells = dict[int, str]
"""Row position to the message about its cell."""

_NULL_WORDS = ("", "nan", "na", "n/a", "null", "none", "nat")
_ISO_DAY = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?:[T ]\d{1,2}:\d{2}.*)?")
_COMPACT_DAY = re.compile(r"(\d{4})(\d{2})(\d{2})")
_FIRST_YEAR, _LAST_YEAR = 1900, 2199
_UNUSABLE_IN_A_NAME = re.compile(r"[/\\\s]|^\.")
_LONGEST_NAME = 64
_NO_INSTRUMENT = (
    "holds a slash, a blank, a leading dot or what does not print, or is longer than "
    f"{_LONGEST_NAME} characters, which no instrument may"
)


@dataclass(frozen=True)
class ParsedColumn:
    """Values of one column (length n) and its bad cells; a bad cell's value is missing."""

    values: Any
    bad: BadCells


def parse_numbers(name: str, column: pa.ChunkedArray) -> ParsedColumn:
    """Float64 array; NaN where the cell is empty, a null word, or bad (text, infinity)."""
    column = _decoded(column)
    kind = column.type
    if pa.types.is_null(kind):
        return ParsedColumn(np.full(len(column), np.nan), {})
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = _to_numpy(column.cast(pa.float64(), safe=False))
        bad: BadCells = {}
    else:
        values, bad = _numbers_of_text(name, _words(column))
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        bad |= {int(i): f"{name}={values[i]} is not a finite number" for i in infinite}
        values = np.where(np.isinf(values), np.nan, values)
    return ParsedColumn(values, bad)


def parse_days(name: str, column: pa.ChunkedArray) -> ParsedColumn:
    """`datetime64[ns]` array at midnight; NaT where the cell is empty or no date.

    Text must be year first (2018-02-07, 2018/02/07, 20180207, with or without a time of day); integers are read as
    20180207. A time zone is dropped: a bar belongs to the local day.
    """
    column = _decoded(column)
    kind = column.type
    if pa.types.is_timestamp(kind):
        local = pc.local_timestamp(column) if kind.tz else column
        return _plausible(name, _to_days(local.cast(pa.date32(), safe=False)))
    if pa.types.is_date(kind):
        return _plausible(name, _to_days(column.cast(pa.date32(), safe=False)))
    parsed, bad = _map_distinct(
        _words(column), _day_of, lambda text: f"{name}={excerpt(text)} is not a date (YYYY-MM-DD)"
    )
    days = np.array([np.datetime64("NaT") if d is None else np.datetime64(d) for d in parsed.distinct], "datetime64[D]")
    return ParsedColumn(days[parsed.codes].astype("datetime64[ns]"), bad)


def parse_instruments(name: str, column: pa.ChunkedArray) -> ParsedColumn:
    """Object array of names, blanks around them stripped; None where the cell is empty or no usable name."""
    words = pc.utf8_trim_whitespace(_decoded(column).cast(pa.string()))

    parsed, bad = _map_distinct(
        pc.if_else(pc.equal(words, ""), pa.scalar(None, pa.string()), words),
        lambda text: text if is_instrument(text) else None,
        lambda text: f"{name}={excerpt(text)} {_NO_INSTRUMENT}",
    )
    return ParsedColumn(np.array(parsed.distinct, dtype=object)[parsed.codes], bad)


def is_instrument(text: str) -> bool:
    """Whether it may name an instrument: names are shown in messages and used in file names."""
    return bool(text) and len(text) <= _LONGEST_NAME and text.isprintable() and not _UNUSABLE_IN_A_NAME.search(text)


@dataclass(frozen=True)
class _Distinct:
    distinct: list[Any]
    codes: np.ndarray[Any, np.dtype[np.int64]]


def _map_distinct(
    words: pa.ChunkedArray, parse: Callable[[str], Any], complaint: Callable[[str], str]
) -> tuple[_Distinct, BadCells]:
    """Parse each distinct word once; the last entry of `distinct` stands for null."""
    encoded = (
        words.combine_chunks().dictionary_encode() if isinstance(words, pa.ChunkedArray) else words.dictionary_encode()
    )
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    texts = encoded.dictionary.to_pylist()
    values = [parse(text) for text in texts]
    codes = encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False).astype(np.int64)
    bad: BadCells = {}
    for code in (i for i, value in enumerate(values) if value is None):
        message = complaint(texts[code])
        bad |= {int(row): message for row in np.flatnonzero(codes == code)}
    return _Distinct([*values, None], codes), bad


def _numbers_of_text(name: str, words: pa.ChunkedArray) -> tuple[Any, BadCells]:
    try:
        return _to_numpy(words.cast(pa.float64())), {}
    except pa.ArrowInvalid:
        pass
    bad: BadCells = {}
    values = np.full(len(words), np.nan)
    for row, text in enumerate(words.to_pylist()):
        if text is None:
            continue
        value = _number_of(text)
        if value is None:
            bad[row] = f"{name}={excerpt(text)} is not a number"
        else:
            values[row] = value
    return values, bad


def _number_of(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) or "_" in text else value


def _day_of(text: str) -> date | None:
    match = _ISO_DAY.fullmatch(text)
    parts = (match[1], match[3], match[4]) if match else None
    if parts is None:
        match = _COMPACT_DAY.fullmatch(text)
        parts = (match[1], match[2], match[3]) if match else None
    if parts is None:
        return None
    try:
        day = date(int(parts[0]), int(parts[1]), int(parts[2]))
    except ValueError:
        return None
    return day if _FIRST_YEAR <= day.year <= _LAST_YEAR else None


def _plausible(name: str, days: Any) -> ParsedColumn:
    """Days of a typed column; those outside the plausible years (a wrong epoch or unit) are bad cells."""
    low, high = np.datetime64(f"{_FIRST_YEAR}-01-01"), np.datetime64(f"{_LAST_YEAR}-12-31")
    outside = ~np.isnat(days) & ((days < low) | (days > high))
    message = f"is not a date between {_FIRST_YEAR} and {_LAST_YEAR}"
    bad = {int(i): f"{name}={days[i]} {message}" for i in np.flatnonzero(outside)}
    return ParsedColumn(np.where(outside, np.datetime64("NaT"), days).astype("datetime64[ns]"), bad)


def _to_days(column: pa.ChunkedArray) -> Any:
    counts = column.cast(pa.int32())
    days = counts.fill_null(0).to_numpy().astype("datetime64[D]")
    return np.where(counts.is_null().to_numpy(zero_copy_only=False), np.datetime64("NaT"), days)


def _to_numpy(column: pa.ChunkedArray) -> Any:
    return column.fill_null(math.nan).to_numpy()


def _words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Stripped text; null where empty or a null word. Other types become their text (a boolean is no number)."""
    words = pc.utf8_trim_whitespace(column.cast(pa.string()))
    nulls = pc.is_in(pc.utf8_lower(words), value_set=pa.array(_NULL_WORDS))
    return pc.if_else(nulls, pa.scalar(None, pa.string()), words)


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
