"""Is a daily mean different from zero? Robust to the autocorrelation of daily series.

Daily differences of ICs are autocorrelated (labels overlap, models change slowly); a plain t-test then sees gains where
there are none. `cosine_mean` is the test: the equal-weighted cosine estimator of the long-run variance with few terms,
and Student's t with as many degrees of freedom (Mueller, Journal of Econometrics 141, 2007; Lazarus, Lewis, Stock and
Watson, Journal of Business & Economic Statistics 36, 2018). Sums of weighted autocovariances (Newey and West,
Econometrica 55, 1987) have more power, but exceed their nominal level when the persistence is as high as 0.7.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAX_TERMS = 8
"""Number of cosine terms for a long series: so few keep the test at its nominal level at a persistence of 0.7."""


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
    degrees_of_freedom: float

    def lower_bound(self, alpha: float) -> float:
        """One-sided lower confidence bound of the mean at level 1 - alpha."""
        from scipy.special import stdtrit

        return self.mean - float(stdtrit(self.degrees_of_freedom, 1 - alpha)) * self.standard_error

    def widened(self, parts: Sequence[tuple[float, float]]) -> "MeanTest":
        """The same test when the mean has further, independent sources of variance.

        `parts` are variances with their degrees of freedom; those of the sum follow from Welch and Satterthwaite
        (Biometrics Bulletin 2, 1946).
        """
        terms = [(self.standard_error**2, self.degrees_of_freedom), *parts]
        variance = sum(value for value, _ in terms)
        if variance == self.standard_error**2:
            return self
        degrees = variance**2 / sum(value**2 / own for value, own in terms)
        return self.with_error(float(np.sqrt(variance)), degrees)

    def with_error(self, standard_error: float, degrees_of_freedom: float) -> "MeanTest":
        """The test of the same mean with another standard error."""
        return _mean_test(self.mean, standard_error, self.n, degrees_of_freedom, self.confidence)

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite t (a series without variance) becomes None."""
        return {name: (value if np.isfinite(value) else None) for name, value in asdict(self).items()}


def cosine_mean(series: pd.Series | Floats, confidence: float = 0.95, terms: int | None = None) -> MeanTest:
    """Test the mean of a daily series against zero.

    With the cosine transforms L_j = sqrt(2 / n) sum_t cos(pi j (t - 1/2) / n) y_t, j = 1 to B, the long-run variance is
    estimated by the mean of L_j^2, and the mean over its standard error follows Student's t with B degrees of freedom.
    B is 8, or fewer for a series of less than 90 days: 0.4 n^(2/3), the rule of Lazarus, Lewis, Stock and Watson, but
    at least one. Few terms capture only the slow movements of the series, so its memory may be long.

    Parameters
    ----------
    series
        n daily values in time order, any unit. NaN are dropped.
    confidence
        Level of the two-sided interval.
    terms
        B; None: by that rule. With n - 1, which is the most, it is Student's test of independent observations.

    Raises
    ------
    ValueError
        There are fewer than two values, one is infinite, or the number of terms is not between 1 and n - 1.
    """
    values = _known(series)
    n, mean = len(values), float(values.mean())
    terms = cosine_terms(n) if terms is None else terms
    if not 1 <= terms < n:
        raise ValueError(f"{n} days allow 1 to {n - 1} cosine terms, got {terms}")
    centred = values - mean if np.ptp(values) > 0 else np.zeros(n)
    error = float(np.sqrt(np.mean((cosine_basis(n, terms) @ centred) ** 2) / n))
    return _mean_test(mean, error, n, float(terms), confidence)


def cosine_terms(n: int) -> int:
    """How many cosine terms are used for a series of n days."""
    return max(1, min(MAX_TERMS, int(0.4 * n ** (2 / 3))))


@lru_cache(maxsize=16)
def cosine_basis(n: int, terms: int) -> Floats:
    """The first cosines but the constant one, shape (terms, n): orthonormal rows of sum zero; not to be written to."""
    days = np.arange(n) + 0.5
    basis = np.sqrt(2 / n) * np.cos(np.pi / n * np.outer(np.arange(1, terms + 1), days))
    basis.flags.writeable = False
    return basis


def _known(series: pd.Series | Floats) -> Floats:
    values = np.asarray(series, dtype=np.float64)
    values = values[~np.isnan(values)]
    if len(values) < 2:
        raise ValueError(f"a test of a mean needs two or more days with values, got {len(values)}")
    if np.isinf(values).any():
        raise ValueError("the series holds infinite values; find out why before testing its mean")
    return values


def _mean_test(mean: float, error: float, n: int, degrees: float, confidence: float) -> MeanTest:
    from scipy.special import stdtr, stdtrit

    t = mean / error if error > 0 else _limit(mean)
    half = float(stdtrit(degrees, 0.5 + confidence / 2)) * error
    return MeanTest(
        mean=mean,
        standard_error=error,
        t=t,
        p_one_sided=float(stdtr(degrees, -t)),
        p_two_sided=float(2 * stdtr(degrees, -abs(t))),
        lower=mean - half,
        upper=mean + half,
        confidence=confidence,
        n=n,
        degrees_of_freedom=degrees,
    )


def _limit(mean: float) -> float:
    """t of a series without variance: infinite with the sign of its mean, 0 for a series of zeros."""
    return float(np.copysign(np.inf, mean)) if mean != 0 else 0.0
