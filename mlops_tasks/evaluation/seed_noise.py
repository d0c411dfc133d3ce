"""Seed noise: how much a result changes when nothing but the random seed does.

Two trainings of one configuration that differ only in the seed are equally good; the difference between them is not a
gain (Bouthillier and others, Accounting for Variance in Machine Learning Benchmarks, MLSys 2021). A band comes from
several seeds of the same configuration on the same data; differences are judged by Welch's test (Biometrika 34, 1947).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlops_tasks.files import digest_of
from mlops_tasks.training_folder import TrainingManifest

GATED_METRIC = "test_rank_ic_mean"
"""The metric whose seed noise the gate uses."""


@dataclass(frozen=True)
class SeedBand:
    """Mean and spread of a metric over n seeds, and the interval in which the mean over all seeds lies."""

    mean: float
    standard_deviation: float
    """Between seeds (ddof=1); NaN for one seed."""
    lower: float
    upper: float
    """Student's t interval of the mean; NaN for one seed."""
    n: int
    confidence: float

    @property
    def variance(self) -> float:
        """Of one seed's result."""
        return self.standard_deviation**2

    @property
    def degrees_of_freedom(self) -> float:
        """Of the variance."""
        return self.n - 1.0


@dataclass(frozen=True)
class SeedDifference:
    """Difference of two configurations' means over their seeds."""

    difference: float
    standard_error: float
    lower: float
    upper: float
    """Welch's interval; equal to the difference where neither configuration depends on its seed."""
    p_two_sided: float
    rounding: float
    """Differences up to this count as none."""

    @property
    def beyond_noise(self) -> bool:
        """Whether the difference is more than the seeds explain."""
        return self.lower > self.rounding or self.upper < -self.rounding


def seed_band(values: Sequence[float], confidence: float = 0.95) -> SeedBand:
    """Band of a metric from one value per seed.

    Raises
    ------
    ValueError
        There is no value, or one is not finite.
    """
    from scipy.special import stdtrit

    found = _finite(values)
    n, mean = len(found), float(found.mean())
    if n == 1:
        nan = float("nan")
        return SeedBand(mean, nan, nan, nan, n, confidence)
    deviation = float(found.std(ddof=1))
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * deviation / np.sqrt(n)
    return SeedBand(mean, deviation, mean - half, mean + half, n, confidence)


def seed_difference(
    ours: Sequence[float], theirs: Sequence[float], confidence: float = 0.95, rounding: float = 0.0
) -> SeedDifference:
    """Welch's test of two configurations' means over their seeds, ours minus theirs.

    Raises
    ------
    ValueError
        A side has fewer than two seeds, or a value is not finite.
    """
    from scipy.special import stdtr, stdtrit

    sides = [_finite(ours), _finite(theirs)]
    if min(map(len, sides)) < 2:
        raise ValueError(f"seed noise needs two seeds or more on both sides, got {len(ours)} and {len(theirs)}")
    difference = float(sides[0].mean() - sides[1].mean())
    variances = [float(side.var(ddof=1)) / len(side) for side in sides]
    error = float(np.sqrt(sum(variances)))
    if error == 0:
        p_value = 1.0 if difference == 0 else 0.0
        return SeedDifference(difference, 0.0, difference, difference, p_value, rounding)
    terms = [variance**2 / (len(side) - 1) for variance, side in zip(variances, sides, strict=True)]
    degrees = sum(variances) ** 2 / sum(terms)
    half = float(stdtrit(degrees, 0.5 + confidence / 2)) * error
    p_value = float(2 * stdtr(degrees, -abs(difference) / error))
    return SeedDifference(difference, error, difference - half, difference + half, p_value, rounding)


def configuration_key(trained: TrainingManifest) -> str:
    """Identifies what a training learns with and from, without its seed and its dates."""
    config = {name: value for name, value in trained.model_config.items() if name != "seed"}
    return digest_of({"model_config": config, "feature_set": trained.feature_set, "horizon": trained.horizon})


def _finite(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    found = np.asarray(values, dtype=np.float64)
    if len(found) == 0 or not np.isfinite(found).all():
        raise ValueError(f"seed noise needs finite values, got {list(values)}; leave seeds without a result out")
    return found
