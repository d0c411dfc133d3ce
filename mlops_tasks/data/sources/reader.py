"""`read_source`: a file, a folder of files, or the synthetic market, as parsed bars."""

import logging
from pathlib import Path

import pandas as pd

from mlops_tasks.config import Settings
from mlops_tasks.data.sources.membership import read_membership
from mlops_tasks.data.sources.parsed import SOURCE_FILE, ParsedBars
from mlops_tasks.data.sources.synthetic import synthetic_bars
from mlops_tasks.data.sources.tables import load_aliases, read_table, to_raw
from mlops_tasks.errors import SourceError, SourceNotFoundError

log = logging.getLogger(__name__)

SYNTHETIC = "synthetic"
SUFFIXES = (".parquet", ".pq", ".csv", ".csv.gz")


def read_source(settings: Settings, source: str, universe: str | None) -> ParsedBars:
    """Read every row of `source` and the membership file, if one is given.

    Parameters
    ----------
    settings
        `data.prices` says what prices beside a factor are; `synthetic` describes the synthetic market.
    source
        `synthetic`, a parquet or CSV file, or a folder: all its files, in subfolders too, in the order of their paths.
    universe
        Membership file, or None: every instrument.

    Raises
    ------
    SourceNotFoundError, SourceError
        The file names, the column or line, the rule and the remedy.
    """
    spells = None if universe is None else read_membership(Path(universe).expanduser())
    if source == SYNTHETIC:
        return ParsedBars(synthetic_bars(settings.synthetic), SYNTHETIC, spells)
    aliases = load_aliases()
    frames = [read_table(path, aliases) for path in source_files(Path(source).expanduser())]
    frame = frames[0] if len(frames) == 1 else _concatenated(frames)
    log.info("%s: %s rows in %s files", source, len(frame), len(frames))
    return ParsedBars(to_raw(frame.reset_index(drop=True), settings.data.prices), source, spells)


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
        raise SourceNotFoundError(f"{source}: rule source_exists: no such file or folder; correct data.source (SOURCE)")
    inside = [p for p in sorted(source.rglob("*")) if p.is_file() and not _is_hidden(p.relative_to(source))]
    files = [p for p in inside if p.name.lower().endswith(SUFFIXES)]
    others = [p.name for p in inside if p not in files]
    if others:
        log.info("%s: files ignored: %s", source, ", ".join(others))
    if not files:
        raise SourceNotFoundError(
            f"{source}: rule source_exists: the folder holds no {', '.join(SUFFIXES)} file; "
            "correct data.source (SOURCE)"
        )
    return files


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith((".", "_")) for part in relative.parts)


def _concatenated(frames: list[pd.DataFrame]) -> pd.DataFrame:
    whole = pd.concat([f.assign(**{SOURCE_FILE: f[SOURCE_FILE].astype("str")}) for f in frames], ignore_index=True)
    return whole.assign(**{SOURCE_FILE: whole[SOURCE_FILE].astype("category")})
