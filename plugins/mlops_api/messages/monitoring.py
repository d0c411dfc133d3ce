"""What the API says of monitoring: how scores turned out, drift, and what the scoring service was asked."""

from datetime import date, datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from mlops_tasks.monitoring.drift_map import DriftMap
from mlops_tasks.state.tables import DriftReport

Day = date
"""Where a field is called `date` itself."""


class _Read(BaseModel):
    """Is read from one of the library's own."""

    model_config = ConfigDict(from_attributes=True)


class PerformanceDay(_Read):
    """How a day's scores have turned out; null for what is undefined."""

    date: date
    names: int
    ic: float | None
    rank_ic: float | None
    hit_rate: float | None
    top_return: float | None


class ServedPerformance(_Read):
    """A version in an arm, over its mature days."""

    model_version: int
    arm: str
    mature_days: int
    last_mature_day: date
    rank_ic_mean: float | None
    rank_ic_lower: float | None = Field(description="95% interval, for a single look. Null below 20 days.")
    rank_ic_upper: float | None
    hit_rate: float | None
    days: list[PerformanceDay] = Field(description="The newest 500, in order.")


class Performance(_Read):
    """How served scores have turned out by the labels of a vintage, the newest version first."""

    data_version: str
    last_date: date
    at: datetime
    served: list[ServedPerformance]


class PerformanceTold(BaseModel):
    """Null: nothing was computed yet."""

    performance: Performance | None


class DriftSummary(BaseModel):
    """A drift report in short."""

    date: date
    model_version: int
    data_version: str
    beyond: int = Field(description="Columns beyond the limit.")
    near: int
    psi_max: float | None
    at_stake: float | None
    report: str = Field(description="Its name among the reports.")
    at: datetime

    @classmethod
    def of(cls, row: DriftReport) -> Self:
        """From a row."""
        return cls(
            date=row.date,
            model_version=row.model_version,
            data_version=row.data_version,
            beyond=row.n_alert,
            near=row.n_warn,
            psi_max=row.psi_max,
            at_stake=row.at_stake,
            report=row.path.rpartition("/")[2],
            at=row.recorded_at,
        )


class DriftList(BaseModel):
    """Some drift reports, the last ones first."""

    total: int
    reports: list[DriftSummary]


class DriftedColumn(_Read):
    """A column on each day of the map."""

    name: str
    importance: float | None = Field(description="Share of the score's importance. Null: not known.")
    exceedance: list[float | None] = Field(description="1 is the limit; null: not known.")


class DriftMapShown(_Read):
    """The columns of a version by day, those that were farthest beyond the limit first."""

    version: int
    days: list[date]
    reports: list[str]
    columns: list[DriftedColumn]
    total: int = Field(description="Number of all columns.")


class DriftMapTold(BaseModel):
    """Null: no model serves, or none was named."""

    map: DriftMapShown | None

    @classmethod
    def of(cls, found: DriftMap | None) -> Self:
        """From the library's own."""
        return cls(map=None if found is None else DriftMapShown.model_validate(found))


class Sample(_Read):
    """A value and its time."""

    at: datetime
    value: float


class Series(BaseModel):
    """What rules of alerts look at, oldest first; the newest hundred values."""

    scored_instruments: list[Sample]
    drift_columns: list[Sample]


class PredictionCount(_Read):
    """Requests of a key that were answered on a day."""

    model_version: int
    slot: str
    arm: str
    key_name: str
    answers: int
    scores: int
    p50_ms: float
    p99_ms: float


class PredictionCounts(BaseModel):
    """The scoring service's answers about one day."""

    date: Day | None = Field(description="Null: none was logged.")
    counts: list[PredictionCount]
