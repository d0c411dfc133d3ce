"""The drift map: how far each column was from training on each of the last days, from the drift reports on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import inf
from pathlib import PurePosixPath

import pyarrow.parquet as pq

from mlops_tasks.config import Settings
from mlops_tasks.files import finite_or_none
from mlops_tasks.reports import NoReportError, ReportKind, find_report
from mlops_tasks.state.history import newest_drift_reports
from mlops_tasks.state.tables import DriftReport

_REPEATED = 5
"""Reports that a day may have, of several vintages."""


@dataclass(frozen=True)
class DriftedColumn:
    """A column; `exceedance` has a value for each day of the map: 1 is the limit, None is not known."""

    name: str
    importance: float | None
    """Share of the score's importance, in the newest report."""
    exceedance: Sequence[float | None]


@dataclass(frozen=True)
class DriftMap:
    """The columns of a version, those that were farthest beyond the limit first.

    Attributes
    ----------
    days, reports
        In order, with the name of each day's newest report.
    total
        Number of all columns; only some are listed.
    """

    version: int
    days: Sequence[date]
    reports: Sequence[str]
    columns: Sequence[DriftedColumn]
    total: int


def drift_map(settings: Settings, version: int, most_days: int, most_columns: int) -> DriftMap:
    """The map of a version's last reports. A report whose file is gone or cannot be read leaves its day out.

    Raises
    ------
    StoreError
        The state database does not answer.
    """
    tables: dict[date, tuple[str, Mapping[str, tuple[float, float]]]] = {}
    for day, row in _newest_of_days(settings, version, most_days).items():
        name = PurePosixPath(row.path).name
        found = _table(settings, name)
        if found:
            tables[day] = name, found
    days = sorted(tables)
    newest = tables[days[-1]][1] if days else {}
    names = {name for _, table in tables.values() for name in table}
    columns = [
        DriftedColumn(
            name,
            finite_or_none(newest[name][1]) if name in newest else None,
            [finite_or_none(tables[day][1][name][0]) if name in tables[day][1] else None for day in days],
        )
        for name in names
    ]
    columns.sort(
        key=lambda each: (-max((value for value in each.exceedance if value is not None), default=-inf), each.name)
    )
    return DriftMap(version, days, [tables[day][0] for day in days], columns[:most_columns], len(columns))


def _newest_of_days(settings: Settings, version: int, most_days: int) -> dict[date, DriftReport]:
    found: dict[date, DriftReport] = {}
    for row in newest_drift_reports(settings, version, 0, most_days * _REPEATED):
        found.setdefault(row.date, row)
    return {day: found[day] for day in sorted(found, reverse=True)[:most_days]}


def _table(settings: Settings, name: str) -> dict[str, tuple[float, float]]:
    """Column to its exceedance and its share of importance; empty where the report is gone."""
    try:
        path = find_report(settings, ReportKind.DRIFT, name).file("drift.parquet")
        table = pq.read_table(path, columns=["column", "exceedance", "importance_share"]).to_pydict()
    except (NoReportError, OSError, ValueError):
        return {}
    rows = zip(table["column"], table["exceedance"], table["importance_share"], strict=True)
    nan = float("nan")
    return {str(name): (nan if far is None else far, nan if share is None else share) for name, far, share in rows}
