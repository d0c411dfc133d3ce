"""The looks at a new champion, against closed forms and by simulation; `make bench NAME=rollback_rules` in full."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlops_tasks.config import DeploymentSettings
from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.evaluation.worse import LEAST_DAYS, LookPlan, judge
from tests.evaluation.probations import KIN, LIMITS, drawn, errs_by_daily_looks, probations

PLAN = LookPlan.of(LIMITS)


def test_the_looks_share_the_budget_and_each_comes_once() -> None:
    """At 20, 30, ..., 60 mature days; a probation that is too short has none."""
    assert PLAN.days == (20, 30, 40, 50, 60)
    assert len(PLAN.days) * PLAN.level == pytest.approx(LIMITS.quality.alpha)
    assert [PLAN.due(days) for days in (0, 19, 20, 29, 30, 59, 60, 500)] == [0, 0, 1, 1, 2, 4, 5, 5]
    assert LookPlan.of(DeploymentSettings(probation_days=19)).days == ()
    assert LookPlan.of(DeploymentSettings(probation_days=0)).due(100) == 0


def test_a_look_is_the_one_sided_cosine_test_at_its_level() -> None:
    """Its p-value is Student's of the mean over its robust error; days without a value are left out."""
    difference = drawn(0.3, 0.02, 0.045, seed=3, days=30)
    difference.iloc[[4, 11]] = np.nan
    found, known = judge(difference, PLAN, 2), difference.dropna()
    test = cosine_mean(known)
    assert (found.n_days, found.loss) == (28, pytest.approx(-known.mean()))
    assert found.p_value == pytest.approx(stats.t(test.degrees_of_freedom).cdf(test.t))
    assert (found.number, found.planned, found.level) == (2, 5, 0.01)
    assert (found.first_day, found.last_day) == ("2024-01-01", "2024-02-09")
    assert found.said("version 1").endswith(f"p {found.p_value:.4f}, look 2 of 5 at level 0.0100")


def test_only_what_is_worse_is_taken_out() -> None:
    """A better model never is, nor one that cannot be told from its rival, nor one with too few days."""
    steady = pd.Series(np.tile([0.02, 0.03], 15), pd.bdate_range("2024-01-01", periods=30))
    assert judge(-steady, PLAN, 1).worse
    assert not judge(steady, PLAN, 1).worse
    assert not judge(steady * 0, PLAN, 1).worse
    few = judge(-steady.iloc[: LEAST_DAYS - 1], PLAN, 1)
    assert (few.worse, few.loss, few.n_days) == (False, None, LEAST_DAYS - 1)
    assert few.said("version 1") == "look 1 of 5: 9 days have a rank IC of it and of version 1, but 10 are needed"


@pytest.mark.parametrize(("rho", "found_at_least"), [(0.0, 0.97), (0.7, 0.65)])
def test_a_probation_seldom_errs_and_finds_what_is_worse(rho: float, found_at_least: float) -> None:
    """In 300 probations each; the error is at most 5% in truth, and its binomial bound here."""
    false = sum(day is not None for day in probations(rho, 0.0, KIN, 300))
    assert false <= stats.binom(300, 0.05).ppf(0.99)
    found = probations(rho, 0.02, KIN, 100)
    assert np.mean([day is not None for day in found]) >= found_at_least
    assert {day for day in found if day is not None} <= set(PLAN.days)


def test_looks_at_every_day_would_err_far_more_often() -> None:
    """The same champions, a look a day at the whole level: what the plan is for."""
    assert np.mean([errs_by_daily_looks(0.7, seed) for seed in range(100)]) > 0.15
    assert np.mean([day is not None for day in probations(0.7, 0.0, KIN, 100)]) <= 0.12
