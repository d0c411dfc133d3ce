"""The drift map is what the last reports on disk say; what is gone is left out."""

import shutil
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.files import write_json
from mlops_tasks.monitoring.drift_map import drift_map
from mlops_tasks.state.history import count_drift_reports, newest_drift_reports, record_drift_report
from mlops_tasks.state.tables import DriftReport

FIRST = date(2026, 1, 5)


def report(settings: Settings, day: date, exceedance: dict[str, float | None], data_version: str = "d") -> Path:
    """A report on version 3, in the state database and on disk."""
    folder = settings.reports_dir / "drift" / f"{day}-v3-{data_version}"
    names = list(exceedance)
    frame = pd.DataFrame({"column": names, "exceedance": list(exceedance.values()), "importance_share": 1 / len(names)})
    write_json(folder / "report.json", {})
    frame.to_parquet(folder / "drift.parquet")
    row = DriftReport(
        date=day,
        model_version=3,
        data_version=data_version,
        psi_max=None,
        n_warn=0,
        n_alert=0,
        path=settings.relative(folder),
    )
    record_drift_report(settings, row)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An empty home."""
    return Settings(home=tmp_path)


def test_columns_come_in_the_order_of_how_far_they_were(settings: Settings) -> None:
    """Of days that are there, each day's newest report; a column that a day lacks, or without a value, has none."""
    days = [FIRST + timedelta(number) for number in range(4)]
    report(settings, days[0], {"A": 0.2, "B": 3.0})
    report(settings, days[1], {"A": 0.4, "B": 0.5})
    report(settings, days[1], {"A": 1.5, "B": 0.5}, data_version="corrected")
    shutil.rmtree(report(settings, days[2], {"A": 9.0}))
    report(settings, days[3], {"A": 0.3, "C": None, "score": 0.1})
    found = drift_map(settings, 3, 10, 3)
    assert (found.days, found.total) == ([days[0], days[1], days[3]], 4)
    assert found.reports[1] == f"{days[1]}-v3-corrected"
    assert [(each.name, list(each.exceedance)) for each in found.columns] == [
        ("B", [3.0, 0.5, None]),
        ("A", [0.2, 1.5, 0.3]),
        ("score", [None, None, 0.1]),
    ]
    assert found.columns[1].importance == pytest.approx(1 / 3) and found.columns[0].importance is None
    assert drift_map(settings, 3, 2, 3).days == [days[3]], "the day whose report is gone counts as one of the last"
    assert drift_map(settings, 4, 10, 3).columns == []


def test_reports_are_listed_newest_first_by_version(settings: Settings) -> None:
    """In pages, with their number."""
    for number in range(3):
        report(settings, FIRST + timedelta(number), {"A": 0.1})
    assert [row.date.day for row in newest_drift_reports(settings, 3, 1, 5)] == [6, 5]
    assert (count_drift_reports(settings), count_drift_reports(settings, 3), count_drift_reports(settings, 4)) == (
        3,
        3,
        0,
    )


def test_a_damaged_report_is_left_out(settings: Settings) -> None:
    """As one that is gone."""
    (report(settings, FIRST, {"A": 0.1}) / "drift.parquet").write_bytes(b"PAR1")
    assert drift_map(settings, 3, 10, 3).days == []
