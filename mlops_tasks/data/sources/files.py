"""A parquet or CSV file, or a folder of them, as a source."""

import logging
import os
from io import BufferedReader
from pathlib import Path

import pandas as pd

from mlops_tasks.config import Settings, TableSource
from mlops_tasks.data.sources.allowed import AllowedFiles
from mlops_tasks.data.sources.parsed import SOURCE_FILE, ParsedBars, RawFile
from mlops_tasks.data.sources.tables import CSV_SUFFIXES, named_columns, read_table, to_raw, unreadable
from mlops_tasks.errors import SourceError, SourceNotFoundError, SourceUnavailableError
from mlops_tasks.files import digest_of_open_file

log = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".pq", *CSV_SUFFIXES)


class FileSource:
    """A file, or all files of a folder, in subfolders too, in the order of their paths.

    Parameters
    ----------
    settings
        `data.prices` says what prices beside a factor are, unless `spec` does; they say which files may be read.
    name
        Of the source: its name in `data.sources`, or the path itself.
    spec
        The path, and the columns that are named otherwise than include/config/sources.yaml lists.
    """

    def __init__(self, settings: Settings, name: str, spec: TableSource) -> None:
        self.name = name
        self._path = spec.path
        self._allowed = AllowedFiles.of(settings)
        self._aliases = named_columns(name, spec.columns)
        self._prices = spec.prices or settings.data.prices

    def read(self) -> ParsedBars:
        """Every row of every file; `raw` has the digest of each file's bytes.

        Raises
        ------
        SourceNotFoundError, SourceError
            Names the file, the column or line, the rule and the remedy.
        """
        readings = [self._read_file(path) for path in source_files(self._allowed.check(self._path))]
        frame = _concatenated([frame for frame, _ in readings])
        log.info("%s: %s rows in %s files", self.name, len(frame), len(readings))
        return ParsedBars(to_raw(frame, self._prices), self.name, raw=tuple(raw for _, raw in readings))

    def _read_file(self, path: Path) -> tuple[pd.DataFrame, RawFile]:
        try:
            with self._allowed.open(path) as file:
                before, digest = _state(file), digest_of_open_file(file)
                file.seek(0)
                frame = read_table(file, path, self._aliases)
                changed = _state(file) != before
        except SourceError:
            raise
        except OSError as error:
            raise unreadable(path, error) from None
        if changed:
            raise SourceUnavailableError(
                f"{path}: rule readable_file: it changed while it was read; run again once it is whole"
            )
        return frame, RawFile(str(path), digest, len(frame))


def source_files(source: Path) -> list[Path]:
    """The files of a source, sorted by path; hidden ones and other kinds are left out.

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
    if not files:
        raise SourceNotFoundError(
            f"{source}: rule source_exists: the folder holds no {', '.join(SUFFIXES)} file; "
            "correct data.source (SOURCE)"
        )
    return files


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith((".", "_")) for part in relative.parts)


def _state(file: BufferedReader) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _concatenated(frames: list[pd.DataFrame]) -> pd.DataFrame:
    if len(frames) == 1:
        return frames[0].reset_index(drop=True)
    files = [str(frame[SOURCE_FILE].cat.categories[0]) for frame in frames]
    named = (frame.assign(**{SOURCE_FILE: frame[SOURCE_FILE].cat.set_categories(files)}) for frame in frames)
    return pd.concat(named, ignore_index=True)
