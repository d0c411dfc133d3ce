"""CSV files to parsed rows: encodings, headers of one or several lines, and rows whose fields do not fit the header.

A row is the text between two line ends that are not within quotes. Rows are numbered from the line after the header,
blank lines included.
"""

import codecs
import csv as lines_of_text
import gzip
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from mlops_tasks.columns import CLOSE, DATETIME, INSTRUMENT, OPEN
from mlops_tasks.config import TableSource
from mlops_tasks.data.sources.cells import WRITTEN_NULLS, CellForms, count_words, is_instrument
from mlops_tasks.data.sources.column_names import REQUIRED, ColumnNames, map_columns
from mlops_tasks.data.sources.settings_named import SettingsNamed
from mlops_tasks.data.sources.tables import NUMBERS, TablePart, parse_table
from mlops_tasks.errors import SourceError, excerpt

SEPARATORS = (",", ";", "\t", "|")
ENCODINGS = ("utf-16", "gb18030", "cp1252")
"""The encodings that are proposed in place of UTF-8."""

_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r|\Z)")
_NO_ROW = re.compile(rb"[\r\n]*")
_UTF8 = ("utf-8", "utf-8-sig", "ascii")
MOST_HEADER_ROWS = 6
"""Number of lines that are searched for a header of several lines."""
_LONGEST_ROW = 1 << 16
"""Number of bytes of a first row after which an open quote is taken for one that is never closed."""
_LEAST_BLOCK, _LARGEST_BLOCK = 1 << 20, 1 << 26
_GROUP, _FIRST_GROUP = re.compile(r"\d{3}(\.\d+)?"), re.compile(r"[+-]?\d{1,3}")


@dataclass(frozen=True)
class CsvHeader:
    """The header of a file.

    Attributes
    ----------
    names
        The name of each column; in a header of several lines, the accepted one.
    tickers
        The instrument of each column, where the header has one for it, as yfinance writes it.
    lines
        Number of lines up to its end, blank ones before it included.
    end
        Byte at which the rows begin.
    """

    names: tuple[str, ...]
    tickers: tuple[str, ...] | None
    lines: int
    end: int


@dataclass(frozen=True)
class _Block:
    """Columns that make bars: standard name to the column's place."""

    places: Mapping[str, int]
    instrument: str | None


@dataclass(frozen=True)
class CsvFile:
    """A file that is to be read.

    Attributes
    ----------
    names, spec
        What its columns may be called, and how it is written.
    said
        How messages name the source's settings.
    instrument
        The instrument of all rows, where the file's name gives it.
    """

    path: Path
    names: ColumnNames
    spec: TableSource
    said: SettingsNamed
    instrument: str | None = None

    def read(self, content: bytes) -> list[TablePart]:
        """All rows of the file's bytes, in order. If the header names several instruments, one part for each.

        Raises
        ------
        SourceError
            The text is in another encoding, or a required column is missing.
        ValueError, EOFError, zlib.error, pa.ArrowException
            It cannot be parsed.
        """
        text = self._decoded(content)
        header = self._header(text)
        blocks = list(self._blocks(header, text))
        return _Rows(text, header, self.spec).parts(str(self.path), blocks)

    def check_header(self, content: bytes) -> None:
        """The same as `read`, for the header alone."""
        text = self._decoded(content)
        list(self._blocks(self._header(text), text))

    def _decoded(self, content: bytes) -> bytes:
        """The text as UTF-8 without a byte order mark."""
        if self.path.suffix.lower() == ".gz":
            content = gzip.decompress(content)
        try:
            return in_utf8(content, self.spec.encoding)
        except UnicodeError as error:
            place = content.count(b"\n", 0, error.start) + 1 if isinstance(error, UnicodeDecodeError) else 1
            raise SourceError(
                f"{self.path}: rule readable_file: line {place} is not {self.spec.encoding.upper()}; "
                f"{self.said.to('encoding', *ENCODINGS)}, or deliver the file again, whole and readable"
            ) from None

    def _header(self, text: bytes) -> CsvHeader:
        header = find_header(text, self.names, self.spec)
        if header is None:
            raise SourceError(f"{self.path}: rule table_not_empty: the file is empty; deliver a header and bars")
        return header

    def _blocks(self, header: CsvHeader, text: bytes) -> Iterator[_Block]:
        named = self.instrument is not None or header.tickers is not None
        required = [name for name in REQUIRED if name != INSTRUMENT or not named]
        if header.tickers is None:

            def remedies(missing: Sequence[str]) -> Iterator[str]:
                yield from self._header_remedies(missing, text)
                yield from self.said.instrument_remedies(missing)

            found = map_columns(self.path, header.names, self.names, required, remedies)
            if self.instrument is not None:
                found.pop(INSTRUMENT, None)
            yield _Block({each: header.names.index(column) for each, column in found.items()}, self.instrument)
            return
        tickers = list(dict.fromkeys(filter(None, header.tickers)))
        if self.instrument is not None and len(tickers) > 1:
            raise SourceError(
                f"{self.path}: rule instruments_named: its header names {len(tickers)} instruments, but the "
                f"file's name should give the only one; {self.said.to('instrument_from', 'column')}"
            )
        for ticker in tickers:
            if self.instrument is None and not is_instrument(ticker):
                raise SourceError(
                    f"{self.path}: rule instruments_named: its header names something that is not an instrument; "
                    f"{self.said.to('instrument_from', 'file_name')}"
                )
            own = [0, *(place for place, each in enumerate(header.tickers) if each == ticker)]
            columns = [header.names[place] for place in own]
            found = map_columns(self.path, columns, self.names, required)
            found.pop(INSTRUMENT, None)
            places = {standard: own[columns.index(column)] for standard, column in found.items()}
            yield _Block(places, self.instrument or ticker)

    def _header_remedies(self, missing: Sequence[str], text: bytes) -> Iterator[str]:
        """Options with which the header has more of what is missing."""
        for separator in SEPARATORS if list(missing) != [INSTRUMENT] else ():
            row = next(first_rows(text, separator, 1), None)
            if (
                separator != self.spec.separator
                and row
                and set(lacking(row.cells, self.names, missing)) <= {INSTRUMENT}
            ):
                yield self.said.to("separator", separator)
                return
        rows = [row.cells for row in first_rows(text, self.spec.separator, MOST_HEADER_ROWS)]
        for count in range(2, len(rows) + 1 if self.spec.header_rows is None else 0):
            if len(lacking(one_name_each(rows[:count], self.names), self.names, missing)) < min(len(missing), 2):
                yield self.said.to("header_rows", count)
                return


def in_utf8(content: bytes, encoding: str) -> bytes:
    """Text as UTF-8 without a byte order mark; UnicodeError where it is in another encoding."""
    codec = codecs.lookup(encoding).name
    if codec not in _UTF8:
        return content.decode(codec).removeprefix("\ufeff").encode()
    content = content.removeprefix(codecs.BOM_UTF8)
    if not content.isascii():
        content.decode("utf-8")
    return content


def find_header(text: bytes, names: ColumnNames, spec: TableSource) -> CsvHeader | None:
    """The header as the settings say, or as it is recognised; None where there is no line."""
    rows = list(first_rows(text, spec.separator, spec.header_rows or MOST_HEADER_ROWS))
    if not rows:
        return None
    count = spec.header_rows or 1
    cells = [row.cells for row in rows]
    if spec.header_rows in {None, 3}:
        found = _several_instruments(cells[:3], names)
        if found is not None:
            return CsvHeader(*found, rows[2].lines, rows[2].end)
    last = rows[min(count, len(rows)) - 1]
    return CsvHeader(one_name_each(cells[:count], names), None, last.lines, last.end)


@dataclass(frozen=True)
class FirstRow:
    """A row at the beginning of a text: its cells, and the lines and bytes up to its end."""

    cells: list[str]
    lines: int
    end: int


def first_rows(text: bytes, separator: str, count: int) -> Iterator[FirstRow]:
    """The first rows that are not blank."""
    place = lines = found = 0
    while place < len(text) and found < count:
        begin = place
        while True:
            match = _LINE.match(text, place)
            place = len(text) if match is None else match.end()
            lines += 1
            if text.count(b'"', begin, place) % 2 == 0 or place >= min(len(text), begin + _LONGEST_ROW):
                break
        row = text[begin:place].strip(b"\r\n")
        if row.strip():
            found += 1
            yield FirstRow(cells_of(row.decode(), separator), lines, place)


def cells_of(row: str, separator: str) -> list[str]:
    try:
        return next(lines_of_text.reader([row], delimiter=separator), [])
    except lines_of_text.Error:  # a field that is longer than any header
        return [row]


def _several_instruments(
    rows: Sequence[Sequence[str]], names: ColumnNames
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Names and tickers of three header lines as yfinance writes them: names, tickers, and the name of the dates."""
    if len(rows) < 3:
        return None
    width = max(map(len, rows))
    first, second, third = ([*row, *[""] * (width - len(row))] for row in rows)
    if third[0].strip().casefold() not in _folded(names.accepted[DATETIME]) or any(cell.strip() for cell in third[1:]):
        return None
    for fields, tickers in ((first, second), (second, first)):
        known = _folded(fields[1:])
        if all(known & _folded(names.accepted[standard]) for standard in (OPEN, CLOSE)):
            return (third[0], *fields[1:]), ("", *(ticker.strip() for ticker in tickers[1:]))
    return None


def _folded(names: Sequence[str]) -> set[str]:
    return {name.strip().casefold() for name in names}


def one_name_each(rows: Sequence[Sequence[str]], names: ColumnNames) -> tuple[str, ...]:
    """One name per column: that of a line that names it alone, else the first accepted one, else all of them."""
    if len(rows) == 1:
        return tuple(rows[0])
    width = max(map(len, rows))
    filled = [[*row, *[""] * (width - len(row))] for row in rows]
    own = [cell.strip() for cell in filled[-1]]
    made = []
    for place, column in enumerate(zip(*filled, strict=True)):
        known = [cell for cell in column if names.knows(cell)]
        alone = bool(own[place]) and not any(own[place + 1 :]) and place < width - 1
        made.append(column[-1] if alone else known[0] if known else " ".join(column).strip())
    return tuple(made)


def lacking(columns: Sequence[str], names: ColumnNames, wanted: Sequence[str]) -> list[str]:
    """Which of these standard names no column has."""
    known = _folded(columns)
    return [standard for standard in wanted if not known & _folded(names.accepted[standard])]


class _Rows:
    """The rows below a header."""

    def __init__(self, text: bytes, header: CsvHeader, spec: TableSource) -> None:
        self._header, self._spec = header, spec
        self._separator = spec.separator
        self._body = text[header.end :]
        self.unclosed = self._close_quotes() if self._body.count(b'"') % 2 else {}
        self._quotes = b'"' in self._body
        self._names_width = len(_stripped(header.names))
        self._width = self._row_width()
        self._forms = cell_forms(spec)
        self._words: dict[str, dict[str, int]] = {}

    def parts(self, origin: str, blocks: Sequence[_Block]) -> list[TablePart]:
        """The bars of each block; rows that do not fit the header go to the first."""
        table, numbers, bad = self._fitting(blocks)
        bad |= self.unclosed
        order = np.argsort(numbers, kind="stable") if (np.diff(numbers) < 0).any() else None
        made = []
        for block in blocks:
            labels = {standard: self._label(place) for standard, place in block.places.items()}
            columns = [str(place) for place in block.places.values()]
            part = parse_table(
                table.select(columns).rename_columns(list(block.places)),
                labels,
                origin,
                self._forms,
                instrument=block.instrument,
            )
            words = sum((Counter(self._words.get(column, {})) for column in columns), Counter(part.words))
            part = replace(part, rows=numbers, whole=self._body.endswith((b"\n", b"\r")), words=words)
            part = part if order is None else part.take(order)
            part = self._without_blank(part, wide=self._header.tickers is not None)
            made.append(self._with_cut_end(part, block, table, numbers) if block is blocks[0] else part)
        made[0] = made[0].with_bad_rows(bad) if bad else made[0]
        return made

    def _label(self, place: int) -> str:
        return self._header.names[place].strip()

    @staticmethod
    def _without_blank(part: TablePart, *, wide: bool) -> TablePart:
        blank = part.blank()
        if wide or (part.codes.size and part.codes.min() >= 0):
            empty = np.isnat(part.days) if not wide else np.ones(len(part), dtype=bool)
            for values in part.numbers.values():
                empty = empty & np.isnan(values)
            empty[list(part.errors)] = False
            blank = blank | empty
        return part.take(np.flatnonzero(~blank)) if blank.any() else part

    def _fitting(self, blocks: Sequence[_Block]) -> tuple[pa.Table, Any, dict[int, str]]:
        """The rows that have as many fields as the header, with their numbers; and what is wrong with the others.

        Days and names are text; numbers, too, unless every cell of a file that should be one is a number, empty or a
        null word; these words are counted in `self._words`.
        """
        text = pa.dictionary(pa.int32(), pa.string())
        places = {str(place): standard in NUMBERS for block in blocks for standard, place in block.places.items()}
        if self._spec.thousands is None:
            try:
                found = self._fitting_as({name: pa.float64() if number else text for name, number in places.items()})
                if not any(pa.types.is_floating(column.type) and _has_nan(column) for column in found[0].columns):
                    self._words = self._null_words(found[0])
                    return found
            except pa.ArrowInvalid:
                pass
        return self._fitting_as({name: pa.string() if number else text for name, number in places.items()})

    def _null_words(self, table: pa.Table) -> dict[str, dict[str, int]]:
        """For each number column with missing cells, how many of them each word makes missing; this reads the text."""
        lacking = [name for name in table.column_names if table[name].null_count]
        if not lacking:
            return {}
        texts, _, _ = self._fitting_as(dict.fromkeys(lacking, pa.string()))
        return {name: count_words(texts[name].filter(table[name].is_null())) for name in lacking}

    def _fitting_as(self, kinds: Mapping[str, pa.DataType]) -> tuple[pa.Table, Any, dict[int, str]]:
        misfits: list[Any] = []
        table = self._read_as(self._body, misfits, kinds)
        total = table.num_rows + len(misfits)
        numbers = np.arange(1, total + 1)
        if not misfits:
            return table, numbers, {}
        numbers = np.delete(numbers, [row.number - 1 for row in misfits])
        mended, bad = {}, {}
        for row in misfits:
            if not row.text.strip(f' "{self._separator}'):
                continue  # there is nothing in it
            text = self._mended(row.text, row.actual_columns)
            if text is None:
                bad[row.number] = self._misfit(row, last=row.number == total)
            else:
                mended[row.number] = text
        if mended:
            more = self._read_as("\n".join(mended.values()).encode(), [], kinds)
            table = pa.concat_tables([table, more])
            numbers = np.concatenate([numbers, list(mended)])
        return table, numbers, bad

    def _read_as(self, body: bytes, misfits: list[Any], kinds: Mapping[str, pa.DataType]) -> pa.Table:
        def keep(row: Any) -> str:
            misfits.append(row)
            return "skip"

        if _NO_ROW.fullmatch(body):
            return pa.table({name: pa.array([], kind) for name, kind in kinds.items()})
        return csv.read_csv(
            pa.BufferReader(body),
            read_options=csv.ReadOptions(
                column_names=[str(place) for place in range(self._width)],
                use_threads=False,
                block_size=min(max(len(body) + 1, _LEAST_BLOCK), _LARGEST_BLOCK),
            ),
            parse_options=csv.ParseOptions(
                delimiter=self._separator,
                quote_char='"' if self._quotes else False,
                newlines_in_values=self._quotes,
                ignore_empty_lines=False,
                invalid_row_handler=keep,
            ),
            convert_options=csv.ConvertOptions(
                include_columns=list(kinds),
                column_types=kinds,
                null_values=WRITTEN_NULLS,
                strings_can_be_null=False,
                decimal_point=self._forms.decimal,
                check_utf8=False,
            ),
        )

    def _row_width(self) -> int:
        """Fields of a row: the header's, and empty ones at the end of the first row, which are harmless."""
        first = next(first_rows(self._body, self._separator, 1), None)
        fields = [] if first is None else first.cells
        more = fields[self._names_width :]
        return (
            len(fields)
            if len(fields) >= self._names_width and not any(cell.strip() for cell in more)
            else (max(self._names_width, 1))
        )

    def _mended(self, text: str, fields: int) -> str | None:
        """A row with too many or too few fields, all of them empty and at its end, with as many as there should be."""
        if fields < self._width:
            return text + self._separator * (self._width - fields) if fields >= self._names_width else None
        for _ in range(fields - self._width):
            text = text.rstrip(" ")
            if not text.endswith(self._separator):
                return None
            text = text[:-1]
        return text

    def _misfit(self, row: Any, *, last: bool) -> str:
        """What is wrong with a row."""
        fields = f"{row.actual_columns} field{'s' if row.actual_columns != 1 else ''}"
        said = f"line {self._header.lines + row.number}: {fields} where the header has {self._names_width}"
        if row.actual_columns < self._names_width:
            ended = self._body.endswith((b"\n", b"\r"))
            return f"{said}; the file ends within the line: deliver it whole" if last and not ended else said
        number = self._split_number(cells_of(row.text, self._separator))
        if number is None:
            return f"{said}; put fields that hold {excerpt(self._separator)} in quotes"
        return (
            f"{said}; {excerpt(number)} may be one number: put numbers with a separator of thousands in quotes and set "
            "the source's `thousands`, or write them without it"
        )

    def _split_number(self, cells: Sequence[str]) -> str | None:
        """Two fields that are groups of one number, where joining such fields explains the number of fields: the first
        two whose second part is not a number by itself, as in 280,060, else the last two."""
        pairs = [
            f"{left.strip()}{self._separator}{right.strip()}"
            for left, right in pairwise(cells)
            if (_FIRST_GROUP.fullmatch(left.strip())) and _GROUP.fullmatch(right.strip())
        ]
        if not len(pairs) >= len(cells) - self._names_width > 0:
            return None
        return next((pair for pair in pairs if pair.partition(self._separator)[2].startswith("0")), pairs[-1])

    def _close_quotes(self) -> dict[int, str]:
        """Blank the lines with an open quote, since it would swallow those after it. Return what is wrong there."""
        lines = [match[0] for match in _LINE.finditer(self._body) if match[0]]
        opens = re.compile(rb'(?:^|%b)"' % re.escape(self._separator.encode()))  # within a field it is a mere character
        bad = {}
        for place, line in enumerate(lines):
            if line.count(b'"') % 2 and opens.search(line):
                bad[place + 1] = (
                    f"line {self._header.lines + place + 1}: a quote is not closed; close it, or take it out"
                )
                lines[place] = line[len(line.rstrip(b"\r\n")) :]
        self._body = b"".join(lines)
        return bad

    def _with_cut_end(self, part: TablePart, block: _Block, table: pa.Table, numbers: Any) -> TablePart:
        """The part, its last row bad if the file ends within that row's key: a cut name may be another's."""
        place = self._width - 1
        standard = next((s for s, p in block.places.items() if p == place and s in (INSTRUMENT, DATETIME)), None)
        if standard is None or self._body.endswith((b"\n", b"\r")) or not len(part):
            return part
        number, column = int(numbers.max()), table[str(place)]
        last = column[int(numbers.argmax())].as_py()
        known = column.unify_dictionaries().chunk(0).dictionary.to_pylist()
        longer = any(other != last and other.startswith(last) for other in known)
        if part.rows[-1] != number or not longer or pc.sum(pc.equal(column.cast(pa.string()), last)).as_py() > 1:
            return part
        message = f"line {self._header.lines + number}: the file ends within the line: deliver it whole"
        return part.take(np.arange(len(part) - 1)).with_bad_rows({number: message})


def _has_nan(column: pa.ChunkedArray) -> bool:
    return bool(pc.any(pc.is_nan(column)).as_py())


def cell_forms(spec: TableSource) -> CellForms:
    """How a source of files writes its cells."""
    return CellForms(spec.decimal, spec.thousands, spec.date_format, spec.epoch_unit, spec.timezone, options=True)


def _stripped(names: Sequence[str]) -> Sequence[str]:
    """The names without the empty ones at the end."""
    count = len(names)
    while count and not names[count - 1].strip():
        count -= 1
    return names[:count]
