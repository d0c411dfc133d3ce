"""Is an experiment what it says: do the arms have their shares, does the effect last, does an arm act on later days?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.errors import ExperimentError
from mlops_tasks.evaluation.long_run import cosine_regression
from mlops_tasks.evaluation.significance import MeanTest
from mlops_tasks.experiments.inference.results import finite_days

Floats = NDArray[np.float64]

RATIO_LEVEL = 0.001
"""Of the check of sample ratios: it is made often, and whoever is alarmed stops an experiment."""
LEAST_EXPECTED = 5
"""Units that are expected in an arm, from which on the chi-square distribution holds."""


@dataclass(frozen=True)
class SampleRatio:
    """Counts of units against the planned shares."""

    counts: tuple[int, ...]
    expected: tuple[float, ...]
    p_value: float

    @property
    def mismatch(self) -> bool:
        """Whether the counts are not by chance what they are; nothing of the experiment may be believed then."""
        return self.p_value < RATIO_LEVEL

    def said(self) -> str:
        """One sentence for people."""
        counts = ", ".join(
            f"{count:,} of {expected:,.0f}" for count, expected in zip(self.counts, self.expected, strict=True)
        )
        if not self.mismatch:
            return f"the arms have the units that were planned ({counts} expected; p {self.p_value:.3f})"
        return (
            f"the arms do not have the units that were planned ({counts} expected; p {self.p_value:.1e}): units "
            "are lost or counted twice in one of them; find out where before reading any metric"
        )


def sample_ratio(counts: Sequence[int], shares: Sequence[float]) -> SampleRatio:
    """Chi-square test of the numbers of units against their shares (Fabijan and others, KDD 2019).

    Raises
    ------
    ExperimentError
        Shares do not sum to 1, or an arm is expected to have fewer than five units.
    """
    from scipy.special import chdtrc

    if len(counts) != len(shares) or len(counts) < 2:
        raise ExperimentError(f"{len(counts)} counts do not fit {len(shares)} shares; give one of both for each arm")
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ExperimentError(f"shares are above 0 and sum to 1, got {list(shares)}, which sum to {sum(shares):g}")
    expected = np.asarray(shares) * sum(counts)
    if expected.min() < LEAST_EXPECTED:
        raise ExperimentError(
            f"an arm should have {expected.min():.1f} of {sum(counts)} units by now; the check needs "
            f"{LEAST_EXPECTED}: wait"
        )
    statistic = float(np.sum((np.asarray(counts) - expected) ** 2 / expected))
    return SampleRatio(tuple(counts), tuple(expected.tolist()), float(chdtrc(len(counts) - 1, statistic)))


@dataclass(frozen=True)
class Check:
    """A test of something that should not be there."""

    name: str
    test: MeanTest
    """Of its size."""
    found: bool
    sentence: str


def novelty(differences: Floats, alpha: float = 0.05) -> Check:
    """Does the effect fade or grow in the course of the experiment?

    The slope of the daily differences over time, in the metric's unit per 21 market days, with the errors of
    `cosine_regression`. NaN are dropped.
    """
    values = finite_days(differences)
    time = (np.arange(len(values)) - (len(values) - 1) / 2) / 21
    test = cosine_regression(values, np.column_stack([np.ones(len(values)), time]), 1 - alpha).coefficients[1]
    found = test.p_two_sided <= alpha
    if found:
        word = "fades" if test.mean * values.mean() < 0 else "grows"
        sentence = (
            f"the effect {word}: it changes by {test.mean:+.4g} a month (p {test.p_two_sided:.3f}), so its mean so far "
            "is not what it will be; judge it by the newest weeks, in a new experiment"
        )
    else:
        sentence = f"no change of the effect over time can be told from luck ({test.mean:+.4g} a month)"
    return Check("novelty", test, found, sentence)


def carry_over(series: Floats, treated: NDArray[np.bool_], alpha: float = 0.05) -> Check:
    """Does the arm of the day before act on a day, where arms are switched by days?

    Least squares of the metric on the arms of the day and of the day before. Which of two successive days counts how
    much is seen only where both change: with blocks, at their first days.

    Raises
    ------
    ExperimentError
        A value is missing, shapes do not fit, or arms never change.
    """
    values, arms = np.asarray(series, dtype=np.float64), np.asarray(treated, dtype=np.float64)
    if values.shape != arms.shape or not np.isfinite(values).all():
        raise ExperimentError(
            f"{values.shape} values and {arms.shape} arms: give one finite value and one arm for each day"
        )
    regressors = np.column_stack([np.ones(len(values) - 1), arms[1:], arms[:-1]])
    try:
        test = cosine_regression(values[1:], regressors, 1 - alpha).coefficients[2]
    except ValueError as error:
        raise ExperimentError(f"carry-over is not seen on these days: {error}") from error
    found = test.p_two_sided <= alpha
    sentence = (
        f"the arm of the day before acts on a day by {test.mean:+.4g} (p {test.p_two_sided:.3f}): use blocks of days "
        "and leave out their first ones"
        if found
        else f"no effect of the day before's arm can be told from luck ({test.mean:+.4g})"
    )
    return Check("carry_over", test, found, sentence)
