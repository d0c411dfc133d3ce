"""The autocorrelation-robust test of a mean, against statsmodels and by simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.signal import lfilter

from mlops_tasks.evaluation.newey_west import newey_west_mean
from mlops_tasks.evaluation.significance import cosine_mean


def ar1(rho: float, n: int, seed: int) -> np.ndarray:
    """A stationary AR(1) with mean 0."""
    noise = np.random.default_rng(seed).normal(size=n + 200)
    return lfilter([1.0], [1.0, -rho], noise)[200:]


@pytest.mark.parametrize("lag", [0, 1, 5, 20])
@pytest.mark.parametrize("rho", [0.0, 0.6, -0.4])
def test_the_test_that_ours_is_compared_with_equals_statsmodels(lag: int, rho: float) -> None:
    """Newey and West's: mean, standard error and t equal those of statsmodels' HAC regression on a constant."""
    from statsmodels.api import OLS

    values = ar1(rho, 150, 3) + 0.2
    peer = OLS(values, np.ones(150)).fit(cov_type="HAC", cov_kwds={"maxlags": lag, "use_correction": True})
    ours = newey_west_mean(values, lag=lag)
    np.testing.assert_allclose([ours.mean, ours.standard_error, ours.t], [peer.params[0], peer.bse[0], peer.tvalues[0]])
    assert ours.n == 150


@pytest.mark.parametrize("n", [5, 60, 300])
def test_the_cosine_test_equals_its_formulas(n: int) -> None:
    """Mean, error and p-values equal the published sums, written out; the terms are the rule's, eight at most."""
    values = ar1(0.3, n, 4) + 0.2
    test, terms = cosine_mean(pd.Series(values)), {5: 1, 60: 6, 300: 8}[n]
    transforms = [
        math.sqrt(2 / n) * sum(math.cos(math.pi * j * (t - 0.5) / n) * values[t - 1] for t in range(1, n + 1))
        for j in range(1, terms + 1)
    ]
    error = math.sqrt(sum(each**2 for each in transforms) / terms / n)
    student = stats.t(terms)
    assert (test.degrees_of_freedom, test.n) == (terms, n)
    assert (test.mean, test.standard_error) == pytest.approx((values.mean(), error))
    assert test.p_one_sided == pytest.approx(student.sf(values.mean() / error))
    assert (test.lower, test.upper) == pytest.approx(
        (values.mean() - student.ppf(0.975) * error, values.mean() + student.ppf(0.975) * error)
    )


@pytest.mark.parametrize(("rho", "n"), [(0.0, 60), (0.3, 120), (0.0, 252), (0.3, 252), (0.7, 252)])
def test_the_cosine_test_has_its_size(rho: float, n: int) -> None:
    """A mean of zero is refused in about 5% at the level 5%, also at a persistence of 0.7, where Newey-West errs."""
    trials = 1500
    series = [ar1(rho, n, seed) for seed in range(trials)]
    rejected = np.mean([cosine_mean(values).p_two_sided <= 0.05 for values in series])
    assert 0.03 <= rejected <= 0.07
    if rho >= 0.7:
        assert np.mean([newey_west_mean(values).p_two_sided <= 0.05 for values in series]) > rejected + 0.02


def test_nan_days_are_dropped() -> None:
    """Missing days change nothing but n."""
    values = ar1(0.4, 90, 1)
    with_gaps = np.insert(values, [3, 50, 90], np.nan)
    assert cosine_mean(with_gaps) == cosine_mean(values)


def test_one_and_two_sided_agree() -> None:
    """For a positive mean the two-sided p is twice the one-sided, and the bounds agree with the tests."""
    test = cosine_mean(ar1(0.2, 200, 5) + 0.3)
    assert test.p_two_sided == pytest.approx(2 * test.p_one_sided)
    assert test.lower_bound(test.p_one_sided) == pytest.approx(0.0, abs=1e-12)
    assert test.lower == pytest.approx(test.lower_bound(0.025))


@pytest.mark.parametrize(("value", "t", "p"), [(0.0, 0.0, 0.5), (1.0, np.inf, 0.0), (-1.0, -np.inf, 1.0)])
def test_constant_series_are_defined(value: float, t: float, p: float) -> None:
    """A series of zeros proves nothing; a constant other than zero is certain."""
    test = cosine_mean(np.full(30, value))
    assert (test.t, test.p_one_sided, test.standard_error) == (t, p, 0.0)
    assert test.to_json()["t"] == (t if np.isfinite(t) else None)


@pytest.mark.parametrize("values", [[], [1.0], [np.nan, 2.0]])
def test_too_few_days_are_an_error(values: list[float]) -> None:
    """One day has no variance."""
    with pytest.raises(ValueError, match="two or more days"):
        cosine_mean(np.array(values))


def test_bad_arguments_are_errors() -> None:
    """More terms than the series has, or none, and infinite values are refused."""
    for terms in (0, 5):
        with pytest.raises(ValueError, match="1 to 4 cosine terms"):
            cosine_mean(np.arange(5.0), terms=terms)
    with pytest.raises(ValueError, match="infinite"):
        cosine_mean(np.array([1.0, np.inf, 2.0]))


def test_all_cosine_terms_are_students_test() -> None:
    """With one term less than days, error, t and p-value are those of the test of separate observations."""
    values = ar1(0.4, 90, 6) + 0.1
    ours, peer = cosine_mean(values, terms=89), stats.ttest_1samp(values, 0.0)
    assert (ours.t, ours.p_two_sided) == (pytest.approx(peer.statistic), pytest.approx(peer.pvalue))
