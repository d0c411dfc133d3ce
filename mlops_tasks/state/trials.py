"""Trials of hyper-parameter searches: every configuration that was tried, whatever its outcome."""

from collections.abc import Sequence
from itertools import groupby

import pandas as pd
from sqlalchemy import select, text

from mlops_tasks.columns import DATETIME
from mlops_tasks.config import Settings
from mlops_tasks.errors import StoreError
from mlops_tasks.state.database import reading
from mlops_tasks.state.rows import record_row
from mlops_tasks.state.tables import TrainingEvent, TrainingRun, Trial
from mlops_tasks.states import TrialOutcome

DAILY_RANK_IC = "daily"
"""Key of a trial's result: `{"2024-01-05": 0.031, "2024-01-08": null, ...}`, its rank IC on each validation day."""


def record_trial(settings: Settings, row: Trial) -> bool:
    """Add a trial; False if the study has one with this number.

    Raises
    ------
    StoreError
        `row.state` is not a `TrialOutcome`, or a complete trial lacks its daily rank ICs.
    """
    name = f"trial {row.number} of study {row.study}"
    if row.state not in [*TrialOutcome]:
        raise StoreError(f"{name}: state {row.state!r} is unknown; use one of {', '.join(TrialOutcome)}")
    if row.state == TrialOutcome.COMPLETE and not row.result.get(DAILY_RANK_IC):
        raise StoreError(
            f"{name}: result.{DAILY_RANK_IC} is missing; give the rank IC of each validation day, null if there is none"
        )
    return record_row(settings, row)


def trials_of(settings: Settings, study: str) -> list[Trial]:
    """The trials of a study, by number."""
    query = select(Trial).where(Trial.study == study).order_by(Trial.number)
    with reading(settings) as active:
        return list(active.scalars(query))


def trials_over(settings: Settings, horizon: int, days: pd.DatetimeIndex) -> list[Trial]:
    """Trials of all studies with a horizon that were compared on these days, on any vintage, by study and number.

    The days of a study are those of its trials' daily rank ICs. They count as the same days if both have more than half
    of the shorter list in common; then all trials of the study count, also those without a series.
    """
    query = select(Trial).where(Trial.horizon == horizon).order_by(Trial.study, Trial.number)
    asked = {day.date().isoformat() for day in days}
    found: list[Trial] = []
    with reading(settings) as active:
        for _, rows in groupby(active.scalars(query), lambda row: row.study):
            trials = list(rows)
            own = {day for each in trials for day in each.result.get(DAILY_RANK_IC, ())}
            if 2 * len(own & asked) > min(len(own), len(asked)):
                found += trials
    return found


def studies_of(settings: Settings, training_key: str) -> tuple[str, ...]:
    """The studies that chose a training's hyper-parameters, in order; none: they were not searched.

    They come from all runs that ended in the training, whichever of them trained it: a search may choose what already
    exists, and a run without a search may request what a search has chosen.
    """
    ended_in = TrainingEvent.payload["training_key"].as_string() == training_key
    query = (
        select(TrainingRun.request)
        .join(TrainingEvent, TrainingEvent.run_id == TrainingRun.run_id)
        .where(text("training_event.terminal"), ended_in)  # as its partial index has it
        .order_by(TrainingRun.id)
    )
    with reading(settings) as active:
        studies = [request["plan"].get("study") for request in active.scalars(query)]
    return tuple(dict.fromkeys(study for study in studies if study is not None))


def daily_rank_ics(trials: Sequence[Trial]) -> pd.DataFrame:
    """Daily rank ICs of the trials that have them: days x trials, columns (study, number).

    NaN on days on which a trial has none. Pruned and failed trials are excluded.
    """
    series = {
        (each.study, each.number): each.result[DAILY_RANK_IC] for each in trials if each.result.get(DAILY_RANK_IC)
    }
    columns = pd.MultiIndex.from_tuples(list(series), names=["study", "number"])
    frame = pd.DataFrame({name: pd.Series(values, dtype=float) for name, values in series.items()})
    frame.columns = columns
    frame.index = pd.DatetimeIndex(frame.index, name=DATETIME)
    return frame.sort_index()
