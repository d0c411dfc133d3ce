"""Trials of hyper-parameter searches: every configuration that was tried, whatever became of it."""

from collections.abc import Sequence

import pandas as pd
from sqlalchemy import select

from mlops_tasks.columns import DATETIME
from mlops_tasks.config import Settings
from mlops_tasks.errors import StoreError
from mlops_tasks.state.database import reading
from mlops_tasks.state.history import record_row
from mlops_tasks.state.tables import Trial

TRIAL_STATES = ("complete", "pruned", "failed")
DAILY = "daily"
"""Key of a trial's result: `{"2024-01-05": 0.031, "2024-01-08": null, ...}`, its rank IC on each validation day."""


def record_trial(settings: Settings, row: Trial) -> bool:
    """Add a trial; False when the study has one of this number.

    Raises
    ------
    StoreError
        `row.state` is none of `TRIAL_STATES`, or a complete trial lacks its daily rank ICs.
    """
    name = f"trial {row.number} of study {row.study}"
    if row.state not in TRIAL_STATES:
        raise StoreError(f"{name}: state {row.state!r} is unknown; use one of {', '.join(TRIAL_STATES)}")
    if row.state == "complete" and not row.result.get(DAILY):
        raise StoreError(f"{name}: result.{DAILY} is missing; give the rank IC of each validation day, null for none")
    return record_row(settings, row)


def trials_of(settings: Settings, study: str) -> list[Trial]:
    """A study's trials by number."""
    query = select(Trial).where(Trial.study == study).order_by(Trial.number)
    with reading(settings) as active:
        return list(active.scalars(query))


def trials_on(settings: Settings, data_version: str, horizon: int) -> list[Trial]:
    """All trials on a vintage and horizon, whatever study they belong to, by study and number."""
    query = select(Trial).where(Trial.data_version == data_version, Trial.horizon == horizon)
    with reading(settings) as active:
        return list(active.scalars(query.order_by(Trial.study, Trial.number)))


def daily_rank_ics(trials: Sequence[Trial]) -> pd.DataFrame:
    """Daily rank ICs of the trials that have them: days x trials, columns (study, number).

    NaN on days on which a trial has none. Pruned trials have those of the iteration at which they ended, if any.
    """
    series = {(each.study, each.number): each.result[DAILY] for each in trials if each.result.get(DAILY)}
    columns = pd.MultiIndex.from_tuples(list(series), names=["study", "number"])
    frame = pd.DataFrame({name: pd.Series(values, dtype=float) for name, values in series.items()})
    frame.columns = columns
    frame.index = pd.DatetimeIndex(frame.index, name=DATETIME)
    return frame.sort_index()
