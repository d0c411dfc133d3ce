"""The quarantined rows of a validation, one page at a time, however many there are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.data.sources.parsed import SOURCE_FILE, SOURCE_ROW
from mlops_tasks.data.validation.quarantine_columns import EVIDENCE_DATE, REASON, REMEDY, RULE, SEVERITY
from mlops_tasks.errors import StoreError

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
    with pq.ParquetFile(rows_file) as file:
        total = file.metadata.num_rows
        pages = max(1, -(-total // PAGE_ROWS))
        if not 1 <= number <= pages:
            raise StoreError(f"there is no page {number}; the quarantine has pages 1 to {pages}")
        frame = _slice(file, (number - 1) * PAGE_ROWS)
    return QuarantinePage(number, pages, total, [_texts(row) for row in frame.to_dict("records")])


def _slice(file: pq.ParquetFile, start: int) -> pd.DataFrame:
    group, before = 0, 0
    while group < file.metadata.num_row_groups - 1 and before + file.metadata.row_group(group).num_rows <= start:
        before += file.metadata.row_group(group).num_rows
        group += 1
    parts, wanted = [], PAGE_ROWS
    groups = list(range(group, file.metadata.num_row_groups))
    for batch in file.iter_batches(batch_size=10 * PAGE_ROWS, row_groups=groups, columns=list(_READ)):
        part = batch.slice(max(0, start - before), wanted)
        before += batch.num_rows
        if part.num_rows:
            parts.append(part.to_pandas())
            wanted -= part.num_rows
        if not wanted:
            break
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(_READ))


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
