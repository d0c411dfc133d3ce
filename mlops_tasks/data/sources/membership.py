"""Point-in-time membership of a universe, in Qlib's format: instrument, first day, last day, tab separated."""

from pathlib import Path

import pandas as pd

from mlops_tasks.columns import INSTRUMENT
from mlops_tasks.errors import SourceError, SourceNotFoundError

FIRST_DATE = "first_date"
LAST_DATE = "last_date"
MEMBERSHIP_COLUMNS = (INSTRUMENT, FIRST_DATE, LAST_DATE)

_REMEDY = "write one line a membership spell: instrument, first day, last day (YYYY-MM-DD), tab separated"


def read_membership(path: Path) -> pd.DataFrame:
    """Spells as (instrument, first_date, last_date), sorted, without repeats; an instrument may have several.

    Raises
    ------
    SourceNotFoundError, SourceError
        The file is missing, empty, or a line is no spell; names the line.
    """
    if not path.is_file():
        raise SourceNotFoundError(
            f"{path}: rule universe_exists: no such membership file; correct data.universe (UNIVERSE)"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: rule readable_file: {error}; {_REMEDY}") from error
    spells = [_spell(path, number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not spells:
        raise SourceError(f"{path}: rule table_not_empty: no membership spell; {_REMEDY}")
    return canonical_membership(pd.DataFrame(spells, columns=list(MEMBERSHIP_COLUMNS)))


def canonical_membership(spells: pd.DataFrame) -> pd.DataFrame:
    """Sorted by instrument and first day, repeats removed, dates as `datetime64[ns]`, RangeIndex."""
    typed = spells[list(MEMBERSHIP_COLUMNS)].astype(
        {INSTRUMENT: "str", FIRST_DATE: "datetime64[ns]", LAST_DATE: "datetime64[ns]"}
    )
    return typed.drop_duplicates().sort_values(list(MEMBERSHIP_COLUMNS), ignore_index=True)


def format_membership(spells: pd.DataFrame) -> str:
    """The file's text, one spell a line."""
    first, last = (spells[name].dt.strftime("%Y-%m-%d") for name in (FIRST_DATE, LAST_DATE))
    return "".join(f"{name}\t{a}\t{b}\n" for name, a, b in zip(spells[INSTRUMENT], first, last, strict=True))


def _spell(path: Path, number: int, line: str) -> tuple[str, pd.Timestamp, pd.Timestamp]:
    parts = line.split("\t") if "\t" in line else line.replace(",", " ").split()
    if len(parts) < len(MEMBERSHIP_COLUMNS):
        raise SourceError(
            f"{path}, line {number}: rule membership_spell: {line.strip()!r} has {len(parts)} fields; {_REMEDY}"
        )
    name = parts[0].strip()
    try:
        first, last = (pd.Timestamp(part.strip()).normalize() for part in parts[1:3])
    except ValueError:
        raise SourceError(
            f"{path}, line {number}: rule membership_spell: {line.strip()!r} holds no two dates; {_REMEDY}"
        ) from None
    if pd.isna(first) or pd.isna(last) or first > last:
        raise SourceError(f"{path}, line {number}: rule membership_spell: {first} is not before {last}; {_REMEDY}")
    return name, first, last
