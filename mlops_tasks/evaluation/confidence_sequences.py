"""Confidence sequences: intervals that hold on all days at once, so that anybody may look whenever he likes, and stop.

- `asymptotic_sequence` needs no bound on the values. It holds from a stated first day on, as far as the long-run
  variance is known by then (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Annals of Statistics 52, 2024).
- `bernstein_sequence` and `bernstein_evidence` need bounded values, and hold for any number of days: the empirical
  Bernstein bound with a gamma-exponential mixture (Howard, Ramdas, McAuliffe and Sekhon, Annals of Statistics 49, 2021;
  Choe and Ramdas, Operations Research 72, 2024). They speak of the mean of what was to be expected on each day, given
  the days before.
- `lagged_comparison` is that comparison for values that are known h days later. Each of the h interleaved series has
  its own sequence. Their e-values may not simply be averaged for h above 1, since the average is no e-value at a day
  that was chosen by looking (erratum of Henzi and Ziegel, Biometrika 109, 2022, page 1181); here p-values and intervals
  are joined, which is right for any dependence between the series.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.evaluation.long_run import prewhitened_variances

Floats = NDArray[np.float64]

LOG_LARGEST = 600.0
"""Logarithm at which e-values are cut."""


@dataclass(frozen=True)
class Sequence:
    """Running means with bounds that hold on all days at once."""

    mean: Floats
    lower: Floats
    upper: Floats
    """All of shape (n,); NaN before the first day."""


def asymptotic_sequence(series: Floats, first_day: int, alpha: float = 0.05) -> Sequence:
    """Confidence sequence of the mean of a dependent series, from `first_day` days on.

    The radius on day t is (2 V (t r + 1) / (t^2 r) log((t r + 1)^(1/2) / alpha))^(1/2) with the prewhitened long-run
    variance V of the days so far, and r such that it is narrowest about `first_day`.

    Raises
    ------
    ValueError
        A value is not finite, or the first day is below 10.
    """
    values = _finite(series)
    if first_day < 10:
        raise ValueError(f"the first day of a confidence sequence is the tenth at least, got {first_day}")
    days = np.arange(1, len(values) + 1)
    mean = np.cumsum(values) / days
    radius = np.sqrt(prewhitened_variances(values)) * asymptotic_radius(days, first_day, alpha)
    radius[: first_day - 1] = np.nan
    return Sequence(mean, mean - radius, mean + radius)


def asymptotic_evidence(series: Floats, first_day: int, alpha: float = 0.05) -> Floats:
    """E-values against a mean of zero, of the days from `first_day` on; shape (n - first_day + 1,).

    The sequence at the level alpha excludes zero on the days on which the e-value exceeds 1 / alpha.
    """
    values = _finite(series)
    days = np.arange(first_day, len(values) + 1)
    sums, variance = np.cumsum(values)[first_day - 1 :], prewhitened_variances(values)[first_day - 1 :]
    tuning = _tuning(first_day, alpha)
    scaled = days * tuning + 1
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = sums**2 * tuning / (2 * variance * scaled) - np.log(scaled) / 2
    return np.exp(np.minimum(np.where(sums == 0, -np.log(scaled) / 2, logs), LOG_LARGEST))


def asymptotic_radius(days: NDArray[np.int64], first_day: int, alpha: float) -> Floats:
    """The radius for a long-run variance of one."""
    tuning = _tuning(first_day, alpha)
    scaled = days * tuning + 1
    return np.sqrt(2 * scaled / (days**2 * tuning) * np.log(np.sqrt(scaled) / alpha))


def _tuning(first_day: int, alpha: float) -> float:
    """Such that the sequence is narrowest on that day (Howard and others, 2021, proposition 3)."""
    from scipy.special import lambertw

    return float(-lambertw(-(alpha**2) / np.e, -1).real - 1) / first_day


@dataclass(frozen=True)
class Bernstein:
    """Parameters of the empirical Bernstein bound; they are set before the first value is seen."""

    scale: float
    """Width of the range of the values: 2 for values in [-1, 1]."""
    v_opt: float = 100.0
    """Sum of squared deviations at which the bound is tightest, in squared units of the values."""
    alpha_opt: float = 0.025
    """One-sided level for which it is tightest."""

    @property
    def rho(self) -> float:
        """Of the gamma mixture: that of the one-sided normal mixture's best tuning."""
        log = np.log(1 / (2 * self.alpha_opt))
        return float(self.v_opt / (2 * log + np.log1p(2 * log)))


def bernstein_sequence(values: Floats, alpha: float, bound: Bernstein) -> Sequence:
    """Two-sided confidence sequence of the mean of bounded values.

    Raises
    ------
    ValueError
        Values are not finite, or their range exceeds the bound's scale.
    """
    found = _bounded(values, bound)
    days = np.arange(1, len(found) + 1)
    mean = np.cumsum(found) / days
    spent = np.maximum(1.0, _intrinsic_time(found))
    radius = np.array([_mixture_bound(each, alpha / 2, bound) for each in spent]) / days
    return Sequence(mean, mean - radius, mean + radius)


def bernstein_at_end(values: Floats, alpha: float, bound: Bernstein) -> tuple[float, float, float]:
    """Mean, lower and upper bound of `bernstein_sequence` on the last day."""
    found = _bounded(values, bound)
    spent = max(1.0, float(_intrinsic_time(found)[-1]))
    mean, radius = float(found.mean()), _mixture_bound(spent, alpha / 2, bound) / len(found)
    return mean, mean - radius, mean + radius


def bernstein_evidence(values: Floats, bound: Bernstein) -> Floats:
    """E-values of each day against "the mean of what was to be expected is not above zero"; shape (n,).

    E-value k on a day is as much evidence as a bet at fair odds that has multiplied its stake by k. Whoever rejects
    where it reaches 1 / alpha, at any day, errs with a probability of at most alpha.
    """
    found = _bounded(values, bound)
    logs = gamma_exponential_log_mixture(np.cumsum(found), _intrinsic_time(found), bound)
    return np.exp(np.minimum(logs, LOG_LARGEST))


def gamma_exponential_log_mixture(sums: Floats, spent: Floats, bound: Bernstein) -> Floats:
    """Logarithm of the mixture of exponential supermartingales; Howard and others (2021), proposition 9.

    Where the sum is so negative that the mixture has no closed form there, it is bounded from above (Choe and Ramdas,
    appendix D).
    """
    from scipy.special import gammainc, gammaln

    square, rho = bound.scale**2, bound.rho
    shape, later = rho / square, (spent + rho) / square
    shift = (bound.scale * sums + spent) / square
    argument = shift + shape
    leading = shape * np.log(shape) - gammaln(shape) - np.log(gammainc(shape, shape))
    inside = np.maximum(argument, 1e-8)
    with np.errstate(divide="ignore"):
        closed = leading + gammaln(later) + np.log(gammainc(later, inside)) - later * np.log(inside) + shift
    return np.where(argument > 0, closed, leading - shape - np.log(later))


@dataclass(frozen=True)
class LaggedComparison:
    """Two forecasters whose scores are known h days after their forecasts."""

    mean: float
    lower: float
    upper: float
    """Of the mean of what was to be expected of the differences, on all days at once."""
    p_better: float
    """Valid at any day: against "not above zero"."""
    p_worse: float
    e_better: float | None
    """E-value of the last day against "not above zero"; None for h above 1."""
    e_worse: float | None
    n: int


def lagged_comparison(differences: Floats, h: int, alpha: float, bound: Bernstein) -> LaggedComparison:
    """Compare two forecasters by differences of scores, each known h days after its forecasts.

    The mean over all days is the weighted mean of those of the h interleaved series, which have a confidence sequence
    at the level alpha / h each. If it is not above zero, neither is that of one of the series at least, so the largest
    of their p-values is one of the whole.

    Raises
    ------
    ValueError
        A value is not finite or out of range, or there are fewer than h.
    """
    values = _bounded(differences, bound)
    if not 1 <= h <= len(values):
        raise ValueError(f"a lag is 1 to the number of days ({len(values)}), got {h}")
    parts = [values[start::h] for start in range(h)]
    ends = [bernstein_at_end(part, alpha / h, bound) for part in parts]
    weights = np.array([len(part) for part in parts]) / len(values)
    mean, lower, upper = (float(weights @ np.array(each)) for each in zip(*ends, strict=True))
    better, worse = ([bernstein_evidence(sign * part, bound) for part in parts] for sign in (1.0, -1.0))
    return LaggedComparison(
        mean=mean,
        lower=lower,
        upper=upper,
        p_better=max(_p_value(each) for each in better),
        p_worse=max(_p_value(each) for each in worse),
        e_better=float(better[0][-1]) if h == 1 else None,
        e_worse=float(worse[0][-1]) if h == 1 else None,
        n=len(values),
    )


def _p_value(evidence: Floats) -> float:
    """Of e-values of a series that may be stopped at any day."""
    return float(min(1.0, 1 / max(1.0, evidence.max())))


def _intrinsic_time(values: Floats) -> Floats:
    """Sum of squared deviations from the mean of the values before."""
    before = np.zeros(len(values))
    before[1:] = np.cumsum(values)[:-1] / np.arange(1, len(values))
    return np.cumsum((values - before) ** 2)


def _mixture_bound(spent: float, alpha: float, bound: Bernstein) -> float:
    """The sum at which the mixture reaches 1 / alpha."""
    from scipy.optimize import brentq

    def excess(total: float) -> float:
        logs = gamma_exponential_log_mixture(np.array([total]), np.array([spent]), bound)
        return float(logs[0]) - np.log(1 / alpha)

    high = 1.0 + np.sqrt(spent)
    while excess(high) < 0:
        high *= 2
    return float(brentq(excess, 0.0, high, xtol=1e-10))


def _bounded(values: Floats, bound: Bernstein) -> Floats:
    found = _finite(values)
    half = bound.scale / 2
    if np.abs(found).max() > half * (1 + 1e-12):
        raise ValueError(
            f"values lie in [{-half:g}, {half:g}] by the bound's scale, got {np.abs(found).max():g} in size; state the "
            "range that is possible, not the one that was seen"
        )
    return found


def _finite(values: Floats) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or len(found) < 2 or not np.isfinite(found).all():
        raise ValueError("a confidence sequence needs one series of two or more finite values; leave other days out")
    return found
