"""The result of reading a source: every row, each with where it came from and what could not be parsed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from mlops_tasks.columns import BAR_FIELDS, DATETIME, INSTRUMENT, PRECLOSE

SOURCE_FILE = "source_file"
SOURCE_ROW = "source_row"
PARSE_ERROR = "parse_error"
PROVENANCE = (SOURCE_FILE, SOURCE_ROW, PARSE_ERROR)

PARSED_COLUMNS = (DATETIME, INSTRUMENT, *BAR_FIELDS, *PROVENANCE)
OPTIONAL_COLUMNS = (PRECLOSE,)


@dataclass(frozen=True)
class RawFile:
    """One thing that was read: a file, or the answer of a database or vendor."""

    name: str
    """Its path, or the table or address it came from (never a password)."""
    sha256: str
    rows: int


@dataclass(frozen=True)
class ParsedBars:
    """All rows of a source, good and bad.

    `frame` has a RangeIndex and the columns `PARSED_COLUMNS`: datetime (midnight, NaT where missing or not a date),
    instrument (null where missing), `BAR_FIELDS` as float64 (raw prices; NaN where missing or not a number),
    `source_file`, `source_row` (1-based, the header not counted) and `parse_error` (null, or what could not be
    parsed); after them, where the source has it, `preclose` (float64, in the raw prices of the row's day). A row whose
    fields cannot be told apart has nothing but these three. `universe` has the columns instrument, first_date,
    last_date; None where no membership file was given. `raw` lists what was read, with its digest: the beginning of
    the lineage. `failed` names the instruments that a network source could not fetch, each with its reason.
    """

    frame: pd.DataFrame
    source: str
    universe: pd.DataFrame | None = None
    raw: tuple[RawFile, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)


def columns_of(present: Sequence[str]) -> list[str]:
    """The columns of parsed rows, in their order, with the optional ones that are present."""
    return [*PARSED_COLUMNS, *(name for name in OPTIONAL_COLUMNS if name in present)]
