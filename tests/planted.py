"""Learning data whose best answer is known: label = 0.02 * (sqrt(snr) * signal + noise), both of variance one.

Features are independent standard normal numbers, over features, days and instruments. The oracle scores with the
signal itself. Where the signal is normal, its daily rank IC is 6 / pi * asin(rho / 2) with rho = sqrt(snr / (1 + snr))
(Pearson, 1907); for every kind it is simulated: `Planted.oracle` is its mean over the untouched test days.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from mlops_tasks.config import Settings, TrainingSettings
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.modeling.dataset import LearningData

ONE_THREAD = Settings(home=Path("/nonexistent"), training=TrainingSettings(threads=1))
"""Of no home: nothing is kept."""
HISTORY = 10
"""Days that the temporal signals reach back; none of them shows in a row's own day."""
VOLATILITY = 0.02


@dataclass(frozen=True)
class Shape:
    """How much data there is, and how much of the label's variance is signal (`snr` is signal / noise)."""

    days: int = 300
    instruments: int = 60
    features: int = 8
    snr: float = 0.05
    missing: float = 0.0
    """Share of feature values that are absent, at random."""


@dataclass(frozen=True)
class Planted:
    """Learning data in segments train (60% of the days), valid and test (20% each), and the signal in its label."""

    kind: str
    data: LearningData
    signal: pd.Series

    @cached_property
    def oracle(self) -> float:
        """Mean daily rank IC of the signal on the test days; 0 for noise."""
        if self.kind == "noise":
            return 0.0
        rows = self.data.rows("test")
        return float(daily_rank_ic(self.signal.iloc[rows], self.data.label.iloc[rows]).mean())


def closed_form_rank_ic(snr: float) -> float:
    """Expected daily rank IC of the oracle of a normal signal, up to terms of 1 / instruments."""
    return float(6 / np.pi * np.arcsin(np.sqrt(snr / (1 + snr)) / 2))


Panel = np.ndarray
"""Shape (days, instruments, features), float64."""


def lagged(panel: Panel, feature: int, days: int) -> np.ndarray:
    """A feature `days` ago, shape (days, instruments); zero before the first day."""
    values = np.zeros(panel.shape[:2])
    values[days:] = panel[: len(panel) - days, :, feature]
    return values


def _linear(panel: Panel) -> np.ndarray:
    return panel @ np.array([(-1.0) ** k for k in range(panel.shape[2])])


def _sparse(panel: Panel) -> np.ndarray:
    return panel[:, :, 0] - panel[:, :, 1]


def _interaction(panel: Panel) -> np.ndarray:
    return panel[:, :, 0] * panel[:, :, 1]


def _threshold(panel: Panel) -> np.ndarray:
    return (np.abs(panel[:, :, 0]) > 1.0) + (np.abs(panel[:, :, 1]) > 1.0)


def _xor(panel: Panel) -> np.ndarray:
    return np.sign(panel[:, :, 0]) * np.sign(panel[:, :, 1])


def _window_sum(panel: Panel) -> np.ndarray:
    return np.sum([lagged(panel, 0, lag) for lag in range(1, HISTORY)], axis=0)


def _lag_product(panel: Panel) -> np.ndarray:
    return lagged(panel, 0, 1) * lagged(panel, 0, 3)


def _periodic(panel: Panel) -> np.ndarray:
    return np.sum([np.cos(2 * np.pi * lag / 5) * lagged(panel, 0, lag) for lag in range(1, HISTORY)], axis=0)


def _regime(panel: Panel) -> np.ndarray:
    """A linear signal that turns round after the first 15% of the days (a quarter of the training segment)."""
    turned = np.where(np.arange(len(panel)) < 0.15 * len(panel), -1.0, 1.0)
    return turned[:, None] * _linear(panel)


SIGNALS: Mapping[str, Callable[[Panel], np.ndarray]] = {
    "linear": _linear,
    "sparse": _sparse,
    "interaction": _interaction,
    "threshold": _threshold,
    "xor": _xor,
    "window_sum": _window_sum,
    "lag_product": _lag_product,
    "periodic": _periodic,
    "regime": _regime,
    "noise": lambda panel: np.zeros(panel.shape[:2]),
}


def plant(kind: str, shape: Shape | None = None, seed: int = 0) -> Planted:
    """Learning data with one kind of signal; equal arguments give equal bytes."""
    shape = shape or Shape()
    random = np.random.default_rng(seed)
    panel = random.standard_normal((shape.days, shape.instruments, shape.features))
    absent = random.random(panel.shape) < shape.missing
    # Features are independent, so that the best forecast of an absent value is its mean, zero.
    signal = SIGNALS[kind](np.where(absent, 0.0, panel))
    full = SIGNALS[kind](panel)
    spread = full[HISTORY:].std() or 1.0
    signal, full = (signal - full.mean()) / spread, (full - full.mean()) / spread
    label = VOLATILITY * (np.sqrt(shape.snr) * full + random.standard_normal(full.shape))

    calendar = pd.bdate_range("2015-01-01", periods=shape.days, name="datetime")
    names = [f"S{number:03d}" for number in range(shape.instruments)]
    index = pd.MultiIndex.from_product([calendar, names], names=["datetime", "instrument"])
    features = np.where(absent, np.nan, panel).reshape(len(index), -1).astype(np.float32)
    first, second = int(0.6 * shape.days), int(0.8 * shape.days)
    ends = {"train": (0, first - 1), "valid": (first, second - 1), "test": (second, shape.days - 1)}
    return Planted(
        kind=kind,
        data=LearningData(
            features=pd.DataFrame(features, index, [f"F{number}" for number in range(shape.features)]),
            label=pd.Series(label.ravel(), index, name="label"),
            segments={name: (calendar[a].date(), calendar[b].date()) for name, (a, b) in ends.items()},
        ),
        signal=pd.Series(signal.ravel(), index, name="signal"),
    )
