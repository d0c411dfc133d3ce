"""The performance of served models as it is on disk: read by pages and the API, which load no model for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.files import read_json

DAYS = "daily"
"""Key of the days of each version and arm."""
MOST_DAYS = 500
"""The newest days that are told."""


@dataclass(frozen=True)
class PerformanceDay:
    """How a day's scores have turned out; None for what is undefined."""

    date: date
    names: int
    ic: float | None
    rank_ic: float | None
    hit_rate: float | None
    top_return: float | None


@dataclass(frozen=True)
class ServedPerformance:
    """A version in an arm, as `stage_results.MaturePerformance`, and its newest mature days, in order."""

    model_version: int
    arm: str
    mature_days: int
    last_mature_day: date
    rank_ic_mean: float | None
    rank_ic_lower: float | None
    rank_ic_upper: float | None
    hit_rate: float | None
    days: Sequence[PerformanceDay]


@dataclass(frozen=True)
class PerformanceFound:
    """The performance by the labels of a vintage, the newest version first."""

    data_version: str
    last_date: date
    at: datetime
    """When it was computed."""
    served: Sequence[ServedPerformance]


def performance_path(settings: Settings, last_date: str, data_version: str) -> Path:
    """The file of a vintage."""
    return settings.reports_dir / "performance" / f"{last_date}-{data_version}.json"


def newest_performance(settings: Settings) -> PerformanceFound | None:
    """What was computed last; None before the first. Files that were written by an older release have no days."""
    files = (settings.reports_dir / "performance").glob("[!.]*.json")
    newest = max(files, key=lambda path: (path.stat().st_mtime_ns, path.name), default=None)
    if newest is None:
        return None
    last_date, _, data_version = newest.stem.rpartition("-")
    content = read_json(newest)
    days = content.get(DAYS) or [[] for _ in content["performance"]]
    served = [_served(figures, own) for figures, own in zip(content["performance"], days, strict=True)]
    at = datetime.fromtimestamp(newest.stat().st_mtime, UTC)
    return PerformanceFound(data_version, date.fromisoformat(last_date), at, served)


def _served(figures: Mapping[str, Any], days: Sequence[Mapping[str, Any]]) -> ServedPerformance:
    last = date.fromisoformat(figures["last_mature_day"])
    return ServedPerformance(**{**figures, "last_mature_day": last}, days=[_day(each) for each in days[-MOST_DAYS:]])


def _day(row: Mapping[str, Any]) -> PerformanceDay:
    numbers = {name: row[name] for name in ("ic", "rank_ic", "hit_rate", "top_return")}
    return PerformanceDay(date=date.fromisoformat(row["date"]), names=row["names"], **numbers)
