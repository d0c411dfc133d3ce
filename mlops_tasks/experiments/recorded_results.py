"""What an experiment has shown, as its last daily analysis recorded it: read by pages, which compute nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.reports import NoReportError, Report, ReportKind, find_report
from mlops_tasks.state.experiments import latest_analysis


@dataclass(frozen=True)
class RecordedLook:
    """What a look at a metric of an arm has found, against the control."""

    metric: str
    arm: str
    day: int
    """How many days it counts."""
    on: date
    """The last of them."""
    effect: float | None
    lower: float | None
    upper: float | None
    """Bounds of the interval that holds over all looks; None: not finite."""
    p_value: float | None


@dataclass(frozen=True)
class RecordedResults:
    """The newest analysis of an experiment, and all looks up to it."""

    at: datetime
    """When it was made."""
    analysis: Mapping[str, Any]
    """`daily_analysis.ExperimentAnalysis.to_json()`."""
    looks: tuple[RecordedLook, ...]
    """Oldest first; empty where the report is not written yet."""
    report: Report | None


def recorded_results(settings: Settings, experiment: str) -> RecordedResults | None:
    """The results of an experiment; None before its first analysis.

    Raises
    ------
    StoreError
        The state database does not answer.
    """
    row = latest_analysis(settings, experiment)
    if row is None:
        return None
    report = _report(settings, experiment)
    looks = () if report is None else tuple(_look(each) for each in report.content.get("looks", []))
    return RecordedResults(row.at, row.result, looks, report)


def _report(settings: Settings, experiment: str) -> Report | None:
    try:
        return find_report(settings, ReportKind.AB_TEST, experiment)
    except NoReportError:
        return None


def _look(content: Mapping[str, Any]) -> RecordedLook:
    numbers = {name: content[name] for name in ("metric", "arm", "day", "effect", "lower", "upper", "p_value")}
    return RecordedLook(on=date.fromisoformat(content["on"]), **numbers)
