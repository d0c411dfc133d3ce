"""Is an experiment what it says: do the arms have their shares, does the effect last, does an arm act on later days?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.errors import ExperimentError
from mlops_tasks.evaluation.long_run import cosine_regression, honest_terms
from mlops_tasks.evaluation.significance import MeanTest, cosine_basis, cosine_mean
from mlops_tasks.experiments.inference.results import finite_days

Floats = NDArray[np.float64]

RATIO_LEVEL = 0.001
"""Of the check of sample ratios, over all days together: whoever is alarmed stops an experiment."""
PRIOR_UNITS = (10.0, 100.0, 1000.0)
"""Weights of the planned shares against others in the check, averaged: each sees the smallest deviations soonest near
its number of units."""


@dataclass(frozen=True)
class SampleRatio:
    """Counts of units against the planned shares."""

    counts: tuple[int, ...]
    expected: tuple[float, ...]
    p_value: float
    """It may be looked at every day: with the planned shares it ever falls below a level with that probability."""

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
    """Test the numbers of units against their shares, at any day and as often as one likes.

    The p-value is the inverse of the mean Bayes factor of Dirichlet distributions around the shares against the shares
    (Lindon and Malek, Anytime-valid inference for multinomial count data, NeurIPS 2022), 1 at most. The usual
    chi-square test, looked at every day of a year, falls below 0.001 in 1% to 2% of sound experiments.

    Raises
    ------
    ExperimentError
        Shares do not sum to 1, or there is no unit yet.
    """
    if len(counts) != len(shares) or len(counts) < 2:
        raise ExperimentError(f"{len(counts)} counts do not fit {len(shares)} shares; give one of both for each arm")
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ExperimentError(f"shares are above 0 and sum to 1, got {list(shares)}, which sum to {sum(shares):g}")
    total = sum(counts)
    if total == 0:
        raise ExperimentError("no unit has an event yet, so there is nothing to check: wait")
    seen, share = np.asarray(counts, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    log_factor = float(_log_factor(seen[:, None], share)[0])
    return SampleRatio(tuple(counts), tuple((share * total).tolist()), float(np.exp(min(0.0, -log_factor))))


def ratio_band(units: Floats, share: float) -> Floats:
    """By how much an arm's share of so many units may exceed its planned share before the check of two arms objects.

    Returns
    -------
    Shape of `units`; what is left of all units (1 - `share`) where even all of them would be no mismatch.
    """
    low, high = units * share, units * 1.0
    for _ in range(60):
        middle = (low + high) / 2
        mismatch = _log_factor(np.stack([middle, units - middle]), np.array([share, 1 - share])) > -np.log(RATIO_LEVEL)
        low, high = np.where(mismatch, low, middle), np.where(mismatch, middle, high)
    return high / np.maximum(units, 1.0) - share


def _log_factor(seen: Floats, share: Floats) -> Floats:
    """Logarithm of the mean Bayes factor against the shares, of counts of shape (arms, days)."""
    from scipy.special import gammaln, logsumexp

    total, factors = seen.sum(axis=0), []
    for units in PRIOR_UNITS:
        prior = units * share[:, None]
        parts = gammaln(prior + seen) - gammaln(prior) - seen * np.log(share[:, None])
        factors.append(gammaln(units) - gammaln(units + total) + parts.sum(axis=0))
    mean: Floats = logsumexp(factors, axis=0) - np.log(len(factors))
    return mean


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

    The slope of the daily differences over time, in the metric's unit per 21 market days. Its error is from cosine
    terms that are made orthogonal to the line, so that Student's t is exact for independent normal days. NaN are
    dropped.
    """
    values = finite_days(differences)
    n = len(values)
    terms = honest_terms(n)
    time = (np.arange(n) - (n - 1) / 2) / 21
    basis = np.linalg.qr(np.column_stack([np.ones(n), time, cosine_basis(n, terms + 1).T]))[0][:, 2 : 2 + terms]
    power = float(time @ time)
    slope, error = float(time @ values) / power, float(np.sqrt(np.mean((values @ basis) ** 2) / power))
    test = replace(cosine_mean(values, 1 - alpha, terms=terms), mean=slope).with_error(error, terms)
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
