"""Arms of independent units: equal to scipy, statsmodels and tea-tasting."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.inference.multiplicity import benjamini_hochberg, gatekeeping, holm
from mlops_tasks.experiments.inference.units import (
    Arms,
    RatioArm,
    bootstrap,
    cuped,
    mann_whitney,
    proportions,
    ratio,
    welch,
)

EXACT = {"rel": 1e-9, "abs": 1e-12}


def drawn() -> dict[str, np.ndarray]:
    """180 control and 220 treated units, as the numbers of tea-tasting below were computed from."""
    generator, n, m = np.random.default_rng(22), 180, 220
    variant = np.array([0] * n + [1] * m)
    before = generator.normal(5, 2, n + m)
    trades = np.round(generator.gamma(3, 1, n + m) + 1, 0)
    profit = 0.6 * before + generator.normal(0, 1.5, n + m) + 0.2 * variant
    cost = trades * generator.normal(2, 0.4, n + m) + 0.3 * variant
    return {"variant": variant, "before": before, "trades": trades, "profit": profit, "cost": cost}


DATA = drawn()


def arms_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Control and treatment."""
    return DATA[name][DATA["variant"] == 0], DATA[name][DATA["variant"] == 1]


PROFIT = Arms(*arms_of("profit"))


def test_welch_equals_scipy_and_statsmodels() -> None:
    """p-value, statistic, degrees of freedom and interval."""
    ours, peer = welch(PROFIT), stats.ttest_ind(PROFIT.treatment, PROFIT.control, equal_var=False)
    interval = peer.confidence_interval()
    assert (ours.p_value, ours.degrees_of_freedom) == pytest.approx((peer.pvalue, peer.df), **EXACT)
    assert (ours.lower, ours.upper) == pytest.approx((interval.low, interval.high), **EXACT)
    other = CompareMeans(DescrStatsW(PROFIT.treatment), DescrStatsW(PROFIT.control)).tconfint_diff(usevar="unequal")
    assert (ours.lower, ours.upper) == pytest.approx(other, **EXACT)


def test_proportions_equal_statsmodels() -> None:
    """The pooled z-test, and Newcombe's interval."""
    ours = proportions((41, 70), (180, 220))
    _, p_value = proportions_ztest([70, 41], [220, 180])
    interval = confint_proportions_2indep(70, 220, 41, 180, method="newcomb", compare="diff")
    assert ours.p_value == pytest.approx(p_value, **EXACT)
    assert (ours.lower, ours.upper) == pytest.approx(interval, **EXACT)


@pytest.mark.parametrize("decimals", [8, 0])
def test_mann_whitney_equals_scipy(decimals: int) -> None:
    """With and without ties; the interval contains the median difference and excludes zero as the test does."""
    arms = Arms(np.round(PROFIT.control, decimals), np.round(PROFIT.treatment + 0.5, decimals))
    ours, peer = mann_whitney(arms), stats.mannwhitneyu(arms.treatment, arms.control, method="asymptotic")
    assert ours.p_value == pytest.approx(peer.pvalue, **EXACT)
    assert ours.lower <= ours.effect <= ours.upper
    assert ours.effect == pytest.approx(np.median(np.subtract.outer(arms.treatment, arms.control)))


TEA_TASTING = {
    "welch": (0.2865889467487528, -0.07925120831092403, 0.6524291018084296, 0.12433475160912957),
    "cuped": (0.3450227668043411, 0.05401684888968694, 0.6360286847189952, 0.020261835539132397),
    "ratio": (0.06202496967279947, -0.019866093617315755, 0.1439160329629147, 0.13725996874027438),
}
"""Of tea-tasting 1.14.0 (`Mean`, `Mean` with a covariate, `RatioOfMeans`) on the same data."""


@pytest.mark.parametrize("name", ["welch", "cuped", "ratio"])
def test_means_covariates_and_ratios_equal_tea_tasting(name: str) -> None:
    """Effect, interval and p-value, with the covariate from before the experiment and by the delta method."""
    ours = {
        "welch": lambda: welch(PROFIT),
        "cuped": lambda: cuped(PROFIT, *arms_of("before")),
        "ratio": lambda: ratio(*(RatioArm(*each) for each in zip(arms_of("cost"), arms_of("trades"), strict=True))),
    }[name]()
    assert (ours.effect, ours.lower, ours.upper, ours.p_value) == pytest.approx(TEA_TASTING[name], **EXACT)


def test_a_covariate_that_explains_nothing_is_refused() -> None:
    """Also one of other units."""
    with pytest.raises(ExperimentError, match="no variance"):
        cuped(PROFIT, np.ones(180), np.ones(220))
    with pytest.raises(ExperimentError, match="the covariate has 10 and 220 units"):
        cuped(PROFIT, np.arange(10.0), np.arange(220.0))


def test_the_bootstrap_agrees_with_welch_on_normal_values() -> None:
    """Interval and p-value within the error of 1,999 resamples; the same in each run."""
    ours, peer = bootstrap(PROFIT), welch(PROFIT)
    assert (ours.lower, ours.upper) == pytest.approx((peer.lower, peer.upper), abs=0.08)
    assert ours.p_value == pytest.approx(peer.p_value, abs=0.05)
    assert bootstrap(PROFIT) == ours


def test_corrections_equal_statsmodels() -> None:
    """Holm and Benjamini-Hochberg, unsorted and with ties."""
    p_values = [0.04, 0.001, 0.03, 0.03, 0.8, 0.012]
    for ours, method in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        np.testing.assert_allclose(ours(p_values), multipletests(p_values, method=method)[1], rtol=1e-12)
    with pytest.raises(ExperimentError, match="from 0 to 1"):
        holm([0.1, np.nan])


def test_secondary_metrics_wait_for_the_primary_one() -> None:
    """They cannot be significant before it, and cost it nothing."""
    found = gatekeeping([{"rank_ic": 0.03}, {"turnover": 0.01, "drawdown": 0.02}])
    assert found == {"rank_ic": 0.03, "turnover": 0.03, "drawdown": 0.03}
    assert gatekeeping([{"rank_ic": 0.2}, {"turnover": 0.0001}])["turnover"] == 0.2
    with pytest.raises(ExperimentError, match="two families"):
        gatekeeping([{"rank_ic": 0.03}, {"rank_ic": 0.1}])


def test_arms_that_cannot_be_compared_are_refused() -> None:
    """An arm without data, one value that is missing, a metric without variance."""
    ok = np.arange(5.0)
    for control, why in (
        (np.array([]), "control arm has 0 units"),
        (np.array([1.0, np.nan, 2.0]), "unit 2 of the control"),
    ):
        with pytest.raises(ExperimentError, match=why):
            Arms(control, ok)
    flat = Arms(np.ones(5), np.ones(5))
    for test in (welch, mann_whitney, bootstrap):
        with pytest.raises(ExperimentError, match=r"no variance|without variance"):
            test(flat)
    with pytest.raises(ExperimentError, match="without variance"):
        proportions((0, 0), (10, 10))
    with pytest.raises(ExperimentError, match="5 successes of 0 units"):
        proportions((5, 2), (0, 10))
