"""Searches made of numbers: daily rank ICs of trials that share days."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.signal import lfilter

DAYS = pd.bdate_range("2021-01-04", periods=1000, name="datetime")


@dataclass(frozen=True)
class Search:
    """Trials whose daily rank ICs have a common part, an AR(1) memory and a standard deviation of 0.1."""

    trials: int = 30
    days: int = 200
    correlation: float = 0.5
    memory: float = 0.0
    skill: float | np.ndarray = 0.0
    """Mean daily rank IC of each trial."""

    def draw(self, seed: int) -> pd.DataFrame:
        """Days x trials."""
        random = np.random.default_rng(seed)
        shape = (self.days + 100, self.trials)
        common = random.normal(size=(self.days + 100, 1))
        shocks = np.sqrt(self.correlation) * common + np.sqrt(1 - self.correlation) * random.normal(size=shape)
        series = lfilter([np.sqrt(1 - self.memory**2)], [1.0, -self.memory], shocks, axis=0)[100:]
        return pd.DataFrame(0.1 * series + self.skill, DAYS[: self.days])


def best_of(trials: pd.DataFrame) -> pd.Series:
    """The column with the highest mean."""
    return trials.iloc[:, int(trials.mean().to_numpy().argmax())]
