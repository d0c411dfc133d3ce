"""Which settings a file or a folder of bars needs: found from the files and tried, for `alphaops doctor --source`."""

import csv
import gzip
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mlops_tasks.columns import DATETIME, FACTOR, INSTRUMENT, PRECLOSE, PRICES, VOLUME
from mlops_tasks.config import Settings, TableSource
from mlops_tasks.data.sources.allowed import AllowedFiles
from mlops_tasks.data.sources.cells import (
    NULL_WORDS,
    CellForms,
    day_in_form,
    number_pattern,
    parse_days,
)
from mlops_tasks.data.sources.column_names import ADJUSTED_CLOSE, REQUIRED, ColumnNames, map_columns, named_columns
from mlops_tasks.data.sources.csv_files import MOST_HEADER_ROWS, SEPARATORS, CsvHeader, find_header, in_utf8, lacking
from mlops_tasks.data.sources.files import is_csv, source_files, stem_of
from mlops_tasks.data.sources.parsed import PARSE_ERROR, SOURCE_FILE, SOURCE_ROW
from mlops_tasks.data.sources.reader import read_source
from mlops_tasks.errors import MlopsError, SourceError

_HEAD_BYTES = 1 << 16
"""Bytes of each file that are examined."""
_LOOKED_AT = 200
"""Number of files of a folder whose cells are examined. All headers are."""
_WRITINGS: tuple[tuple[str, str | None], ...] = (
    (".", ","), (",", None), (",", "."), (".", "'"), (".", "\u2019"), (",", " "), (",", "\u00a0"), (",", "\u202f"),
    (".", " "), (".", "\u00a0"), (".", "\u202f"), (",", "'"), (".", "_"),
)  # fmt: skip
"""Decimal sign and separator of thousands, the likelier first."""
_DATE_FORMS = tuple(
    form + time
    for form in (
        "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%d-%b-%Y",
        "%d %b %Y", "%b %d, %Y", "%d-%b-%y", "%d %B %Y", "%B %d, %Y", "%Y年%m月%d日",
    )
    for time in ("", " %H:%M", " %H:%M:%S")
)  # fmt: skip
PRECLOSE_SEEN = "there is a previous close (preclose) and no factor: `factor: from_preclose` makes one from it"
_SEPARATES_WORDS = "_-. "
_YEARLY = re.compile(r"(.+)[-_. ](?:19|20)\d\d")
"""The name of a file that holds one year of an instrument."""


@dataclass(frozen=True)
class Proposal:
    """What was found, and the settings that follow from it.

    Attributes
    ----------
    name, options
        A name for `data.sources`, and its entry.
    seen
        The evidence for the options, a sentence each.
    failed
        Why the source cannot be read with them; empty where it can.
    """

    name: str
    options: dict[str, Any]
    seen: tuple[str, ...] = ()
    failed: str = ""
    read: dict[str, Any] = field(default_factory=dict)
    """`files`, `rows`, `instruments`, `first_date`, `last_date`, `bad_rows` and the `first` of them."""

    def snippet(self) -> str:
        """The settings as YAML, for `<MLOPS_HOME>/settings.yaml`."""
        content = {"data": {"source": self.name, "sources": {self.name: self.options}}}
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)

    def render(self) -> str:
        """For a terminal."""
        lines = [f"# {sentence}" for sentence in self.seen]
        if self.read:
            lines.append(
                "# read this way: {rows:,} rows of {instruments:,} instruments in {files:,} files, {first_date} to "
                "{last_date}; cells of {bad_rows:,} rows cannot be read".format(**self.read)
            )
            lines += [f"# {self.read['first']}"] if self.read["first"] else []
        lines += [f"# not read this way: {self.failed}"] if self.failed else []
        return "\n".join([*lines, self.snippet().rstrip("\n")])


@dataclass(frozen=True)
class _Look:
    """One file's header, as far as it can be read."""

    path: Path
    encoding: str = "utf-8"
    separator: str = ","
    header_rows: int | None = None
    header: CsvHeader | None = None
    lacking: tuple[str, ...] = REQUIRED
    text: bytes = b""
    columns: tuple[str, ...] = ()

    @property
    def form(self) -> tuple[str, str, int | None]:
        """What all files of a source must have in common."""
        return self.encoding, self.separator, self.header_rows

    @property
    def has_bars(self) -> bool:
        """Whether no column of bars is missing, except perhaps the instrument's."""
        return set(self.lacking) <= {INSTRUMENT}


def propose(settings: Settings, source: str) -> Proposal:
    """Look at a path, or at the path of a named source, and try the settings that would read it.

    Raises
    ------
    SourceNotFoundError, SourceError
        There is nothing that can be read, or it is not allowed.
    """
    spec = settings.data.sources.get(source)
    path = spec.path if isinstance(spec, TableSource) else source
    # Whoever has a shell chooses the source, as with `make up`.
    allowed = AllowedFiles.of(settings.model_copy(update={"data": settings.data.model_copy(update={"source": path})}))
    root = allowed.check(path)
    names = named_columns(source, spec.columns if isinstance(spec, TableSource) else {})
    looks = [_look(allowed, file, names) for file in source_files(root)]
    bars = [look for look in looks if look.has_bars]
    name = source if isinstance(spec, TableSource) else _name_of(root, settings)
    options: dict[str, Any] = {"kind": "table", "path": str(root)}
    if names.own:
        options["columns"] = dict(names.own)
    if not bars:
        missing = looks[0].lacking
        known = f"no column is known as {', '.join(missing)}"
        failed = f"{looks[0].path}: {known}; name them in columns: {{{missing[0]}: ...}}"
        return Proposal(name, options, (), failed)
    seen = list(_layout(root, looks, bars, options))
    seen += _writing(bars[:: max(1, len(bars) // _LOOKED_AT)], names, options)
    return _tried(settings, name, options, seen, len(looks))


def _look(allowed: AllowedFiles, path: Path, names: ColumnNames) -> _Look:
    """A file's header in the form in which the fewest columns are missing."""
    try:
        with allowed.open(path) as file:
            if not is_csv(path):
                with pq.ParquetFile(file) as table:
                    columns = tuple(table.schema_arrow.names)
                return _Look(path, lacking=tuple(lacking(columns, names, REQUIRED)), columns=columns)
            opened = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
            head = opened.read(_HEAD_BYTES)
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        if isinstance(error, SourceError):
            raise
        return _Look(path)
    encoding = _encoding(head)
    text = in_utf8(_whole_lines(head, encoding), encoding)
    looks = [
        _Look(path, encoding, separator, rows, header, tuple(_lacking(header, names)), text, header.names)
        for separator in SEPARATORS
        for rows in (None, *range(2, MOST_HEADER_ROWS))
        if (header := find_header(text, names, _spec(separator, rows))) is not None
    ]
    return min(looks, key=lambda look: len(look.lacking), default=_Look(path, encoding))


def _spec(separator: str, rows: int | None) -> TableSource:
    return TableSource(kind="table", path="", separator=separator, header_rows=rows)


def _lacking(header: CsvHeader, names: ColumnNames) -> list[str]:
    wanted = [name for name in REQUIRED if name != INSTRUMENT or header.tickers is None]
    return lacking(header.names, names, wanted)


def _encoding(head: bytes) -> str:
    """UTF-8 where it is, UTF-16 by its mark; else GB 18030 where most bytes beyond ASCII come in pairs."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        in_utf8(_whole_lines(head, "utf-8"), "utf-8")
    except UnicodeError:
        runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", head)]
        paired = sum(run for run in runs if run % 2 == 0)
        return "gb18030" if paired > 0.8 * sum(runs) else "cp1252"
    return "utf-8"


def _whole_lines(head: bytes, encoding: str) -> bytes:
    """Without the last line, which the head may have cut."""
    if len(head) < _HEAD_BYTES:
        return head
    return head[: len(head) // 2 * 2] if encoding == "utf-16" else head[: head.rfind(b"\n") + 1]


def _layout(root: Path, looks: Sequence[_Look], bars: Sequence[_Look], options: dict[str, Any]) -> Iterator[str]:
    """Which files are read, how they are parsed, and where the instrument is."""
    texts = [look for look in bars if is_csv(look.path)]
    form = Counter(look.form for look in texts).most_common(1)[0][0] if texts else ("utf-8", ",", None)
    encoding, separator, header_rows = form
    if encoding != "utf-8":
        options["encoding"] = encoding
        yield f"the text is not UTF-8 but looks like {encoding}"
    if separator != ",":
        options["separator"] = separator
        yield f"cells are separated by {separator!r}"
    if header_rows is not None:
        options["header_rows"] = header_rows
        yield f"the header has {header_rows} lines"
    foreign = [look for look in looks if not look.has_bars or (is_csv(look.path) and look.form != form)]
    if foreign:
        options["exclude"] = [look.path.relative_to(root).as_posix() for look in foreign]
        yield f"{len(foreign)} of {len(looks)} files have other columns, or are written differently: left out"
    kept = [look for look in bars if look not in foreign]
    unnamed = [look for look in kept if INSTRUMENT in look.lacking]
    if unnamed:
        options["instrument_from"] = "file_name"
        yield "the files have no instrument column: the file's name gives it"
        pattern = _pattern([stem_of(look.path) for look in kept])
        if pattern is not None:
            options["instrument_pattern"] = pattern


def _pattern(stems: Sequence[str]) -> str | None:
    """A pattern for the text around the instrument in the names of several files. None where there is none."""
    if all(_YEARLY.fullmatch(stem) for stem in stems):
        return _YEARLY.pattern
    if len(set(stems)) == 1:
        return None
    prefix, suffix = _common(stems), _common([stem[::-1] for stem in stems])[::-1]
    begin = 1 + max(prefix.rfind(each) for each in _SEPARATES_WORDS)
    end = min((place for each in _SEPARATES_WORDS if (place := suffix.find(each)) >= 0), default=len(suffix))
    if not begin and end == len(suffix):
        return None
    return f"{re.escape(prefix[:begin])}(.+){re.escape(suffix[end:])}"


def _common(words: Sequence[str]) -> str:
    """What all words begin with."""
    first, last = min(words), max(words)
    differing = (place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(differing, min(len(first), len(last)))]


def _writing(bars: Sequence[_Look], names: ColumnNames, options: dict[str, Any]) -> list[str]:
    """How numbers and dates are written, and what an adjusted close is for."""
    seen, days, numbers = [], [], []
    for look in bars:
        found = _mapped(look, names)
        if ADJUSTED_CLOSE in found and FACTOR not in found and "adjusted" not in options:
            options["adjusted"] = "factor"
            seen.append("an adjusted close is beside the close: it gives the factor; `adjusted: ignore` leaves it out")
        if PRECLOSE in found and FACTOR not in found and ADJUSTED_CLOSE not in found and PRECLOSE_SEEN not in seen:
            seen.append(PRECLOSE_SEEN)
        rows = list(_rows(look))
        days.append([row[found[DATETIME]] for row in rows if len(row) > found[DATETIME]] if DATETIME in found else [])
        places = [found[name] for name in (*PRICES, VOLUME) if name in found]
        numbers += [row[place] for row in rows for place in places if len(row) > place]
    writing = _number_writing(_known(numbers))
    if writing is not None:
        decimal, thousands = writing
        options |= {"decimal": decimal} if decimal != "." else {}
        options |= {"thousands": thousands} if thousands is not None else {}
        seen.append("numbers are not written like 1234.5")
    form = _date_form([_known(each) for each in days])
    if form is not None:
        options["date_format"] = form
        seen.append(f"dates are written as {form}")
    return seen


def _mapped(look: _Look, names: ColumnNames) -> dict[str, int]:
    """Standard name to the first column of that name."""
    try:
        found = map_columns(look.path, dict.fromkeys(look.columns), names, ())  # type: ignore[arg-type]
    except SourceError:  # the trial reports it
        return {}
    return {standard: look.columns.index(column) for standard, column in found.items()}


def _rows(look: _Look) -> Iterator[list[str]]:
    if look.header is not None:
        lines = look.text[look.header.end :].decode().splitlines()
        yield from csv.reader(lines, delimiter=look.separator)


def _known(texts: Sequence[str]) -> list[str]:
    stripped = (text.strip() for text in texts)
    return [text for text in stripped if text.lower() not in NULL_WORDS]


def _number_writing(texts: Sequence[str]) -> tuple[str, str | None] | None:
    """Decimal sign and separator of thousands with which most texts are numbers. None for 1234.5."""
    plain = _fitting(texts, (".", None))
    best = max(_WRITINGS, key=lambda writing: _fitting(texts, writing))
    return best if _fitting(texts, best) > plain else None


def _fitting(texts: Sequence[str], writing: tuple[str, str | None]) -> int:
    pattern = re.compile(number_pattern(CellForms(*writing)))
    return sum(pattern.fullmatch(text) is not None for text in texts)


def _date_form(columns: Sequence[Sequence[str]]) -> str | None:
    """The form in which most texts are dates. None where they are year first, or fit no form.

    If two fit, as with 02/01/2023, it is the one in which the days of a file lie closest together.
    """
    texts = [text for column in columns for text in column]
    if not texts or not parse_days("", pa.chunked_array([pa.array(texts, pa.string())])).bad:
        return None
    fits = {form: sum(day_in_form(text, form) is not None for text in texts) for form in _DATE_FORMS}
    most = max(fits.values())
    if most <= len(texts) // 2:
        return None
    return min((form for form in _DATE_FORMS if fits[form] == most), key=lambda form: _spread(columns, form))


def _spread(columns: Sequence[Sequence[str]], form: str) -> int:
    days = [[day for text in column if (day := day_in_form(text, form)) is not None] for column in columns]
    return sum(abs((b - a).days) for column in days for a, b in pairwise(column))


def _name_of(root: Path, settings: Settings) -> str:
    """A name for a source that no other has."""
    name = re.sub(r"\W+", "_", stem_of(root) or root.name).strip("_").lower() or "bars"
    taken = {*settings.data.sources, "synthetic"}
    others = (f"{name}_{number}" for number in range(2, len(taken) + 3))
    return next(each for each in (name, *others) if each not in taken)


def _tried(settings: Settings, name: str, options: Mapping[str, Any], seen: Sequence[str], files: int) -> Proposal:
    """The proposal, with the result of reading the source with it."""
    sources = settings.data.sources | {name: TableSource.model_validate(options)}
    data = settings.data.model_copy(update={"source": name, "sources": sources})
    try:
        frame = read_source(settings.model_copy(update={"data": data}), name, None).frame
    except MlopsError as error:
        return Proposal(name, dict(options), tuple(seen), str(error))
    days, bad = frame[DATETIME].dropna(), frame[frame[PARSE_ERROR].notna()]
    told = (f"{row[SOURCE_FILE]}, row {row[SOURCE_ROW]}: {row[PARSE_ERROR]}" for _, row in bad.head(1).iterrows())
    read = {
        "files": files - len(options.get("exclude", ())),
        "rows": len(frame),
        "instruments": int(frame[INSTRUMENT].nunique()),
        "first_date": str(days.min().date()) if len(days) else None,
        "last_date": str(days.max().date()) if len(days) else None,
        "bad_rows": len(bad),
        "first": next(told, ""),
    }
    return Proposal(name, dict(options), tuple(seen), "", read)
