"""The figures of a finished training as its page draws them: from its folder, each series of bounded length."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from mlops_tasks.columns import LABEL, SCORE
from mlops_tasks.config import Settings
from mlops_tasks.evaluation.ic import ic_decay, quantile_returns
from mlops_tasks.evaluation.portfolio import drawdown
from mlops_tasks.evaluation.report import quantiles_for
from mlops_tasks.files import finite_or_none
from mlops_tasks.training.curves import Step
from mlops_tasks.training_folder import Curves, TrainingFolder

MOST_DAYS = 1500
"""Days of a series; of a longer one every n-th is taken."""
MOST_STEPS = 1000
MOST_FEATURES = 30
DECAY_DAYS = 10
_DIGITS = 6

Values = tuple[float | None, ...]
"""None where it is undefined."""


@dataclass(frozen=True)
class Series:
    """Values by day."""

    days: tuple[str, ...]
    """ISO dates."""
    values: Mapping[str, Values]
    """Name to a value for each day."""


@dataclass(frozen=True)
class Share:
    """A feature, or a group of features, and its share of all importance."""

    name: str
    share: float


@dataclass(frozen=True)
class TrainingFigures:
    """What a training's own files say.

    Attributes
    ----------
    steps
        The curves by iteration; empty where the model has none.
    signal
        By day of the test segment: `ic`, `rank_ic`, and their running sums `ic_sum`, `rank_ic_sum`.
    account
        By trading day, running sums, not compounded: `portfolio` (after costs), `universe`, `excess`, and the
        `drawdown` of the excess.
    importance
        The features with the largest shares of the absolute importance, these first.
    n_features
        How many features have an importance.
    """

    training_key: str
    steps: Sequence[Step]
    signal: Series
    account: Series
    importance: Sequence[Share]
    n_features: int


@dataclass(frozen=True)
class Lag:
    """The mean rank IC with the labels of a later day, and its standard error."""

    lag: int
    mean: float | None
    error: float | None
    days: int


@dataclass(frozen=True)
class Group:
    """Names with scores of one quantile: mean label in basis points a day, and its standard error."""

    quantile: int
    mean_bps: float | None
    error_bps: float | None


@dataclass(frozen=True)
class SignalFigures:
    """What is computed of a training's predictions on test days."""

    training_key: str
    horizon: int
    decay: Sequence[Lag]
    groups: Sequence[Group]


def training_figures(settings: Settings, training_key: str) -> TrainingFigures:
    """The figures of a training; before it is evaluated, those of its evaluation are empty.

    Raises
    ------
    StoreError
        There is no such training.
    """
    folder = TrainingFolder.of(settings, training_key)
    folder.manifest()
    daily = folder.evaluation.find_daily()
    if daily is None:
        daily = pd.DataFrame(columns=["ic", "rank_ic", *_ACCOUNT], dtype=float)
    importance = folder.importance()
    return TrainingFigures(
        training_key,
        curve_steps(folder.curves()),
        _signal(daily),
        _account(daily),
        shares(importance, MOST_FEATURES),
        len(importance),
    )


_ACCOUNT = ("return", "bench", "cost")


def _signal(daily: pd.DataFrame) -> Series:
    found = daily[["ic", "rank_ic"]].dropna(how="all")
    sums = found.fillna(0.0).cumsum().add_suffix("_sum")
    return _series(pd.concat([found, sums], axis=1))


def _account(daily: pd.DataFrame) -> Series:
    found = daily[list(_ACCOUNT)].dropna()
    excess = found["return"] - found["cost"] - found["bench"]
    sums = {
        "portfolio": (found["return"] - found["cost"]).cumsum(),
        "universe": found["bench"].cumsum(),
        "excess": excess.cumsum(),
        "drawdown": drawdown(excess),
    }
    return _series(pd.DataFrame(sums, index=found.index))


def _series(frame: pd.DataFrame) -> Series:
    every = max(1, math.ceil(len(frame) / MOST_DAYS))
    thin = frame.iloc[::-1].iloc[::every].iloc[::-1]
    days = tuple(str(day.date()) for day in thin.index)
    return Series(days, {str(name): _values(thin[name].to_numpy(np.float64)) for name in thin.columns})


def _values(numbers: np.ndarray) -> Values:
    return tuple(_rounded(number) for number in numbers)


def _rounded(number: float) -> float | None:
    return float(f"{number:.{_DIGITS}g}") if math.isfinite(number) else None


def curve_steps(curves: Curves, most: int = MOST_STEPS) -> list[Step]:
    """The curves of a folder by iteration, the last one among them; metrics that were not computed are left out."""
    length = max((len(values) for segments in curves.values() for values in segments.values()), default=0)
    every = max(1, math.ceil(length / most))
    found = []
    for place in range((length - 1) % every, length, every):
        metrics = {
            f"{segment}.{metric}": values[place]
            for metric, segments in curves.items()
            for segment, values in segments.items()
            if place < len(values) and values[place] is not None
        }
        found.append(Step(place + 1, None, metrics))
    return found


def shares(importance: Mapping[str, float], most: int) -> list[Share]:
    """The largest shares of the sum of absolute values; ties in alphabetical order."""
    sizes = {name: abs(value) for name, value in importance.items() if math.isfinite(value)}
    total = sum(sizes.values())
    ranked = sorted(sizes, key=lambda name: (-sizes[name], name))[:most]
    return [Share(name, sizes[name] / total if total else 0.0) for name in ranked]


def signal_figures(settings: Settings, training_key: str) -> SignalFigures:
    """What a training's predictions show on test days: computed once for the last few trainings asked about.

    Raises
    ------
    StoreError
        There is no such training, or its predictions are missing.
    """
    folder = TrainingFolder.of(settings, training_key)
    folder.manifest()
    return _signal_figures(folder, folder.predictions.stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _signal_figures(folder: TrainingFolder, written_ns: int) -> SignalFigures:
    """`written_ns`: when its predictions were written, which a folder of the same name may have anew."""
    test = folder.segment("test")
    decay = ic_decay(test[SCORE], test[LABEL], DECAY_DAYS) if len(test) else pd.DataFrame()
    lags = [
        Lag(int(str(lag)), finite_or_none(row["mean"]), finite_or_none(row["error"]), int(row["days"]))
        for lag, row in decay.iterrows()
    ]
    return SignalFigures(folder.key, folder.manifest().horizon, lags, _groups(test) if len(test) else [])


def _groups(test: pd.DataFrame) -> list[Group]:
    daily = quantile_returns(test[SCORE], test[LABEL], quantiles_for(test)).dropna(how="all")
    means = daily.mean() * 1e4
    errors = daily.std(ddof=1) / np.sqrt(daily.notna().sum().clip(lower=1)) * 1e4
    return [Group(int(each), finite_or_none(means[each]), finite_or_none(errors[each])) for each in daily.columns]
