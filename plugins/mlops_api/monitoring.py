"""Routes about monitoring: how served scores turned out, drift, and what the scoring service was asked."""

import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from mlops_api.access import needs
from mlops_api.messages.monitoring import (
    DriftList,
    DriftMapTold,
    DriftSummary,
    Performance,
    PerformanceTold,
    PredictionCount,
    PredictionCounts,
    Sample,
    Series,
)
from mlops_api.paging import Page, paged
from mlops_api.service import settings
from mlops_tasks.monitoring.drift_map import DriftMap, drift_map
from mlops_tasks.monitoring.performance_files import newest_performance
from mlops_tasks.roles import Right
from mlops_tasks.state.alerts.signals import read_signals
from mlops_tasks.state.deployments import recorded_champion
from mlops_tasks.state.history import count_drift_reports, newest_drift_reports
from mlops_tasks.state.predictions import PredictionFilter, newest_predicted_day, prediction_counts
from mlops_tasks.state.tables import now

router = APIRouter(prefix="/monitoring", tags=["monitoring"])

Version = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Of the model; default: any.")]
MOST_COUNTS = 200
"""Groups of answers that are told."""


@router.get("/performance", **needs(Right.SEE))
def show_performance() -> PerformanceTold:
    """How served scores have turned out, as `monitor_champion` computed it last."""
    found = newest_performance(settings())
    return PerformanceTold(performance=None if found is None else Performance.model_validate(found))


@router.get("/drift", **needs(Right.SEE))
def list_drift(page: Annotated[Page, Depends(paged)], version: Version = None) -> DriftList:
    """The drift reports, the last recorded ones first."""
    rows = newest_drift_reports(settings(), version, page.first, page.size)
    return DriftList(total=count_drift_reports(settings(), version), reports=[DriftSummary.of(row) for row in rows])


@router.get("/drift/map", **needs(Right.SEE))
def show_drift_map(
    version: Version = None,
    days: Annotated[int, Query(ge=1, le=60)] = 20,
    columns: Annotated[int, Query(ge=1, le=500)] = 40,
) -> DriftMapTold:
    """How far each column was from training on each of the last days; by default of the champion."""
    return DriftMapTold.of(map_of(version, days, columns))


def map_of(version: int | None, days: int, columns: int) -> DriftMap | None:
    """The map of a version, or of the champion; None while there is none."""
    chosen = recorded_champion(settings()) if version is None else version
    return None if chosen is None else drift_map(settings(), chosen, days, columns)


@router.get("/series", **needs(Right.SEE))
def show_series() -> Series:
    """Instruments scored by the champion each day, and columns beyond the limit in each drift report."""
    found = read_signals(settings(), ["scored_instruments", "drift_columns"], now())
    return Series(**{name: [Sample.model_validate(each) for each in samples] for name, samples in found.items()})


@router.get("/predictions", **needs(Right.SEE))
def count_predictions(day: datetime.date | None = None) -> PredictionCounts:
    """Answers, scores and latencies about a day, by version, slot, arm and key; by default about the newest one."""
    chosen = newest_predicted_day(settings()) if day is None else day
    if chosen is None:
        return PredictionCounts(date=None, counts=[])
    found = prediction_counts(settings(), PredictionFilter(chosen))[:MOST_COUNTS]
    return PredictionCounts(date=chosen, counts=[PredictionCount.model_validate(each) for each in found])
