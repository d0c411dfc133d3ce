"""Panels without skill or with little, and what ridge regressions make of them out of fold, on the product's splits.

A ridge regression over days is a sum of their moments, so a fold costs one small system of equations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.evaluation.splits import CombinatorialPurged, Gap, WalkForward

Floats = NDArray[np.float64]

SPLITTERS: dict[str, CombinatorialPurged | WalkForward] = {
    "6 groups, 2 tested": CombinatorialPurged(6, 2, 19, Gap(1, 5)),
    "10 groups, 1 tested": CombinatorialPurged(10, 1, 19, Gap(1, 5)),
    "4 groups, 1 tested": CombinatorialPurged(4, 1, 0, Gap(1)),
    "walk-forward": WalkForward(96, 24, 19, gap=Gap(1, 5)),
}
PENALTY = 0.01


@dataclass(frozen=True)
class Panels:
    """Independent standard normal labels, and features of which one day remembers the day before."""

    days: int = 240
    instruments: int = 40
    features: int = 12
    memory: float = 0.0
    """Autocorrelation of the features over days."""
    snr: float = 0.0
    """Variance of a linear signal in the labels, over that of their noise."""

    def daily(self, splitters: Sequence[CombinatorialPurged | WalkForward], seed: int) -> list[Floats]:
        """For each splitter, the mean over the splits that test a day of its out-of-fold rank IC, by tested day."""
        random = np.random.default_rng(seed)
        x = random.standard_normal((self.days, self.instruments, self.features))
        for day in range(1, self.days) if self.memory else ():
            x[day] = self.memory * x[day - 1] + np.sqrt(1 - self.memory**2) * x[day]
        signal = x.mean(axis=2) * np.sqrt(self.features)
        y = _ranks(np.sqrt(self.snr) * signal + random.standard_normal(signal.shape))
        grams, moments = x.transpose(0, 2, 1) @ x, np.einsum("tnp,tn->tp", x, y)
        return [self._out_of_fold(splitter, x, y, grams, moments) for splitter in splitters]

    def _out_of_fold(
        self, splitter: CombinatorialPurged | WalkForward, x: Floats, y: Floats, grams: Floats, moments: Floats
    ) -> Floats:
        total, count = np.zeros(self.days), np.zeros(self.days)
        for split in splitter.splits(self.days):
            ridge = PENALTY * len(split.train) * self.instruments * np.eye(self.features)
            weights = np.linalg.solve(grams[split.train].sum(axis=0) + ridge, moments[split.train].sum(axis=0))
            total[split.test] += (_ranks(x[split.test] @ weights) * y[split.test]).mean(axis=1)
            count[split.test] += 1
        return total[count > 0] / count[count > 0]


def _ranks(values: Floats) -> Floats:
    """Ranks within each row, of mean 0 and variance 1, so that the mean product of two rows is their rank IC."""
    ranks = values.argsort(axis=1).argsort(axis=1).astype(np.float64)
    ranks -= ranks.mean(axis=1, keepdims=True)
    scaled: Floats = ranks / ranks.std(axis=1, keepdims=True)
    return scaled
