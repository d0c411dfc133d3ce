"""The test of Newey and West (Econometrica 55, 1987), for days that hardly depend on each other.

Where they do it errs too often (docs/experiments.md); `significance.cosine_mean` is the test of the gate.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.evaluation.significance import MeanTest, cosine_mean

Floats = NDArray[np.float64]


def newey_west_mean(series: pd.Series | Floats, lag: int | None = None, confidence: float = 0.95) -> MeanTest:
    """Test the mean of a daily series without NaN against zero; `lag` in days, None: `automatic_lag`.

    The standard error equals statsmodels' `OLS(y, 1).fit(cov_type="HAC", use_correction=True)` at the same lag.
    p-values and bounds come from Student's t with 1.5 n / (lag + 1) degrees of freedom (n - 1 at most), the equivalent
    number of independent terms of a Bartlett-weighted spectral estimate (Priestley, Spectral Analysis, 1981, section
    6.2.4).
    """
    values = np.asarray(series, dtype=np.float64)
    n = len(values)
    lag = automatic_lag(values) if lag is None else lag
    error = float(np.sqrt(_long_run_variance(values - values.mean(), lag) / (n - 1)))
    degrees = min(float(n - 1), max(1.0, 1.5 * n / (lag + 1)))
    return cosine_mean(values, confidence).with_error(error, degrees)


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
