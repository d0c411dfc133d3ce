"""Point-in-time membership of a universe, in Qlib's format: instrument, first day, last day, tab separated.

No message quotes a line: a file that somebody named as a universe may be anything.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from mlops_tasks.columns import INSTRUMENT
from mlops_tasks.data.sources.allowed import AllowedFiles
from mlops_tasks.data.sources.cells import is_instrument
from mlops_tasks.data.sources.unreadable import reason_of
from mlops_tasks.errors import SourceError, SourceNotFoundError

FIRST_DATE = "first_date"
LAST_DATE = "last_date"
MEMBERSHIP_COLUMNS = (INSTRUMENT, FIRST_DATE, LAST_DATE)

_REMEDY = "write one line a membership spell: instrument, first day, last day (YYYY-MM-DD), tab separated"


def read_universe(allowed: AllowedFiles, universe: str) -> pd.DataFrame:
    """The spells of a file that a setting or a form names; as `read_membership`.

    Raises
    ------
    SourceNotFoundError, SourceError
        The file is missing or not allowed, or as `read_membership` says.
    """
    path = allowed.check(universe)
    with _errors_named(path), allowed.open(path) as file:
        return _parse(path, file.read())


def read_membership(path: Path) -> pd.DataFrame:
    """A file of our own stores: spells as (instrument, first_date, last_date), sorted, without repeats.

    An instrument may have several.

    Raises
    ------
    SourceNotFoundError, SourceError
        The file is missing, empty, or a line is no spell; names the line.
    """
    with _errors_named(path):
        return _parse(path, path.read_bytes())


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except SourceError:
        raise
    except FileNotFoundError:
        raise SourceNotFoundError(
            f"{path}: rule universe_exists: no such membership file; correct data.universe (UNIVERSE)"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: rule readable_file: {reason_of(error)}; {_REMEDY}") from None


def _parse(path: Path, content: bytes) -> pd.DataFrame:
    text = content.decode("utf-8-sig")
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
        raise _no_spell(path, number, f"{len(parts)} fields are not three")
    name = parts[0].strip()
    if not is_instrument(name):
        raise _no_spell(path, number, "the first field is no instrument's name")
    try:
        first, last = (pd.Timestamp(part.strip()).normalize() for part in parts[1:3])
    except (ValueError, OverflowError):
        raise _no_spell(path, number, "it holds no two dates") from None
    if pd.isna(first) or pd.isna(last) or first > last:
        raise _no_spell(path, number, "its first day is missing or not before its last")
    return name, first, last


def _no_spell(path: Path, number: int, why: str) -> SourceError:
    return SourceError(f"{path}, line {number}: rule membership_spell: {why}; {_REMEDY}")
