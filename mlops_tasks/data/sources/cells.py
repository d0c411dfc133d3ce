"""Cells to values: numbers, days and instrument names, with the text of each cell that is not one.

A bad cell never raises: a column of a million rows with one typing error must name that row, not stop at it.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlops_tasks.config import EpochUnit
from mlops_tasks.errors import excerpt

BadCells = dict[int, str]
"""Row position to the message about its cell."""

_DASHES = ("-", "--", "---", "\u2013", "\u2014", "\u2014\u2014", "\u2015", "\u2212", "\uff0d")
NULL_WORDS = ("", "nan", "na", "n/a", "n.a.", "#n/a", "#n/a n/a", "#na", "null", "none", "nat", *_DASHES, ".")
"""Words for a missing cell, in any case."""
WRITTEN_NULLS = tuple(
    sorted({form(word) for word in NULL_WORDS for form in (str, str.upper, str.capitalize, str.title)} | {"NaN", "NaT"})
)
"""The same in their usual spellings, for a case-sensitive reader."""
_ISO_DAY = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?:[T ]\d{1,2}:\d{2}.*)?")
_COMPACT_DAY = re.compile(r"(\d{4})(\d{2})(\d{2})(?:([01]\d|2[0-3])[0-5]\d(?:[0-5]\d)?)?(?:\.0*)?")
_EPOCH = re.compile(r"(-?\d{1,20})(?:\.0*)?")
_EPOCH_DIGITS = 9
"""A whole number with fewer digits is not taken for an epoch: 20200131 is a date."""
_UNITS_PER_DAY: dict[EpochUnit, int] = {
    "seconds": 86_400,
    "milliseconds": 86_400_000,
    "microseconds": 86_400_000_000,
    "nanoseconds": 86_400_000_000_000,
}
FIRST_YEAR, LAST_YEAR = 1900, 2199
_UNUSABLE_IN_A_NAME = re.compile(r"[/\\\s]|^\.")
_LONGEST_NAME = 64
_NO_INSTRUMENT = (
    "holds a slash, a blank, a leading dot or an unprintable character, or is longer than "
    f"{_LONGEST_NAME} characters, which no instrument may"
)
_GROUPED_NUMBER = re.compile(r"[+-]?\d[\d.,' _\u00a0\u202f]*")
"""Text that looks like a number as another country writes it."""

_ZONED = re.compile(r"\d{2}:\d{2}.*(?:Z|[+-]\d{2}:?(?:\d{2})?)$")
_1970 = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class CellForms:
    """How a source writes its cells.

    Attributes
    ----------
    decimal, thousands
        Characters within numbers that are text; None: no separator of thousands.
    date_format
        Form of dates that are text, in the directives of `datetime.strptime`; None: year first.
    epoch_unit
        What whole numbers count since 1970; None: recognised by their size.
    timezone
        The zone whose day a moment belongs to, where it is a number since 1970 or names its own zone. None: UTC for a
        number, the named zone for others.
    options
        Whether the source has settings for all this, which a message may name.
    """

    decimal: str = "."
    thousands: str | None = None
    date_format: str | None = None
    epoch_unit: EpochUnit | None = None
    timezone: str | None = None
    options: bool = False

    @property
    def plain(self) -> bool:
        """Whether numbers are written as 1234.5."""
        return self.decimal == "." and self.thousands is None


PLAIN = CellForms()


@dataclass(frozen=True)
class ParsedColumn:
    """Values of one column (length n) and its bad cells. The value of a bad cell is missing. `words` counts the cells
    that are missing because of a word or sign, and not because they are empty."""

    values: Any
    bad: BadCells
    words: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ParsedNames:
    """Instruments of one column: `names[codes]`, -1 where there is none; and its bad cells."""

    names: list[str]
    codes: np.ndarray[Any, np.dtype[np.int32]]
    bad: BadCells


def parse_numbers(name: str, column: pa.ChunkedArray, forms: CellForms = PLAIN) -> ParsedColumn:
    """Float64 array; NaN where the cell is empty, a null word, or bad (text, infinity)."""
    column = _decoded(column)
    kind = column.type
    if pa.types.is_null(kind):
        return ParsedColumn(np.full(len(column), np.nan), {})
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = _to_numpy(column.cast(pa.float64(), safe=False))
        bad: BadCells = {}
        nulls: dict[str, int] = {}
    else:
        words = _words(column)
        nulls = count_words(column.filter(words.is_null()).cast(pa.string()))
        values, bad = _numbers_of_text(name, words, forms)
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        bad |= {int(i): f"{name}={values[i]} is not a finite number" for i in infinite}
        values = np.where(np.isinf(values), np.nan, values)
    return ParsedColumn(values, bad, nulls)


def parse_days(name: str, column: pa.ChunkedArray, forms: CellForms = PLAIN) -> ParsedColumn:
    """`datetime64[ns]` array at midnight; NaT where the cell is empty or not a date.

    Text must be year first (2018-02-07, 2018/02/07, 20180207, with or without a time of day), or as `date_format`
    says. Whole numbers are read as 20180207; of nine digits and more as seconds, milliseconds, microseconds or
    nanoseconds since 1970 in UTC, in the one unit that the size of most of the column's numbers shows. A time zone is
    dropped, since a bar belongs to the local day, unless `timezone` says which zone's day is meant.
    """
    kind = column.type
    if pa.types.is_timestamp(kind):
        moments = column.cast(pa.timestamp(kind.unit, forms.timezone)) if kind.tz and forms.timezone else column
        local = pc.local_timestamp(moments) if kind.tz else column
        return _plausible(name, _to_days(local.cast(pa.date32(), safe=False)))
    if pa.types.is_date(kind):
        return _plausible(name, _to_days(column.cast(pa.date32(), safe=False)))
    found = _distinct(_whole_numbers(column))
    plain = forms.date_format is None and forms.epoch_unit is None
    days = _iso_days(found.words) if plain else None
    bad: BadCells = {}
    words: dict[str, int] = {}
    if days is None:
        words = found.null_words()
        parsed = _days_of(found.texts, forms)
        days = np.array([np.datetime64("NaT") if d is None else np.datetime64(d) for d in parsed], "datetime64[D]")
        wrong = [i for i, day in enumerate(parsed) if day is None and found.texts[i] is not None]
        bad = found.complaints(wrong, lambda text: f"{name}={excerpt(text)} is not a date{_day_hint(text, forms)}")
    known = np.append(days, np.datetime64("NaT")).astype("datetime64[ns]")
    return ParsedColumn(known[found.codes], bad, words)


def parse_instruments(name: str, column: pa.ChunkedArray) -> ParsedNames:
    """Names, blanks around them stripped; none where the cell is empty or not a usable name."""
    found = _distinct(column, nulls=("",))
    good = [text is not None and is_instrument(text) for text in found.texts]
    wrong = [i for i, text in enumerate(found.texts) if text is not None and not good[i]]
    known = dict.fromkeys(text for text, ok in zip(found.texts, good, strict=True) if ok)
    places = {text: place for place, text in enumerate(known)}
    codes = np.array([places[t] if ok else -1 for t, ok in zip(found.texts, good, strict=True)] + [-1], np.int32)
    bad = found.complaints(wrong, lambda text: f"{name}={excerpt(text)} {_NO_INSTRUMENT}")
    return ParsedNames([str(text) for text in places], codes[found.codes], bad)


def count_words(column: pa.ChunkedArray) -> dict[str, int]:
    """How many cells of text hold each word, as it is written; empty ones do not count."""
    texts = pc.utf8_trim_whitespace(column)
    counts = zip(*pc.value_counts(texts.drop_null()).flatten(), strict=True) if len(texts) else ()
    return {word.as_py(): count.as_py() for word, count in counts if word.as_py()}


def is_instrument(text: str) -> bool:
    """Whether it may name an instrument: names are shown in messages and used in file names."""
    return bool(text) and len(text) <= _LONGEST_NAME and text.isprintable() and not _UNUSABLE_IN_A_NAME.search(text)


def day_of(text: str, last_year: int = LAST_YEAR) -> date | None:
    """The day of a year-first text (2018-02-07, 2018/02/07, 20180207, with or without a time of day); else None."""
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
    return day if FIRST_YEAR <= day.year <= last_year else None


@dataclass(frozen=True)
class _Distinct:
    """The distinct words of a column as they are written. `codes` has len(words) for null."""

    words: pa.Array
    codes: np.ndarray[Any, np.dtype[np.int64]]
    nulls: Sequence[str]

    @cached_property
    def texts(self) -> list[str | None]:
        """The words, stripped, None for a null word."""
        longest = max(map(len, self.nulls))
        stripped = (text and text.strip() for text in self.words.to_pylist())
        return [
            None if text is None or (len(text) <= longest and text.lower() in self.nulls) else text for text in stripped
        ]

    def null_words(self) -> dict[str, int]:
        """How many cells each word makes missing, as it is written."""
        words = Counter[str]()
        for code, text in enumerate(self.texts):
            if text is None and (word := str(self.words[code].as_py() or "").strip()):
                words[word] += int(np.count_nonzero(self.codes == code))
        return dict(words)

    def complaints(self, wrong: Sequence[int], complaint: Callable[[str], str]) -> BadCells:
        """The message of each row whose text is one of these."""
        bad: BadCells = {}
        for code in wrong:
            message = complaint(str(self.texts[code]))
            bad |= dict.fromkeys(np.flatnonzero(self.codes == code).tolist(), message)
        return bad


def _distinct(column: pa.ChunkedArray, nulls: Sequence[str] = NULL_WORDS) -> _Distinct:
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    column = column.unify_dictionaries()
    if column.num_chunks == 0:
        return _Distinct(pa.array([], pa.string()), np.empty(0, dtype=np.int64), nulls)
    words = column.chunk(0).dictionary.cast(pa.string())
    parts = [chunk.indices.fill_null(len(words)).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return _Distinct(words, np.concatenate(parts).astype(np.int64, copy=False), nulls)


def _whole_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Floats that are whole numbers, as integers: their text would have an exponent."""
    if not pa.types.is_floating(column.type):
        return column
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column


def _iso_days(words: pa.Array) -> Any:
    """Days of words that are all YYYY-MM-DD or empty; None where one is not."""
    known = pc.if_else(pc.equal(words, ""), pa.scalar(None, pa.string()), words)
    try:
        days = _to_days(pa.chunked_array([known.cast(pa.date32())]))
    except pa.ArrowInvalid:
        return None
    return None if _implausible(days).any() else days


def _days_of(texts: Sequence[str | None], forms: CellForms) -> list[date | None]:
    if forms.date_format is not None:
        return [None if text is None else day_in_form(text, forms.date_format) for text in texts]
    unit = forms.epoch_unit or _epoch_unit(texts)
    return [None if text is None else _day_or_moment(text, unit, forms) for text in texts]


def day_in_form(text: str, form: str, last_year: int = LAST_YEAR) -> date | None:
    """The day of a text in a form of `datetime.strptime`. None where it is not a day, or not in a plausible year."""
    try:
        day = datetime.strptime(text, form).date()
    except ValueError:
        return None
    return day if FIRST_YEAR <= day.year <= last_year else None


def _day_or_moment(text: str, unit: EpochUnit | None, forms: CellForms) -> date | None:
    day = None if forms.epoch_unit else _day_in_zone(text, forms.timezone)
    match = _EPOCH.fullmatch(text)
    if day is not None or match is None or unit is None:
        return day
    try:
        moment = _1970 + timedelta(seconds=int(match[1]) * 86_400 // _UNITS_PER_DAY[unit])
        day = (moment.astimezone(ZoneInfo(forms.timezone)) if forms.timezone else moment).date()
    except OverflowError:
        return None
    return day if FIRST_YEAR <= day.year <= LAST_YEAR else None


def _day_in_zone(text: str, timezone: str | None) -> date | None:
    """Like `day_of`, but a moment with its own time zone gives the day in `timezone`."""
    day = day_of(text)
    if day is None or timezone is None or not _ZONED.search(text):
        return day
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return day
    return day if moment.tzinfo is None else moment.astimezone(ZoneInfo(timezone)).date()


def _epoch_unit(texts: Sequence[str | None]) -> EpochUnit | None:
    """The unit in which whole numbers of a column count since 1970. None where they are dates (20200131) or neither."""
    numbers = [abs(int(match[1])) for text in texts if text is not None and (match := _EPOCH.fullmatch(text))]
    if not numbers:
        return None
    middle = median(numbers)
    if middle < 10 ** (_EPOCH_DIGITS - 1):
        return None
    bounds: dict[EpochUnit, float] = {"seconds": 1e11, "milliseconds": 1e14, "microseconds": 1e17}
    return next((unit for unit, bound in bounds.items() if middle < bound), "nanoseconds")


def _day_hint(text: str, forms: CellForms) -> str:
    """The expected form, and the option for another one."""
    if forms.date_format is not None:
        return f" in the form {forms.date_format} of the source's `date_format`"
    if forms.epoch_unit is not None:
        return f" in {forms.epoch_unit} since 1970, as the source's `epoch_unit` says"
    if not forms.options:
        return " (YYYY-MM-DD)"
    if _EPOCH.fullmatch(text):
        return " (YYYY-MM-DD; set the source's `epoch_unit` for numbers that count since 1970)"
    return " (YYYY-MM-DD; set the source's `date_format` for another form, such as %d/%m/%Y)"


def _numbers_of_text(name: str, words: pa.ChunkedArray, forms: CellForms) -> tuple[Any, BadCells]:
    try:
        return (_to_numpy(words.cast(pa.float64())), {}) if forms.plain else _written_numbers(name, words, forms)
    except pa.ArrowInvalid:
        return _written_numbers(name, words, forms)


def _written_numbers(name: str, words: pa.ChunkedArray, forms: CellForms) -> tuple[Any, BadCells]:
    """Numbers as a source writes them. Whatever is written otherwise is bad."""
    fitting = pc.fill_null(pc.match_substring_regex(words, number_pattern(forms)), False)
    plain = words if forms.thousands is None else pc.replace_substring(words, forms.thousands, "")
    plain = plain if forms.decimal == "." else pc.replace_substring(plain, forms.decimal, ".")
    values = _to_numpy(pc.if_else(fitting, plain, pa.scalar(None, pa.string())).cast(pa.float64())).copy()
    bad: BadCells = {}
    for row in np.flatnonzero(~fitting.to_numpy() & words.is_valid().to_numpy()).tolist():
        text = words[row].as_py()
        value = _number_of(text) if forms.plain else None
        if value is None:
            bad[row] = f"{name}={excerpt(text)} is not a number{_number_hint(text, forms)}"
        else:
            values[row] = value
    return values, bad


def number_pattern(forms: CellForms) -> str:
    """A regular expression for numbers written like that."""
    point = re.escape(forms.decimal)
    whole = r"\d+"
    if forms.thousands is not None:
        whole = rf"(\d{{1,3}}({re.escape(forms.thousands)}\d{{3}})+|\d+)"
    return rf"^[+-]?({whole}({point}\d*)?|{point}\d+)([eE][+-]?\d+)?$"


def _number_hint(text: str, forms: CellForms) -> str:
    if forms.options and _GROUPED_NUMBER.fullmatch(text):
        return " (the source's `decimal` and `thousands` say how numbers are written)"
    return ""


def _number_of(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) or "_" in text else value


def _plausible(name: str, days: Any) -> ParsedColumn:
    """Days of a typed column; those outside the plausible years (a wrong epoch or unit) are bad cells."""
    outside = _implausible(days)
    message = f"is not a date between {FIRST_YEAR} and {LAST_YEAR}"
    bad = {int(i): f"{name}={days[i]} {message}" for i in np.flatnonzero(outside)}
    return ParsedColumn(np.where(outside, np.datetime64("NaT"), days).astype("datetime64[ns]"), bad)


def _implausible(days: Any) -> Any:
    low, high = np.datetime64(f"{FIRST_YEAR}-01-01"), np.datetime64(f"{LAST_YEAR}-12-31")
    return ~np.isnat(days) & ((days < low) | (days > high))


def _to_days(column: pa.ChunkedArray) -> Any:
    counts = column.cast(pa.int32())
    days = counts.fill_null(0).to_numpy().astype("datetime64[D]")
    return np.where(counts.is_null().to_numpy(), np.datetime64("NaT"), days) if counts.null_count else days


def _to_numpy(column: pa.ChunkedArray) -> Any:
    return (column.fill_null(math.nan) if column.null_count else column).to_numpy()


def _words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Stripped text; null where empty or a null word. Other types become their text (a boolean is not a number)."""
    words = pc.utf8_trim_whitespace(column.cast(pa.string()))
    nulls = pc.is_in(pc.utf8_lower(words), value_set=pa.array(NULL_WORDS))
    return pc.if_else(nulls, pa.scalar(None, pa.string()), words)


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
