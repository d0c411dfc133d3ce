"""Arms compared on the same days: one look, planned looks, any day; power; and what the verdict says of them."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlops_tasks.errors import ExperimentError
from mlops_tasks.evaluation.confidence_sequences import Bernstein, asymptotic_sequence
from mlops_tasks.evaluation.long_run import (
    autocorrelation,
    cosine_errors,
    cosine_regression,
    honest_terms,
    prewhitened_variances,
)
from mlops_tasks.evaluation.newey_west import newey_west_mean
from mlops_tasks.evaluation.planned_looks import Boundary, LookDays, LookTest, Spread, constant
from mlops_tasks.evaluation.significance import cosine_basis, cosine_mean
from mlops_tasks.experiments.inference.analysis import analyse
from mlops_tasks.experiments.inference.dated import DailyDifferences, bounded, open_ended, paired, planned, prewhitened
from mlops_tasks.experiments.inference.offers import Case, Data
from mlops_tasks.experiments.inference.power import days_needed, detectable, long_run_deviation, one_look, power
from mlops_tasks.experiments.inference.results import Horizon, Method
from mlops_tasks.experiments.inference.verdict import Goal, Outcome, judge
from tests.evaluation.test_significance import ar1

PLAN = LookDays.every(21, 60, 144)
COSINE, POCOCK = LookTest(PLAN, Spread.COSINE), LookTest(PLAN, Spread.COSINE, Boundary.POCOCK)
PREWHITENED = LookTest(PLAN)


def test_terms_and_errors_are_those_of_the_test_of_a_mean() -> None:
    """For many series at once as for one; the basis is orthonormal and of sum zero."""
    assert [honest_terms(n) for n in (30, 60, 120, 252, 1000)] == [2, 2, 4, 8, 8]
    basis = cosine_basis(90, 3)
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(basis.sum(axis=1), 0, atol=1e-12)
    series = np.stack([ar1(0.3, 90, seed) for seed in range(3)])
    ours = cosine_errors(series, 3)
    assert ours == pytest.approx([cosine_mean(each, terms=3).standard_error for each in series])


def test_the_prewhitened_variance_is_that_of_its_autoregression() -> None:
    """On every day what the formulas say, written out; and the truth of a long series."""
    values = ar1(0.5, 80, 1) + 7.0
    found = prewhitened_variances(values)
    assert np.isnan(found[:3]).all()
    for n in (10, 45, 80):
        centred = values[:n] - values[:n].mean()
        raw = centred[1:] @ centred[:-1] / (centred @ centred)
        rho = max(0.0, raw + (1 + 3 * raw) / n)
        residual = centred[1:] - rho * centred[:-1]
        assert found[n - 1] == pytest.approx(residual @ residual / (n - 3) / (1 - rho) ** 2)
    assert autocorrelation(ar1(0.6, 20_000, 2)) == pytest.approx(0.6, abs=0.02)
    assert prewhitened_variances(ar1(0.6, 20_000, 2))[-1] == pytest.approx(1 / 0.4**2, rel=0.1)


def test_a_regression_on_a_constant_is_the_test_of_the_mean_and_a_slope_is_found() -> None:
    """The same numbers; least squares are those of numpy; a line is found, and regressors that repeat are refused."""
    values, time = ar1(0.3, 120, 3) + 0.1, np.arange(120.0)
    constant_alone = cosine_regression(values, np.ones((120, 1))).coefficients[0]
    plain = cosine_mean(values, terms=4)
    assert (constant_alone.mean, constant_alone.standard_error, constant_alone.p_two_sided) == pytest.approx(
        (plain.mean, plain.standard_error, plain.p_two_sided)
    )
    regressors = np.column_stack([np.ones(120), time])
    found = cosine_regression(values + 0.1 * time, regressors)
    expected = np.linalg.lstsq(regressors, values + 0.1 * time, rcond=None)[0]
    assert [each.mean for each in found.coefficients] == pytest.approx(expected)
    assert found.coefficients[1].lower < 0.1 < found.coefficients[1].upper
    with pytest.raises(ValueError, match="not independent"):
        cosine_regression(values, np.ones((120, 2)))


def test_days_are_paired_by_their_date() -> None:
    """Days of one arm only are left out and counted; a day twice, and no day in common, are refused."""
    days = pd.bdate_range("2024-01-01", periods=4)
    control, treatment = pd.Series([1.0, 2.0, 3.0], days[:3]), pd.Series([5.0, 9.0, np.nan], days[[2, 1, 3]])
    found = DailyDifferences.of(control, treatment)
    assert found.values.to_dict() == {days[1]: 7.0, days[2]: 2.0}
    assert found.left_out == 1
    with pytest.raises(ExperimentError, match="more than one value for 2024-01-01"):
        DailyDifferences.of(pd.concat([control, control]), treatment)
    with pytest.raises(ExperimentError, match="no day in common"):
        DailyDifferences.of(control.iloc[:1], treatment)


def test_paired_is_the_gates_test_with_its_terms() -> None:
    """Effect, p-value and interval; and what cannot be tested is refused with what to do."""
    values = ar1(0.3, 120, 4) + 0.3
    ours, gate = paired(np.append(values, np.nan)), cosine_mean(values, terms=4)
    assert (ours.effect, ours.p_value, ours.lower, ours.upper) == pytest.approx(
        (gate.mean, gate.p_two_sided, gate.lower, gate.upper)
    )
    assert (ours.method, ours.horizon, ours.n) == (Method.PAIRED, Horizon.FIXED, 120)
    for bad, why in (
        (values[:20], "needs 30 days, got 20"),
        (np.full(50, 0.2), "without variance"),
        (np.append(values, np.inf), "infinite"),
        (ar1(0.97, 200, 1), "weekly means"),
    ):
        with pytest.raises(ExperimentError, match=why):
            paired(bad)


def test_a_plan_of_one_look_is_the_single_test_and_many_are_stricter() -> None:
    """With one look the critical t is Student's; with more, Pocock's constant is larger and the first look strict."""
    one = LookTest(LookDays((120,)), Spread.COSINE)
    assert one.critical(1, 0.05) == pytest.approx(stats.t(4).ppf(0.975), rel=0.03)
    assert 1.96 < constant(COSINE, 0.05) < constant(POCOCK, 0.05)
    early, late = COSINE.critical(1, 0.05), COSINE.critical(len(PLAN.days), 0.05)
    z = stats.norm.isf(stats.t(2).sf(early)), stats.norm.isf(stats.t(4).sf(late))
    assert z[0] == pytest.approx(z[1] * np.sqrt(144 / 60), rel=1e-4)
    assert COSINE.found(0.0, 0.05) == pytest.approx(0.05, abs=1e-3)
    assert PREWHITENED.found(0.0, 0.05) < 0.04  # calibrated on days of memory, of which these have none
    assert PREWHITENED.found(0.25, 0.05) > COSINE.found(0.25, 0.05) + 0.1
    assert PREWHITENED.critical(1, 0.05) == pytest.approx(PREWHITENED.critical(5, 0.05) * np.sqrt(144 / 60))


@pytest.mark.parametrize("test", [COSINE, PREWHITENED])
def test_planned_looks_agree_with_their_boundary(test: LookTest) -> None:
    """Interval, p-value and boundary say the same at the look; what was crossed stays so; days between looks wait."""
    values = ar1(0.3, 144, 5)
    for shift, found in ((0.0, False), (1.2, True)):
        result = planned(values + shift, test)
        assert result.significant is found
        assert (result.p_value < 0.05) is found
    between = planned(values[:80] + 1.2, test)
    assert (between.n, between.look, between.looks, between.horizon) == (60, 1, 5, Horizon.PLANNED)
    crossed = planned((values + 1.2)[:60], test)
    later = planned(np.concatenate([(values + 1.2)[:60], values[60:] - 0.3]), test)
    assert later.p_value <= crossed.p_value
    with pytest.raises(ExperimentError, match="first look is planned after 60 days"):
        planned(values[:50], test)
    with pytest.raises(ExperimentError, match="144 days were planned and 150"):
        planned(ar1(0.0, 150, 1), test)
    with pytest.raises(ValueError, match="ascending"):
        LookDays((60, 60))


def test_prewhitened_is_a_plan_of_one_look() -> None:
    """The mean, its prewhitened error, and a critical value above the normal one."""
    values = ar1(0.3, 120, 6) + 0.5
    result = prewhitened(values)
    error = np.sqrt(prewhitened_variances(values)[-1] / 120)
    assert (result.method, result.horizon, result.looks) == (Method.PREWHITENED, Horizon.FIXED, 1)
    assert (result.effect, result.standard_error) == pytest.approx((values.mean(), error))
    assert (result.upper - result.effect) / error == pytest.approx(2.1, abs=0.06)


def test_open_ended_agrees_with_its_sequence_and_evidence() -> None:
    """Zero is excluded on some day exactly if the e-value has exceeded 20; the sequence is narrowest about its day."""
    for seed, shift in ((1, 0.0), (2, 0.4), (3, -0.5), (4, 0.25)):
        values = ar1(0.2, 200, seed) + shift
        sequence, result = asymptotic_sequence(values, 60), open_ended(values)
        excluded = np.nanmax(sequence.lower) > 0 or np.nanmin(sequence.upper) < 0
        assert excluded == (result.p_value < 0.05)
        assert (result.lower, result.upper) == (sequence.lower[-1], sequence.upper[-1])
    assert np.isnan(sequence.lower[58]) and np.isfinite(sequence.lower[59])
    with pytest.raises(ExperimentError, match="first look is on day 60, and 40"):
        open_ended(values[:40])


def test_bounded_differences_are_tested_at_any_day() -> None:
    """A clear difference is found, none is not, and values beyond the stated range are refused."""
    generator = np.random.default_rng(6)
    noise = generator.choice([-0.1, 0.1], size=2000)
    found = bounded(noise + 0.05, Bernstein(1.0))
    assert found.significant and found.p_value < 0.01 and found.e_value > 100
    assert not bounded(noise, Bernstein(1.0)).significant
    later = bounded(noise + 0.05, Bernstein(1.0), lag=2)
    assert later.significant and later.e_value is None and later.upper - later.lower > found.upper - found.lower
    with pytest.raises(ExperimentError, match="range that is possible"):
        bounded(noise * 10, Bernstein(1.0))


def test_power_is_what_simulation_finds() -> None:
    """At one look and with looks, of independent days; effect and days for a power reverse it."""
    rows = np.stack([ar1(0.0, 144, seed) for seed in range(400)])
    single = np.mean([paired(each[:120] + 0.3).significant for each in rows])
    assert power(0.3, 1.0, one_look(120, Spread.COSINE)) == pytest.approx(single, abs=0.07)
    looked = np.mean([planned(each + 0.2, PREWHITENED).p_value <= 0.05 for each in rows])
    assert power(0.2, 1.0, PREWHITENED) == pytest.approx(looked, abs=0.07)
    test = one_look(252)
    smallest = detectable(2.0, test)
    assert power(smallest, 2.0, test) == pytest.approx(0.8, abs=1e-3)
    by_cosine = detectable(2.0, one_look(252, Spread.COSINE))
    assert days_needed(by_cosine, 2.0) == pytest.approx(252, abs=2)
    assert smallest < by_cosine
    assert days_needed(0.0001, 2.0) is None
    assert power(0.0, 1.0, one_look(252, Spread.COSINE)) == pytest.approx(0.05, abs=1e-6)
    assert long_run_deviation(ar1(0.6, 5000, 1)) == pytest.approx(2.5, rel=0.1)
    for wrong in (lambda: power(1.0, 0.0, test), lambda: detectable(1.0, test, wanted=0.01)):
        with pytest.raises(ExperimentError, match=r"above 0|between the level"):
            wrong()


@pytest.mark.parametrize(
    ("shift", "least", "outcome", "says"),
    [
        (0.8, 0.1, Outcome.BETTER, "The treatment is better."),
        (-0.8, 0.1, Outcome.WORSE, "The treatment is worse."),
        (0.0, 2.0, Outcome.NO_DIFFERENCE, "Neither arm is better by the 2 that matters"),
        (0.1, 0.1, Outcome.UNCLEAR, "more days"),
    ],
)
def test_a_verdict_says_what_was_found(shift: float, least: float, outcome: Outcome, says: str) -> None:
    """Outcome, effect, power and what would change it, in words."""
    values = ar1(0.2, 252, 8)
    values += shift - values.mean()
    verdict = judge(paired(values), Goal("rank IC", least), values)
    assert verdict.outcome is outcome
    assert says in verdict.text
    assert (
        "rank IC: treatment minus control is" in verdict.text and "is found with a probability of 80%" in verdict.text
    )
    assert (verdict.more_days is not None) == (outcome is Outcome.UNCLEAR)
    assert verdict.to_json()["outcome"] == outcome.value


def test_a_lower_metric_may_be_the_better_one() -> None:
    """For a drawdown, less is better."""
    values = ar1(0.2, 252, 9) - 0.8
    assert judge(paired(values), Goal("drawdown", 0.1, higher_is_better=False), values).outcome is Outcome.BETTER


def test_newey_and_west_are_offered_where_days_have_no_memory() -> None:
    """The test of `evaluation/newey_west.py`, by name; refused where nothing is known of the days."""
    values = np.random.default_rng(2).standard_t(3, 120)
    expected = newey_west_mean(values)
    found = analyse(values, Case(120, data=Data.HEAVY_TAILS), Method.NEWEY_WEST)
    assert (found.effect, found.p_value) == pytest.approx((expected.mean, expected.p_two_sided))
    assert (found.lower + found.upper) / 2 == pytest.approx(expected.mean)
    with pytest.raises(ExperimentError, match=r"newey_west finds an effect where there is none in \d+\.\d% .* use "):
        analyse(values, Case(120), Method.NEWEY_WEST)
