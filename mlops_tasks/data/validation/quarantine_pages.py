"""The quarantined rows of a validation, one page at a time, however many there are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.data.sources.parsed import SOURCE_FILE, SOURCE_ROW
from mlops_tasks.data.validation.quarantine_columns import EVIDENCE_DATE, REASON, REMEDY, RULE, SEVERITY
from mlops_tasks.errors import StoreError
from mlops_tasks.parquet_pages import rows_of

PAGE_ROWS = 100
LONGEST_CELL = 300
"""Number of characters of a cell that are shown."""

_READ = (INSTRUMENT, DATETIME, EVIDENCE_DATE, RULE, SEVERITY, REASON, REMEDY, SOURCE_FILE, SOURCE_ROW)


@dataclass(frozen=True)
class QuarantinePage:
    """Some rows as texts; `number` counts from 1, of `pages` (1 where nothing is in quarantine)."""

    number: int
    pages: int
    total: int
    """Number of findings (broken rules of rows) on all pages."""
    rows: list[dict[str, str]]


def quarantine_page(rows_file: Path, number: int) -> QuarantinePage:
    """Read one page of `rows.parquet`. Earlier rows are skipped without being held in memory.

    Raises
    ------
    StoreError
        There is no such page.
    """
    found = rows_of(rows_file, max(0, number - 1) * PAGE_ROWS, PAGE_ROWS, _READ)
    pages = max(1, -(-found.total // PAGE_ROWS))
    if not 1 <= number <= pages:
        raise StoreError(f"there is no page {number}; the quarantine has pages 1 to {pages}")
    return QuarantinePage(number, pages, found.total, [_texts(row) for row in found.frame.to_dict("records")])


def _texts(row: dict[Any, Any]) -> dict[str, str]:
    return {
        "instrument": _shown(row[INSTRUMENT]),
        "date": _day(row[DATETIME]) or _day(row[EVIDENCE_DATE]),
        "rule": _shown(row[RULE]),
        "severity": _shown(row[SEVERITY]),
        "reason": _shown(row[REASON]),
        "remedy": _shown(row[REMEDY]),
        "source": f"{_shown(row[SOURCE_FILE])}, row {row[SOURCE_ROW]}",
    }


def _day(moment: Any) -> str:
    return "" if pd.isna(moment) else pd.Timestamp(moment).date().isoformat()


def _shown(value: Any) -> str:
    text = "" if pd.isna(value) else str(value)
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]} ..."
