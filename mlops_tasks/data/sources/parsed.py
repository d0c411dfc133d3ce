"""What a source hands on: every row it holds, each with where it came from and what of it could not be parsed."""

from dataclasses import dataclass

import pandas as pd

from mlops_tasks.columns import BAR_FIELDS, DATETIME, INSTRUMENT

SOURCE_FILE = "source_file"
SOURCE_ROW = "source_row"
PARSE_ERROR = "parse_error"
PROVENANCE = (SOURCE_FILE, SOURCE_ROW, PARSE_ERROR)

PARSED_COLUMNS = (DATETIME, INSTRUMENT, *BAR_FIELDS, *PROVENANCE)


@dataclass(frozen=True)
class ParsedBars:
    """All rows of a source, good and bad.

    `frame` has a RangeIndex and the columns `PARSED_COLUMNS`: datetime (midnight, NaT where missing or no date),
    instrument (null where missing), `BAR_FIELDS` as float64 (raw prices; NaN where missing or no number),
    `source_file`, `source_row` (1-based, the header not counted) and `parse_error` (null, or what could not be
    parsed). `universe` has the columns instrument, first_date, last_date; None where no membership file was given.
    """

    frame: pd.DataFrame
    source: str
    universe: pd.DataFrame | None = None
