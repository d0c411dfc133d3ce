"""Is a daily mean different from zero? Robust to the autocorrelation of daily series.

Daily differences of ICs are autocorrelated (labels overlap, models change slowly); a plain t-test then sees gains that
are none. The variance of the mean is Newey and West's (Econometrica 55, 1987) with Bartlett weights.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MeanTest:
    """The mean of a daily series, its robust standard error, and tests of mean = 0."""

    mean: float
    standard_error: float
    t: float
    p_one_sided: float
    """Against mean > 0."""
    p_two_sided: float
    lower: float
    upper: float
    """Bounds of the two-sided confidence interval."""
    confidence: float
    n: int
    lag: int
    degrees_of_freedom: float

    def lower_bound(self, alpha: float) -> float:
        """One-sided lower confidence bound of the mean at level 1 - alpha."""
        from scipy.stats import t as student

        return self.mean - float(student.ppf(1 - alpha, self.degrees_of_freedom)) * self.standard_error

    def widened(self, parts: Sequence[tuple[float, float]]) -> "MeanTest":
        """The same test when the mean has further, independent sources of variance.

        `parts` are variances with their degrees of freedom; the sum's follow Welch and Satterthwaite (Biometrics
        Bulletin 2, 1946).
        """
        from scipy.stats import t as student

        terms = [(self.standard_error**2, self.degrees_of_freedom), *parts]
        variance = sum(value for value, _ in terms)
        if variance == self.standard_error**2:
            return self
        degrees = variance**2 / sum(value**2 / own for value, own in terms)
        error = float(np.sqrt(variance))
        half = float(student.ppf(0.5 + self.confidence / 2, degrees)) * error
        t = self.mean / error
        return replace(
            self,
            standard_error=error,
            t=t,
            p_one_sided=float(student.sf(t, degrees)),
            p_two_sided=float(2 * student.sf(abs(t), degrees)),
            lower=self.mean - half,
            upper=self.mean + half,
            degrees_of_freedom=degrees,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite t (a series without variance) becomes None."""
        return {name: (value if np.isfinite(value) else None) for name, value in asdict(self).items()}


def newey_west_mean(series: pd.Series | Floats, lag: int | None = None, confidence: float = 0.95) -> MeanTest:
    """Test the mean of a daily series against zero.

    The standard error equals statsmodels' `OLS(y, 1).fit(cov_type="HAC", use_correction=True)` at the same lag.
    p-values and bounds come from Student's t with 1.5 n / (lag + 1) degrees of freedom (n - 1 at most), the equivalent
    number of independent terms of a Bartlett-weighted spectral estimate (Priestley, Spectral Analysis, 1981, section
    6.2.4): with a long lag the standard error is itself uncertain, and the normal distribution promises too much.

    Parameters
    ----------
    series
        n daily values in time order, any unit. NaN are dropped.
    lag
        Largest lag in days; None: `automatic_lag`.
    confidence
        Level of the two-sided interval.

    Raises
    ------
    ValueError
        Fewer than two finite values, a lag that is negative or not below n, or an infinite value.
    """
    from scipy.stats import t as student

    values = np.asarray(series, dtype=np.float64)
    values = values[~np.isnan(values)]
    n = len(values)
    if n < 2:
        raise ValueError(f"a test of a mean needs two or more days with values, got {n}")
    if np.isinf(values).any():
        raise ValueError("the series holds infinite values; find out why before testing its mean")
    lag = automatic_lag(values) if lag is None else lag
    if not 0 <= lag < n:
        raise ValueError(f"lag must be 0 to {n - 1} for {n} days, got {lag}")
    mean = float(values.mean())
    error = float(np.sqrt(_long_run_variance(values - mean, lag) / (n - 1)))
    degrees = min(float(n - 1), max(1.0, 1.5 * n / (lag + 1)))
    t = mean / error if error > 0 else _limit(mean)
    half = float(student.ppf(0.5 + confidence / 2, degrees)) * error
    return MeanTest(
        mean=mean,
        standard_error=error,
        t=t,
        p_one_sided=float(student.sf(t, degrees)),
        p_two_sided=float(2 * student.sf(abs(t), degrees)),
        lower=mean - half,
        upper=mean + half,
        confidence=confidence,
        n=n,
        lag=lag,
        degrees_of_freedom=degrees,
    )


def automatic_lag(values: Floats) -> int:
    """Lag for a series without NaN: the larger of two rules, n / 3 at most.

    Andrews' plug-in for an AR(1) and Bartlett weights (Econometrica 59, 1991, equation 6.4) follows the series' own
    memory; Newey and West's 4 (n / 100)^(2/9) is the floor that keeps short moving averages covered.
    """
    n = len(values)
    rule = int(4 * (n / 100) ** (2 / 9))
    return max(0, min(max(rule, _andrews_lag(values)), n // 3))


def _andrews_lag(values: Floats) -> int:
    centred = values - values.mean()
    power = float(centred @ centred)
    if power <= 0:
        return 0
    # Near 1 the formula's lag exceeds every series; Andrews bounds it too.
    rho = min(0.97, max(-0.97, float(centred[1:] @ centred[:-1]) / power))
    memory = 4 * rho**2 / ((1 - rho) ** 2 * (1 + rho) ** 2)
    return int(np.ceil(1.1447 * (memory * len(values)) ** (1 / 3)))


def _long_run_variance(centred: Floats, lag: int) -> float:
    """Bartlett-weighted sum of autocovariances; never negative but for rounding."""
    n = len(centred)
    total = float(centred @ centred)
    for k in range(1, lag + 1):
        total += 2 * (1 - k / (lag + 1)) * float(centred[k:] @ centred[:-k])
    return max(0.0, total / n)


def _limit(mean: float) -> float:
    """t of a series without variance: infinite with the sign of its mean, 0 for a series of zeros."""
    return float(np.copysign(np.inf, mean)) if mean != 0 else 0.0
