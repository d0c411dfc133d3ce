"""A parquet or CSV file, or a folder of them, as a source."""

import logging
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from io import BufferedReader
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.config import Settings, TableSource
from mlops_tasks.data.sources.allowed import AllowedFiles
from mlops_tasks.data.sources.cells import is_instrument
from mlops_tasks.data.sources.column_names import REQUIRED, MissingColumnError, map_columns, named_columns
from mlops_tasks.data.sources.csv_files import CsvFile, cell_forms
from mlops_tasks.data.sources.derived import derive_fields
from mlops_tasks.data.sources.parsed import PARSE_ERROR, SOURCE_FILE, SOURCE_ROW, ParsedBars, RawFile
from mlops_tasks.data.sources.settings_named import SettingsNamed
from mlops_tasks.data.sources.tables import TablePart, assemble, not_empty, parse_table
from mlops_tasks.data.sources.unreadable import reason_of
from mlops_tasks.errors import SourceError, SourceNotFoundError, SourceUnavailableError, excerpt, first_few
from mlops_tasks.files import digest_of_open_file

log = logging.getLogger(__name__)

CSV_SUFFIXES = (".csv", ".csv.gz")
SUFFIXES = (".parquet", ".pq", *CSV_SUFFIXES)
"""In any case."""

_NAMED_FILES = 20


class FileSource:
    """A file, or all files of a folder, in subfolders too, in the order of their paths.

    Parameters
    ----------
    settings
        `data.prices` and `data.adjusted` say what its columns are, unless `spec` does; they say which files may be
        read.
    name
        The source's name in `data.sources`, or the path itself.
    spec
        The path, and how the files are written.
    """

    def __init__(self, settings: Settings, name: str, spec: TableSource) -> None:
        self.name = name
        self._settings, self._spec = settings, spec
        self._allowed = AllowedFiles.of(settings)
        self._names = named_columns(name, spec.columns)
        self._said = SettingsNamed(name, name in settings.data.sources)

    def read(self) -> ParsedBars:
        """Every row of every file; `raw` has the digest of each file's bytes.

        Raises
        ------
        SourceNotFoundError, SourceError
            Names the file, the column or line, the rule and the remedy.
        """
        root = self._allowed.check(self._spec.path)
        files = source_files(root, self._spec.exclude)
        readings = []
        for place, path in enumerate(files):
            try:
                readings.append(self._read_file(path))
            except MissingColumnError as error:
                raise self._without_bars(root, error, files[place:], len(files)) from None
        parts = [part for parts, _ in readings for part in parts]
        self._tell_open_ends(parts)
        self._tell_words(parts)
        frame = assemble(parts)
        _check_keys(frame)
        log.info("%s: %s rows in %s files", self.name, len(frame), len(readings))
        bars = derive_fields(frame, self._settings, self.name, self._spec)
        return ParsedBars(bars, self.name, raw=tuple(raw for _, raw in readings))

    def _tell_open_ends(self, parts: Sequence[TablePart]) -> None:
        """Warn that files may have been cut in their last field, which nothing else shows."""
        cut = list(dict.fromkeys(part.origin for part in parts if not part.whole))
        if cut:
            log.warning(
                "%s: %s of %s files end without a line end, such as %s: if they were cut off in transfer, their last "
                "rows are wrong",
                *(self.name, len(cut), len({part.origin for part in parts}), cut[0]),
            )

    def _tell_words(self, parts: Sequence[TablePart]) -> None:
        """Log how many cells hold a word or a dash in place of a number or date."""
        words: Counter[str] = sum((Counter(part.words) for part in parts), Counter())
        if words:
            told = [f"{word} ({count})" for word, count in words.most_common()]
            log.warning(
                "%s: %s cells hold a word or dash instead of a number or date and count as missing: %s",
                *(self.name, words.total(), first_few(told)),
            )

    def _read_file(self, path: Path) -> tuple[list[TablePart], RawFile]:
        instrument = self._instrument_of(path)
        with self._opened(path) as file:
            before, digest = _state(file), digest_of_open_file(file)
            file.seek(0)
            parts = self._parts(file, path, instrument)
            if _state(file) != before:
                raise SourceUnavailableError(
                    f"{path}: rule readable_file: it changed while it was read; run again once it is whole"
                )
        rows = sum(len(part) for part in parts)
        return parts if rows else [not_empty(parts[0])], RawFile(str(path), digest, rows)

    def _opened(self, path: Path) -> "_Opened":
        return _Opened(self._allowed, path)

    def _parts(self, file: BufferedReader, path: Path, instrument: str | None) -> list[TablePart]:
        if is_csv(path):
            return self._csv(path, instrument).read(file.read())
        with pq.ParquetFile(file) as table:
            found = self._parquet_columns(table, path, instrument)
            columns = table.read(columns=list(found.values())).select(list(found.values()))
        labels = {standard: column.strip() for standard, column in found.items()}
        forms = cell_forms(self._spec)
        return [parse_table(columns.rename_columns(list(found)), labels, str(path), forms, instrument=instrument)]

    def _csv(self, path: Path, instrument: str | None) -> CsvFile:
        return CsvFile(path, self._names, self._spec, self._said, instrument)

    def _parquet_columns(self, table: pq.ParquetFile, path: Path, instrument: str | None) -> dict[str, str]:
        required = [name for name in REQUIRED if name != INSTRUMENT or instrument is None]
        found = map_columns(path, table.schema_arrow.names, self._names, required, self._said.instrument_remedies)
        if instrument is not None:
            found.pop(INSTRUMENT, None)
        return found

    def _instrument_of(self, path: Path) -> str | None:
        """The instrument that the file's name gives, where the source takes it from there.

        Raises
        ------
        SourceError
            It gives none.
        """
        if self._spec.instrument_from != "file_name":
            return None
        stem, pattern = stem_of(path), self._spec.instrument_pattern
        match = None if pattern is None else re.fullmatch(pattern, stem) or re.fullmatch(pattern, path.name)
        found = (match[1] or "" if match else "") if pattern is not None else stem
        if not is_instrument(found):
            why = "names no instrument" if pattern is None else f"does not fit instrument_pattern {excerpt(pattern)}"
            remedies = [self._said.to("instrument_pattern", "daily_(.+)"), self._said.to("exclude", [path.name])]
            raise SourceError(
                f"{path}: rule instruments_named: the file's name {why}; {remedies[0]} with the one group that is the "
                f"instrument, or, if the file holds no bars, {remedies[1]}"
            )
        return found

    def _without_bars(
        self, root: Path, error: MissingColumnError, files: Sequence[Path], count: int
    ) -> MissingColumnError:
        """The error of the first of these files, with how many are similar and how to leave out those without bars."""
        if root.is_file():
            return error
        found = {files[0]: error.missing, **dict(self._lacking(files[1:]))}
        alike = sum(missing == error.missing for missing in found.values())
        foreign = [path.relative_to(root).as_posix() for path, missing in found.items() if missing != (INSTRUMENT,)]
        said = f"{error} ({alike} of {count} files are like this one)" if alike > 1 else str(error)
        if foreign and len(foreign) < count:
            leave = self._said.to("exclude", [*foreign[:_NAMED_FILES], *(["..."] if foreign[_NAMED_FILES:] else [])])
            those = "such files hold" if len(foreign) > 1 else f"{foreign[0]} holds"
            said = f"{said}; if {those} no bars, {leave}"
        return MissingColumnError(said, error.missing)

    def _lacking(self, files: Sequence[Path]) -> Iterator[tuple[Path, tuple[str, ...]]]:
        """The files that lack columns, and which."""
        for path in files:
            try:
                with self._opened(path) as file:
                    if is_csv(path):
                        self._csv(path, self._instrument_of(path)).check_header(file.read())
                    else:
                        with pq.ParquetFile(file) as table:
                            self._parquet_columns(table, path, self._instrument_of(path))
            except MissingColumnError as error:
                yield path, error.missing
            except SourceError:
                continue  # another fault, reported once this one is fixed


class _Opened:
    """An allowed file as a context. Errors of the system or a reader become a `SourceError`."""

    def __init__(self, allowed: AllowedFiles, path: Path) -> None:
        self._path, self._context = path, allowed.open(path)

    def __enter__(self) -> BufferedReader:
        try:
            return self._context.__enter__()
        except SourceError:
            raise
        except OSError as error:
            raise unreadable(self._path, error) from None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._context.__exit__(None, None, None)
        if isinstance(error, SourceError):
            return
        if isinstance(error, OSError | EOFError | ValueError | zlib.error | pa.ArrowException):
            raise unreadable(self._path, error) from None


def _check_keys(frame: pd.DataFrame) -> None:
    """Raise where no row has a key: the files are not written as they are read."""
    if (frame[INSTRUMENT].notna() & frame[DATETIME].notna()).any():
        return
    wrong = frame[frame[PARSE_ERROR].notna()]
    row = frame.iloc[0] if wrong.empty else wrong.iloc[0]
    why = "instrument or date is empty" if wrong.empty else row[PARSE_ERROR]
    raise SourceError(
        f"{row[SOURCE_FILE]}, row {row[SOURCE_ROW]}: rule readable_rows: {why}; none of {len(frame)} rows has an "
        "instrument and a date that can be read; say in data.sources how the files are written (`alphaops doctor "
        "--source PATH` proposes it)"
    )


def source_files(source: Path, exclude: Sequence[str] = ()) -> list[Path]:
    """The files of a source, sorted by path, without hidden ones, other kinds and those that `exclude` names.

    Raises
    ------
    SourceNotFoundError, SourceError
        Nothing is there, or nothing that can be read.
    """
    if source.is_file():
        if not source.name.lower().endswith(SUFFIXES):
            raise SourceError(
                f"{source}: rule known_format: not one of {', '.join(SUFFIXES)}; convert the file to parquet or CSV"
            )
        return [source]
    if not source.is_dir():
        raise SourceNotFoundError(
            f"{source}: rule source_exists: no such file, folder or name in data.sources; correct data.source (SOURCE)"
        )
    inside = [p for p in sorted(source.rglob("*")) if p.is_file() and not _is_hidden(p.relative_to(source))]
    files = [p for p in inside if p.name.lower().endswith(SUFFIXES)]
    if len(inside) > len(files):
        log.info("%s: %s files of other kinds are ignored", source, len(inside) - len(files))
    kept = [p for p in files if not any(_matches(p.relative_to(source), pattern) for pattern in exclude)]
    _tell_excluded(source, files, kept, exclude)
    if not kept:
        raise SourceNotFoundError(
            f"{source}: rule source_exists: the folder holds no {', '.join(SUFFIXES)} file"
            f"{' that the source does not exclude' if files else ''}; correct data.source (SOURCE)"
        )
    return kept


def is_csv(path: Path) -> bool:
    """Whether the file's name says so."""
    return path.name.lower().endswith(CSV_SUFFIXES)


def stem_of(path: Path) -> str:
    """The file's name without its suffix."""
    suffix = max((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), key=len, default="")
    return path.name[: len(path.name) - len(suffix)]


def unreadable(path: Path, error: Exception) -> SourceError:
    """The error for a file that the system or its reader refuses."""
    return SourceError(
        f"{path}: rule readable_file: cannot be read as {'CSV' if is_csv(path) else 'parquet'} ({reason_of(error)}); "
        "deliver the file again, whole and readable"
    )


def _matches(relative: Path, pattern: str) -> bool:
    return fnmatchcase(relative.as_posix(), pattern) or fnmatchcase(relative.name, pattern)


def _tell_excluded(source: Path, files: Sequence[Path], kept: Sequence[Path], exclude: Sequence[str]) -> None:
    if len(files) > len(kept):
        log.info("%s: %s files are left out, as `exclude` says", source, len(files) - len(kept))
    for pattern in exclude:
        if not any(_matches(path.relative_to(source), pattern) for path in files):
            log.warning("%s: `exclude` names %s, and there is no such file", source, excerpt(pattern))


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith((".", "_")) for part in relative.parts)


def _state(file: BufferedReader) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
