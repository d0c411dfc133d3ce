"""The autocorrelation-robust test of a mean, against statsmodels and by simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from mlops_tasks.evaluation.significance import automatic_lag, newey_west_mean


def ar1(rho: float, n: int, seed: int) -> np.ndarray:
    """A stationary AR(1) with mean 0."""
    noise = np.random.default_rng(seed).normal(size=n + 200)
    return lfilter([1.0], [1.0, -rho], noise)[200:]


@pytest.mark.parametrize("lag", [0, 1, 5, 20])
@pytest.mark.parametrize("rho", [0.0, 0.6, -0.4])
def test_equals_statsmodels(lag: int, rho: float) -> None:
    """Mean, standard error and t equal those of statsmodels' HAC regression on a constant."""
    from statsmodels.api import OLS

    values = ar1(rho, 150, 3) + 0.2
    peer = OLS(values, np.ones(150)).fit(cov_type="HAC", cov_kwds={"maxlags": lag, "use_correction": True})
    ours = newey_west_mean(pd.Series(values), lag=lag)
    np.testing.assert_allclose([ours.mean, ours.standard_error, ours.t], [peer.params[0], peer.bse[0], peer.tvalues[0]])
    assert ours.lag == lag and ours.n == 150


@pytest.mark.parametrize(("rho", "n", "least"), [(0.0, 60, 0.92), (0.3, 120, 0.91), (0.5, 250, 0.91), (0.8, 500, 0.88)])
def test_intervals_cover_the_true_mean(rho: float, n: int, least: float) -> None:
    """95% intervals hold the true mean of an AR(1) about as often as they say; a plain t interval does not."""
    trials = 600
    tests = [newey_west_mean(ar1(rho, n, seed)) for seed in range(trials)]
    coverage = np.mean([test.lower <= 0 <= test.upper for test in tests])
    assert least <= coverage <= 0.98
    if rho >= 0.5:
        plain = [newey_west_mean(ar1(rho, n, seed), lag=0) for seed in range(trials)]
        assert np.mean([test.lower <= 0 <= test.upper for test in plain]) < coverage - 0.1


def test_nan_days_are_dropped() -> None:
    """Missing days change nothing but n."""
    values = ar1(0.4, 90, 1)
    with_gaps = np.insert(values, [3, 50, 90], np.nan)
    assert newey_west_mean(with_gaps) == newey_west_mean(values)


def test_one_and_two_sided_agree() -> None:
    """For a positive mean the two-sided p is twice the one-sided, and the bounds agree with the tests."""
    test = newey_west_mean(ar1(0.2, 200, 5) + 0.3)
    assert test.p_two_sided == pytest.approx(2 * test.p_one_sided)
    assert test.lower_bound(test.p_one_sided) == pytest.approx(0.0, abs=1e-12)
    assert test.lower == pytest.approx(test.lower_bound(0.025))


@pytest.mark.parametrize(("value", "t", "p"), [(0.0, 0.0, 0.5), (1.0, np.inf, 0.0), (-1.0, -np.inf, 1.0)])
def test_constant_series_are_defined(value: float, t: float, p: float) -> None:
    """A series of zeros proves nothing; a constant other than zero is certain."""
    test = newey_west_mean(np.full(30, value))
    assert (test.t, test.p_one_sided, test.standard_error) == (t, p, 0.0)
    assert test.to_json()["t"] == (t if np.isfinite(t) else None)


@pytest.mark.parametrize("values", [[], [1.0], [np.nan, 2.0]])
def test_too_few_days_are_an_error(values: list[float]) -> None:
    """One day has no variance."""
    with pytest.raises(ValueError, match="two or more days"):
        newey_west_mean(np.array(values))


def test_bad_arguments_are_errors() -> None:
    """A lag outside the series and infinite values are refused."""
    with pytest.raises(ValueError, match="lag must be"):
        newey_west_mean(np.arange(5.0), lag=5)
    with pytest.raises(ValueError, match="infinite"):
        newey_west_mean(np.array([1.0, np.inf, 2.0]))


def test_automatic_lag_follows_the_memory() -> None:
    """More persistent series get longer lags, a third of the series at most."""
    lags = [automatic_lag(ar1(rho, 400, 2)) for rho in (0.0, 0.5, 0.9)]
    assert lags[0] <= 6 < lags[1] < lags[2] <= 133
    assert automatic_lag(np.ones(30)) == 3 and automatic_lag(np.array([0.0, 1.0])) == 0
