"""The long-run variance of daily series, for many series at once, for regressions and for confidence sequences.

The equal-weighted cosine estimator is that of `significance.cosine_mean`, with one term for 30 days (2 to 8): few terms
keep the level of a test also in 60 days with a persistence of 0.7, where more find more and err more often. The
prewhitened estimator (Andrews and Monahan, Econometrica 60, 1992) follows the series' memory by a first-order
autoregression; it is less honest for one test, and less variable, which a bound over all days needs.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.evaluation.significance import MeanTest, cosine_basis, cosine_mean

Floats = NDArray[np.float64]

DAYS_PER_TERM, LEAST_TERMS, MOST_TERMS = 30, 2, 8
MOST_PERSISTENCE = 0.97
"""A coefficient of the autoregression is cut here: near 1 the estimate of the variance grows without bound."""


def honest_terms(n: int) -> int:
    """Cosine terms of n days: one for 30 days, from 2 to 8."""
    return max(LEAST_TERMS, min(MOST_TERMS, n // DAYS_PER_TERM))


def cosine_errors(series: Floats, terms: int) -> Floats:
    """Standard errors of the means of many series of shape (..., n) without NaN, as `cosine_mean` has it."""
    n = series.shape[-1]
    return np.sqrt(np.mean((series @ cosine_basis(n, terms).T) ** 2, axis=-1) / n)


def autocorrelation(series: Floats) -> Floats:
    """First autocorrelations of series of shape (..., n) without NaN, corrected for the bias of a short series.

    The bias is -(1 + 3 rho) / n (Kendall, Biometrika 41, 1954). They lie in [-0.97, 0.97], and are 0 for a series
    without variance.
    """
    return _running(np.asarray(series, dtype=np.float64))[0][..., -1]


def prewhitened_variances(series: Floats) -> Floats:
    """Long-run variances of the days so far: those of first-order autoregressions with their coefficients.

    No coefficient below 0 is used, so that no series is taken for steadier than independent days.

    Parameters
    ----------
    series
        Shape (..., n), without NaN. The result has the same shape; NaN on the first three days.
    """
    rho, power, lagged, ends = _running(series)
    rho = np.maximum(rho, 0.0)
    first, last = ends
    # The sum of (c_t - rho c_(t-1))^2 over t from the second day on, c being deviations from the mean so far.
    residual = (power - first) - 2 * rho * lagged + rho**2 * (power - last)
    days = np.arange(1.0, series.shape[-1] + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(days > 3, np.maximum(residual, 0.0) / (days - 3) / (1 - rho) ** 2, np.nan)


def _running(series: Floats) -> tuple[Floats, Floats, Floats, tuple[Floats, Floats]]:
    """Of the days so far: first autocorrelation, sum of squared deviations, of products of neighbours, both ends'."""
    days = np.arange(1.0, series.shape[-1] + 1)
    values = series - series.mean(axis=-1, keepdims=True)  # the sums lose no digits to a large mean
    mean = np.cumsum(values, axis=-1) / days
    power = np.cumsum(values**2, axis=-1) - days * mean**2
    products = np.zeros(values.shape)
    products[..., 1:] = np.cumsum(values[..., 1:] * values[..., :-1], axis=-1)
    begin = values[..., :1]
    lagged = products - mean * (2 * days * mean - begin - values) + (days - 1) * mean**2
    floor = 1e-12 * np.maximum(1e-300, np.cumsum(values**2, axis=-1))
    raw = np.divide(lagged, power, out=np.zeros(values.shape), where=power > floor)
    corrected = raw + np.where(power > floor, (1 + 3 * raw) / days, 0.0)
    rho = np.clip(corrected, -MOST_PERSISTENCE, MOST_PERSISTENCE)
    return rho, power, lagged, ((begin - mean) ** 2, (values - mean) ** 2)


@dataclass(frozen=True)
class Regression:
    """Least squares of a daily series on regressors, with errors that allow for autocorrelation."""

    coefficients: tuple[MeanTest, ...]
    """Each coefficient's value (`mean`), its error and its tests, in the order of the regressors."""
    residual: Floats
    """Shape (n,)."""


def cosine_regression(series: Floats, regressors: Floats, confidence: float = 0.95) -> Regression:
    """Least squares with the equal-weighted cosine estimator of the scores' long-run variance.

    With one constant regressor it is `cosine_mean` with `honest_terms`. For others the estimator is applied to the
    scores x_t u_t (Lazarus, Lewis, Stock and Watson, Journal of Business & Economic Statistics 36, 2018).

    Parameters
    ----------
    series
        Shape (n,), in time order.
    regressors
        Shape (n, k), a constant among them where one is meant; full rank.

    Raises
    ------
    ValueError
        A value is not finite, or the regressors are not of full rank.
    """
    y, x = np.asarray(series, dtype=np.float64), np.asarray(regressors, dtype=np.float64)
    if not (np.isfinite(y).all() and np.isfinite(x).all()):
        raise ValueError("a regression needs finite values; leave out the days that have none")
    if np.linalg.matrix_rank(x) < x.shape[1]:
        raise ValueError(f"the {x.shape[1]} regressors are not independent on these {len(y)} days; leave one out")
    n, terms = len(y), honest_terms(len(y))
    inverse = np.linalg.inv(x.T @ x / n)
    values = inverse @ (x.T @ y / n)
    residual = y - x @ values
    transformed = cosine_basis(n, terms) @ (x * residual[:, None]) @ inverse
    errors = np.sqrt(np.mean(transformed**2, axis=0) / n)
    plain = cosine_mean(y, confidence, terms=terms)
    return Regression(
        tuple(_coefficient(plain, float(value), float(error)) for value, error in zip(values, errors, strict=True)),
        residual,
    )


def _coefficient(like: MeanTest, value: float, error: float) -> MeanTest:
    """The test of a coefficient with as many days and terms as `like`."""
    return replace(like, mean=value).with_error(error, like.degrees_of_freedom)
