"""Out-of-fold scores: a configuration is trained and tested on each split of the calendar.

A single test segment is one draw of history. Walk-forward shows how a model would have done if it had been retrained
through time, combinatorial splits show the spread over many histories (`evaluation/splits.py`). Every fold fits its own
processors and knows nothing of its test days.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, LABEL
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.errors import ConfigError, TrainingError
from mlops_tasks.evaluation.ic import daily_ic, daily_rank_ic
from mlops_tasks.evaluation.splits import CombinatorialPurged, Days, Split, backtest_paths
from mlops_tasks.features.labels import forward_return
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.modeling.dataset import LearningData
from mlops_tasks.modeling.fitting import Prepared, ThrowawayModel, throwaway_model
from mlops_tasks.modeling.stopping import Conclusion


@dataclass(frozen=True)
class FoldResult:
    """One split's result on its test days."""

    split: Split
    score: pd.Series
    """MultiIndex (datetime, instrument)."""
    daily: pd.DataFrame
    """By datetime, every test day of the calendar: ic, rank_ic; NaN on days without one."""
    best_iteration: int
    conclusion: Conclusion
    """The verdict on the training."""


def cross_validate(
    panel: LearningData, splits: Iterable[Split], config: TrainingConfig, settings: Settings
) -> Iterator[FoldResult]:
    """Train on each split's learning days and score its test days.

    A user's own class learns and scores closed off (`own_code.py`).

    Parameters
    ----------
    panel
        Features and labels of all days; its segments do not matter. Labels must not be purged, since each split is.
    splits
        Positions in the panel's calendar, or among the days of its rows if it has no calendar. Every split has
        validation days, for early stopping.
    settings
        For the number of threads, and for how users' own classes are closed off.

    Raises
    ------
    ConfigError
        A split has no validation day.
    TrainingError
        A split has no row with a label to learn from, or its training fails.
    IsolationError
        The class is a user's own, and cannot be closed off on this system.
    """
    days = _day_positions(panel)
    for split in splits:
        if len(split.valid) == 0:
            raise ConfigError("valid_days: a split has no validation day, and early stopping needs one; give some")
        learning = _in_segments(panel, days, {"train": split.train, "valid": split.valid})
        tested = _in_segments(panel, days, {"test": split.test})
        with _trained(learning, config, settings) as model:
            score = model.artefact.score(tested.scoring_rows("test"))
        daily = pd.concat([daily_ic(score, panel.label), daily_rank_ic(score, panel.label)], axis=1)
        yield FoldResult(
            split, score, daily.reindex(calendar_of(panel)[split.test]), model.best_iteration, model.conclusion
        )


def load_panel(
    settings: Settings, vintage: Vintage, feature_version: str, horizon: int, window: int = 1
) -> LearningData:
    """Features and labels of all days of a vintage, without segments, as `cross_validate` takes them.

    Rows are the universe's members of each day. For windows of several days they are all instruments, because windows
    look back on days before an instrument was a member. Labels that are not known yet are NaN.

    Raises
    ------
    StoreError
        The features are not in the store.
    """
    store = FeatureStore(settings)
    if window == 1:
        features, member = store.load(feature_version, members=vintage), None
    else:
        features = store.load(feature_version, order="C")
        member = vintage.membership_mask(features.index)
    label = forward_return(vintage, horizon).reindex(features.index).rename(LABEL)
    return LearningData(
        features, label if member is None else label.where(member), {}, member, calendar=vintage.calendar()
    )


def path_rank_ics(cpcv: CombinatorialPurged, folds: Sequence[FoldResult], calendar: pd.DatetimeIndex) -> pd.DataFrame:
    """Daily rank IC on each backtest path of combinatorial splits: days x paths, NaN on days without one."""
    tested = [fold.daily["rank_ic"].to_numpy() for fold in folds]
    return pd.DataFrame(backtest_paths(cpcv, tested, len(calendar)).T, calendar)


def calendar_of(panel: LearningData) -> pd.DatetimeIndex:
    """The trading days that splits count."""
    if panel.calendar is not None:
        return panel.calendar
    return pd.DatetimeIndex(panel.features.index.get_level_values(DATETIME).unique())


def _day_positions(panel: LearningData) -> Days:
    """The position of each row's day in the calendar, shape (n,)."""
    found: Days = calendar_of(panel).get_indexer(panel.features.index.get_level_values(DATETIME))
    return found


def _in_segments(panel: LearningData, days: Days, segments: dict[str, Days]) -> LearningData:
    """The panel with these segments; rows of other days are only looked back on, and their labels are blanked.

    A segment's days need not be consecutive: the days between them do not belong to it.
    """
    calendar = calendar_of(panel)
    own = np.isin(days, np.concatenate(list(segments.values())))
    if panel.member is not None:
        own &= panel.member
    spans = {name: (calendar[found[0]].date(), calendar[found[-1]].date()) for name, found in segments.items()}
    return replace(panel, label=panel.label.where(own), member=own, segments=spans)


@contextlib.contextmanager
def _trained(data: LearningData, config: TrainingConfig, settings: Settings) -> Iterator[ThrowawayModel]:
    """A model trained on segments train and valid."""
    for name in data.segments:
        if not data.label.iloc[data.rows(name)].notna().any():
            raise TrainingError(f"segment {name} {data.segments[name]} has no labelled row; choose other splits")
    with throwaway_model(Prepared.of(data, config), config, settings) as model:
        yield model
