"""What the best of many trials is worth when the luck of the search is taken out of its result.

Whoever tries a hundred configurations without skill finds one that looks skilled. There are two measures of this, both
from the trials' daily performance on the days on which they were compared (here: rank ICs of the validation segment,
whose mean over standard deviation, the rank ICIR, is a Sharpe ratio of ordering; nothing below depends on what the
daily numbers are):

- The deflated Sharpe ratio (Bailey and Lopez de Prado, The Deflated Sharpe Ratio, Journal of Portfolio Management 40,
  2014): the probability that the chosen trial's true ratio is above zero, when the best of so many trials without
  skill is expected to reach `expected_maximum` by luck. Their standard error of a Sharpe ratio allows for skewness and
  kurtosis; ours, by the same influence function, also for autocorrelation (`significance.cosine_mean`), and equals
  theirs with all cosine terms.
- The probability of backtest overfitting by combinatorially symmetric cross-validation (Bailey, Borwein, Lopez de Prado
  and Zhu, The Probability of Backtest Overfitting, Journal of Computational Finance 20, 2017): how often the best trial
  of one half of the days is below the median of all trials on the other half. Truly bad trials lower the median, and
  with enough of them the best trial by pure luck is always above it. So the paper's probability of loss is used too:
  how often the best trial of one half is below zero on the other. Trials that are never the best do not change it.

**Number of trials.** All trials that were run count, including pruned ones. Trials of one search are alike, so they are
worth fewer independent ones: mean correlation + (1 - mean correlation) x trials, the estimator of the first paper's
appendix. It gives the true number when trials are independent and 1 when they are the same. When they come in clusters,
it errs upwards, towards refusal.

**Size of luck.** The larger of two variances: that of the trials' ratios, as in the paper, and the sampling variance of
the chosen trial's own ratio, below which luck cannot be. For independent trials without skill both are the same. In a
search the first one is not only luck: a learning rate that is too high is truly bad, and would make every other trial
look lucky. So it is measured on the better half of the trials, about their median. For ratios that are distributed
symmetrically, as luck is, this is the variance.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.files import finite_or_none

Floats = NDArray[np.float64]

PARTITIONS = 16
"""Blocks of days, the paper's choice: 12,870 ways to take half of them."""
MIN_PARTITIONS = 4
MIN_BLOCK_DAYS = 5
MIN_DAYS = 3
"""Fewer days give no meaningful skewness."""
MIN_COVERAGE = 0.9
"""Trials that have a value on a smaller share of the days are counted, but not compared day by day."""
_CHUNK = 2000
"""Combinations that are evaluated at once."""


@dataclass(frozen=True)
class DeflatedSharpeRatio:
    """The chosen trial's ratio of mean to standard deviation (daily, not annualised), and how much luck explains."""

    sharpe: float
    standard_error: float
    """Robust to skewness, kurtosis and autocorrelation."""
    skewness: float
    kurtosis: float
    """3 for a normal distribution."""
    n_days: int
    degrees_of_freedom: float
    """Of the standard error."""
    trials: int
    effective_trials: float
    trials_deviation: float
    """Standard deviation of the ratios of the better half of the trials; 0: not given."""
    expected_maximum: float
    """The ratio that the best of `effective_trials` independent trials without skill is expected to reach."""
    probability: float
    """That the true ratio exceeds `expected_maximum`: the deflated Sharpe ratio. NaN for a series without variance."""


@dataclass(frozen=True)
class Overfitting:
    """Result of the combinatorially symmetric cross-validation; c combinations of blocks."""

    probability: float
    """Share of combinations in which the best trial in-sample is below the median out-of-sample; a trial exactly at the
    median counts half."""
    logits: Floats
    """Shape (c,): log of the odds of the best trial's relative rank out-of-sample; negative is below the median."""
    in_sample: Floats
    out_of_sample: Floats
    """Shape (c,): the best trial's ratio on both halves."""
    loss_probability: float
    """Share of combinations in which the best trial in-sample has a ratio below zero out-of-sample."""
    partitions: int


@dataclass(frozen=True)
class SearchEvidence:
    """The evidence about a model that was chosen from trials."""

    deflated: DeflatedSharpeRatio
    overfitting_probability: float | None
    """None: a single trial, or too few days for `MIN_PARTITIONS` blocks."""
    loss_probability: float | None
    """`Overfitting.loss_probability`; None as above."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; numbers that are not finite become None."""
        deflated = asdict(self.deflated)
        deflated["deflated_sharpe_ratio"] = deflated.pop("probability")
        numbers = {name: finite_or_none(value) for name, value in deflated.items()}
        counts = {name: deflated[name] for name in ("n_days", "trials")}
        names = ("overfitting_probability", "loss_probability")
        return {**numbers, **counts, **{name: finite_or_none(getattr(self, name)) for name in names}}


def search_evidence(chosen: pd.Series, trials: pd.DataFrame, n_trials: int, horizon: int = 1) -> SearchEvidence:
    """Judge a model by the trials that it was chosen from.

    Parameters
    ----------
    chosen
        Daily performance of the chosen model by datetime; days on which no trial has a value are left out.
    trials
        Days x trials, the daily performance of those that have one; a trial needs a value on `MIN_COVERAGE` of the
        days on which any trial has one.
    n_trials
        How many were run in all, including those without a series.
    horizon
        Of the labels, in trading days: this many days plus one are left out between blocks, so that no label belongs
        to both halves.

    For the chosen model and the trials, a day without a value counts as 0: scores that are all the same order nothing.
    """
    compared = trials.dropna(how="all")
    known = compared.loc[:, compared.notna().mean() >= MIN_COVERAGE].fillna(0.0)
    own = chosen.reindex(chosen.index.intersection(known.index)).fillna(0.0)
    spread = trials_variance(_ratios(known.to_numpy(np.float64)))
    deflated = deflated_sharpe_ratio(own.to_numpy(np.float64), n_trials, mean_correlation(known), spread)
    partitions = usable_partitions(len(known), purge_days=horizon + 1)
    if known.shape[1] < 2 or partitions < MIN_PARTITIONS:
        return SearchEvidence(deflated, None, None)
    found = overfitting(known.to_numpy(np.float64), partitions, purge_days=horizon + 1)
    return SearchEvidence(deflated, found.probability, found.loss_probability)


def deflated_sharpe_ratio(
    chosen: Floats, n_trials: int, correlation: float = 0.0, variance: float = 0.0, terms: int | None = None
) -> DeflatedSharpeRatio:
    """Deflate the chosen trial's ratio by the expected maximum of this many trials without skill.

    Parameters
    ----------
    chosen
        Shape (n,), daily performance in time order, without NaN.
    n_trials, correlation
        Trials that were run, and the mean correlation between their daily performances.
    variance
        Of the trials' ratios, daily; the sampling variance counts if it is larger.
    terms
        Cosine terms of the robust variance; None: the rule of `significance.cosine_mean`. With one term less than days,
        this is the paper's formula.

    Raises
    ------
    ValueError
        Fewer than three days, fewer than one trial, or a negative variance.
    """
    from scipy.special import stdtr

    if len(chosen) < MIN_DAYS:
        raise ValueError(f"a deflated Sharpe ratio needs {MIN_DAYS} or more days with values, got {len(chosen)}")
    if not variance >= 0:
        raise ValueError(f"the variance of the trials' ratios is 0 or more, got {variance}")
    effective, deviation = effective_trials(n_trials, correlation), float(np.sqrt(variance))
    n, spread = len(chosen), float(chosen.std(ddof=1))
    if spread <= 1e-12 * float(np.abs(chosen).max()):
        nan = float("nan")
        return DeflatedSharpeRatio(nan, nan, nan, nan, n, nan, n_trials, effective, deviation, nan, nan)
    sharpe = float(chosen.mean()) / spread
    standard = (chosen - chosen.mean()) / chosen.std()
    # The mean of these is the ratio, and their variance the delta method's variance of its estimate (Mertens, 2002).
    daily = sharpe + standard - sharpe / 2 * (standard**2 - 1)
    test = cosine_mean(daily, terms=terms)
    expected = max(test.standard_error, deviation) * expected_maximum(effective)
    return DeflatedSharpeRatio(
        sharpe=sharpe,
        standard_error=test.standard_error,
        skewness=float(np.mean(standard**3)),
        kurtosis=float(np.mean(standard**4)),
        n_days=n,
        degrees_of_freedom=test.degrees_of_freedom,
        trials=n_trials,
        effective_trials=effective,
        trials_deviation=deviation,
        expected_maximum=expected,
        probability=float(stdtr(test.degrees_of_freedom, (sharpe - expected) / test.standard_error)),
    )


def expected_maximum(n: float) -> float:
    """Expected maximum of n independent standard normal values, n >= 1 (not only whole numbers).

    The approximation of the paper, (1 - g) Z(1 - 1/n) + g Z(1 - 1/(n e)), with the Euler-Mascheroni constant g and the
    normal quantile Z, within 0.05 of the truth from n = 2 on; between 1, where the truth is 0, and 2 it is a line.
    """
    from scipy.special import ndtri

    if n < 2:
        return (n - 1) * expected_maximum(2)
    return float((1 - np.euler_gamma) * ndtri(1 - 1 / n) + np.euler_gamma * ndtri(1 - 1 / (n * np.e)))


def effective_trials(n_trials: int, correlation: float) -> float:
    """Number of independent trials that `n_trials` with this mean correlation are worth; see the module's docstring."""
    if n_trials < 1:
        raise ValueError(f"a model is chosen among one trial or more, got {n_trials}")
    correlation = min(1.0, max(0.0, correlation))
    return correlation + (1 - correlation) * n_trials


def mean_correlation(trials: pd.DataFrame) -> float:
    """Mean of the pairwise correlations of the columns; those without variance and pairs with them are left out.

    0 when there is no pair.
    """
    values = trials.to_numpy(np.float64)
    if len(values) < 2:
        return 0.0
    values = values[:, values.std(axis=0) > 0]
    count = values.shape[1]
    if count < 2:
        return 0.0
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    total = float(np.square(standard.sum(axis=1)).mean())  # the sum over the whole correlation matrix
    return (total - count) / (count * (count - 1))


def trials_variance(ratios: Floats) -> float:
    """Variance of trials' ratios, shape (trials,), which truly bad trials do not raise while they are fewer than half.

    It is the mean squared distance of the better half from the median (for an even number, from the higher of the two
    in the middle), and 0 for fewer than three trials. NaN, of a trial without variance, is left out.
    """
    known = np.sort(ratios[np.isfinite(ratios)])
    if len(known) < 3:
        return 0.0
    better = known[len(known) // 2 :]
    return float(np.square(better[1:] - better[0]).mean())


def _ratios(performance: Floats) -> Floats:
    """Mean over standard deviation of each column; NaN without variance."""
    spread = performance.std(axis=0, ddof=1)
    ratios: Floats = performance.mean(axis=0) / np.where(spread > 0, spread, np.nan)
    return ratios


def usable_partitions(n_days: int, purge_days: int = 0) -> int:
    """An even number of blocks that leaves `MIN_BLOCK_DAYS` in each after purging; at most `PARTITIONS`."""
    return min(PARTITIONS, n_days // (MIN_BLOCK_DAYS + purge_days) // 2 * 2)


def overfitting(performance: Floats, partitions: int = PARTITIONS, purge_days: int = 0) -> Overfitting:
    """Combinatorially symmetric cross-validation of a search.

    Parameters
    ----------
    performance
        Shape (days, trials), in time order, finite.
    partitions
        Even number of blocks of successive days.
    purge_days
        Days left out at the beginning of each block except the first.

    Raises
    ------
    ValueError
        Fewer than two trials, an odd number of partitions, a block of fewer than two days, or a value that is not
        finite.
    """
    days, count = performance.shape
    if count < 2 or partitions < 2 or partitions % 2 or days // partitions - purge_days < 2:
        raise ValueError(
            f"overfitting of {count} trials over {days} days in {partitions} blocks less {purge_days} days cannot be "
            "measured; give two trials or more and an even number of blocks of two days or more"
        )
    if not np.isfinite(performance).all():
        raise ValueError("the performance holds values that are not finite; give 0 where a trial has none")
    blocks = np.array_split(performance - performance.mean(axis=0), partitions)
    blocks = [block if i == 0 else block[purge_days:] for i, block in enumerate(blocks)]
    sums = np.stack([np.stack([np.full(count, len(b)), b.sum(axis=0), np.square(b).sum(axis=0)]) for b in blocks])
    centre, total = performance.mean(axis=0), sums.sum(axis=0)
    found = []
    for chosen in _halves(partitions):
        inside = np.tensordot(chosen, sums, axes=1)
        found.append(_best_of_half(_ratio(inside, centre), _ratio(total - inside, centre)))
    in_sample, out_of_sample, share = (np.concatenate(each) for each in zip(*found, strict=True))
    logits = np.log(share / (1 - share))
    return Overfitting(
        probability=float((share < 0.5).mean() + 0.5 * (share == 0.5).mean()),
        logits=logits,
        in_sample=in_sample,
        out_of_sample=out_of_sample,
        loss_probability=float((out_of_sample < 0).mean()),
        partitions=partitions,
    )


def _halves(partitions: int) -> Iterator[Floats]:
    """All ways to choose half of the blocks, as indicator rows, in chunks."""
    ways = np.array(list(combinations(range(partitions), partitions // 2)))
    for start in range(0, len(ways), _CHUNK):
        part = ways[start : start + _CHUNK]
        indicator = np.zeros((len(part), partitions))
        np.put_along_axis(indicator, part, 1.0, axis=1)
        yield indicator


def _ratio(sums: Floats, centre: Floats) -> Floats:
    """Mean over deviation from count, sum and sum of squares about `centre`, (ways, 3, trials); 0 without spread."""
    count, first, second = sums[:, 0], sums[:, 1], sums[:, 2]
    mean = first / count
    variance = second / count - mean**2
    spread = np.sqrt(np.where(variance > 1e-14 * (1e-300 + centre**2 + second / count), variance, np.inf))
    return (mean + centre) / spread


def _best_of_half(inside: Floats, outside: Floats) -> tuple[Floats, Floats, Floats]:
    """The best trial's ratio inside and outside, and its relative rank outside, in (0, 1); each of shape (ways,)."""
    best = inside.argmax(axis=1)[:, None]
    chosen = np.take_along_axis(outside, best, axis=1)
    below, equal = (outside < chosen).sum(axis=1), (outside == chosen).sum(axis=1)
    rank = below + (equal + 1) / 2
    return np.take_along_axis(inside, best, axis=1)[:, 0], chosen[:, 0], rank / (inside.shape[1] + 1)
