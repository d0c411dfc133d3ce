"""Point-in-time membership of a universe, in Qlib's format: instrument, first day, last day, tab separated.

No message quotes a line: a file that somebody named as a universe may be anything.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pandas as pd

from mlops_tasks.columns import INSTRUMENT
from mlops_tasks.data.sources.allowed import AllowedFiles
from mlops_tasks.data.sources.cells import LAST_YEAR, NULL_WORDS, day_in_form, day_of, is_instrument
from mlops_tasks.data.sources.unreadable import reason_of
from mlops_tasks.errors import SourceError, SourceNotFoundError, excerpt

FIRST_DATE = "first_date"
LAST_DATE = "last_date"
MEMBERSHIP_COLUMNS = (INSTRUMENT, FIRST_DATE, LAST_DATE)

OPEN_END = date(LAST_YEAR, 12, 31)
"""The last day of a spell that has no end: still a member."""

_REMEDY = (
    "write one line per membership spell: instrument, first day, last day, tab separated; days as YYYY-MM-DD (another "
    "form is named by data.universe_date_format), the last one empty while it is a member"
)


def read_universe(allowed: AllowedFiles, universe: str, date_format: str | None = None) -> pd.DataFrame:
    """The spells of a file that a setting or a form names. Like `read_membership`, but with days in any form.

    Raises
    ------
    SourceNotFoundError, SourceError
        The file is missing or not allowed, or as `read_membership` says.
    """
    path = allowed.check(universe)
    with _errors_named(path), allowed.open(path) as file:
        return _parse(path, file.read(), date_format)


def read_membership(path: Path) -> pd.DataFrame:
    """A file of our own stores: spells as (instrument, first_date, last_date), sorted, without repeats.

    An instrument may have several. One whose last day is empty, or later than all calendars, ends on `OPEN_END`.

    Raises
    ------
    SourceNotFoundError, SourceError
        The file is missing or empty, or a line is not a spell. Names the line.
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


def _parse(path: Path, content: bytes, form: str | None = None) -> pd.DataFrame:
    text = content.decode("utf-8-sig")
    spells = [
        _spell(path, number, line, form) for number, line in enumerate(text.splitlines(), start=1) if line.strip()
    ]
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
    """The file's text, one spell per line."""
    first, last = (spells[name].dt.strftime("%Y-%m-%d") for name in (FIRST_DATE, LAST_DATE))
    return "".join(f"{name}\t{a}\t{b}\n" for name, a, b in zip(spells[INSTRUMENT], first, last, strict=True))


def _spell(path: Path, number: int, line: str, form: str | None) -> tuple[str, date, date]:
    parts = [part.strip() for part in (line.split("\t") if "\t" in line else re.split(r"\s*,\s*|\s+", line.strip()))]
    if len(parts) < len(MEMBERSHIP_COLUMNS):
        raise _no_spell(path, number, f"it has {len(parts)} fields, not three")
    name = parts[0]
    if not is_instrument(name):
        raise _no_spell(path, number, "the first field is not an instrument's name")
    first = _day(parts[1], form)
    last = OPEN_END if parts[2].lower() in NULL_WORDS else _day(parts[2], form)
    if first is None or last is None:
        wanted = "YYYY-MM-DD" if form is None else excerpt(form)
        raise _no_spell(path, number, f"the {'first' if first is None else 'last'} day is not of the form {wanted}")
    if first > last:
        raise _no_spell(path, number, "its first day is after its last")
    if first > OPEN_END:
        raise _no_spell(path, number, f"its first day is after the year {LAST_YEAR}")
    return name, first, min(last, OPEN_END)


def _day(text: str, form: str | None) -> date | None:
    return day_of(text, date.max.year) if form is None else day_in_form(text, form, date.max.year)


def _no_spell(path: Path, number: int, why: str) -> SourceError:
    return SourceError(f"{path}, line {number}: rule membership_spell: {why}; {_REMEDY}")
