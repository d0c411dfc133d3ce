"""One trial: a configuration, trained by its family and measured on validation days. It cannot reach any test row."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.columns import DATETIME, INSTRUMENT, LABEL, SCORE
from mlops_tasks.config import Settings
from mlops_tasks.errors import TrainingError
from mlops_tasks.machine.memory_need import MemoryNeed
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.modeling.dataset import LearningData
from mlops_tasks.modeling.fitting import Prepared, throwaway_model
from mlops_tasks.modeling.model_zoo.family import find_family
from mlops_tasks.modeling.prediction import predict_segments
from mlops_tasks.modeling.session import Observer


def without_test(data: LearningData) -> LearningData:
    """The same data up to the last validation day, as a search may see it."""
    segments = {name: days for name, days in data.segments.items() if name != "test"}
    return data.until(data.rows("valid").stop, segments)


def folds_of(data: LearningData, config: TrainingConfig, count: int, horizon: int) -> tuple[Prepared, ...]:
    """The validation segment in `count` blocks of days, each with everything before it to learn from.

    Labels of the last `horizon + 1` days before a block reach into it and are blanked (purging); processors are fitted
    on what a fold learns from. One fold is the plan's own train and valid.
    """
    return tuple(Prepared.of(each, config) for each in _walk_forward(without_test(data), count, horizon))


def _walk_forward(data: LearningData, count: int, horizon: int) -> Iterator[LearningData]:
    if count == 1:
        yield data
        return
    row_days = data.features.index.get_level_values(DATETIME)
    days, first = row_days.unique(), data.segments["train"][0]
    valid = days[days >= pd.Timestamp(data.segments["valid"][0])]
    if len(valid) < count * 2:
        raise TrainingError(f"{len(valid)} validation days are too few for {count} folds; give fewer folds")
    for block in np.array_split(np.arange(len(valid)), count):
        begins, ends = valid[block[0]], valid[block[-1]]
        before = days[days < begins]
        segments = {"train": (first, before[-1].date()), "valid": (begins.date(), ends.date())}
        seen = data.until(int(row_days.searchsorted(ends, "right")), segments)
        purged = row_days[: len(seen.label)].isin(before[-(horizon + 1) :])
        yield replace(seen, label=seen.label.mask(purged))


def unwatched(fold: Prepared, config: TrainingConfig, scored: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """The rows of a fold's validation segment on which no iteration was chosen; only these are evidence.

    Raises
    ------
    TrainingError
        The fold has none.
    """
    since = fold.data.unwatched_since(config.stopping.valid_share, horizon)
    return scored[scored.index.get_level_values(DATETIME) >= since]


def fit_and_score(
    fold: Prepared, config: TrainingConfig, settings: Settings, observers: Sequence[Observer] = ()
) -> pd.DataFrame:
    """Train on a fold and score its validation rows, and test rows if there are any, with the saved artefact.

    A user's own class learns and scores in isolation, as in a training (`throwaway_model`).

    Returns
    -------
    Frame of score and realised label, MultiIndex (datetime, instrument).

    Raises
    ------
    TrainingError
        The training diverged, a user's own class tried to reach what it may not, or a score is not finite. What an
        observer raises passes through.
    IsolationError
        The class is a user's own, and cannot be isolated on this system.
    """
    with throwaway_model(fold, config, settings, observers) as model:
        scored = predict_segments(model.artefact, fold.data)
    return scored.set_index([DATETIME, INSTRUMENT])[[SCORE, LABEL]]


def estimated_mb(folds: Sequence[Prepared], config: TrainingConfig) -> float:
    """Estimated peak of the largest fold's training beyond this process's data, in MB."""
    family = find_family(config.family)
    problems = [fold.problem for fold in folds]
    rows = max(len(problem.learned(slice(0, len(problem.label)))) for problem in problems)
    return family.memory_bytes(config.hyperparameters, rows, len(problems[0].names)) / 1e6


def trial_need(folds: Sequence[Prepared], config: TrainingConfig) -> MemoryNeed:
    """The most memory that a trial will take, beyond the data that this process already holds."""
    problem = folds[-1].problem
    return MemoryNeed(len(problem.label), len(problem.names), 0.0, 0.0, estimated_mb(folds, config))


def override(config: TrainingConfig, parameters: Mapping[str, Any]) -> TrainingConfig:
    """A configuration with some other hyper-parameters."""
    return config.model_copy(update={"hyperparameters": {**config.hyperparameters, **parameters}})


Report = Callable[[float, int], None]
"""Takes a value and its step; may raise to end the trial."""


def iteration_observer(metric: str, report: Report) -> Observer:
    """Reports a validation metric at iterations 1, 2, ..., 10, 20, ..., 100, 200, ..., since each is a database row.

    Iterations without the metric are skipped.
    """

    def observe(done: int, metrics: Mapping[str, float]) -> None:
        value = metrics.get(f"valid.{metric}")
        if value is not None and np.isfinite(value) and done % 10 ** (len(str(done)) - 1) == 0:
            report(value, done)

    return observe


def weekly_means(daily: pd.Series) -> list[float]:
    """Means over successive groups of five days; a shorter remainder joins the last group."""
    groups = np.minimum(np.arange(len(daily)) // 5, max(0, len(daily) // 5 - 1))
    return [float(value) for value in daily.groupby(groups).mean()]


def joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Scores of all folds in time order."""
    return pd.concat(parts).sort_index() if len(parts) > 1 else parts[0]
