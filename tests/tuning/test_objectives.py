"""What a trial reaches: known scores have known ICs, turnover and drawdown."""

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.evaluation.ic import daily_ic, daily_rank_ic
from mlops_tasks.tuning.objectives import trial_result

DAYS = pd.bdate_range("2024-01-01", periods=6, name="datetime")
INDEX = pd.MultiIndex.from_product([DAYS, list("ABCDEF")], names=["datetime", "instrument"])
RETURNS = np.random.default_rng(0).standard_normal(len(INDEX)) * 0.01
LABEL = pd.Series(RETURNS, INDEX)
CONSTANT = pd.Series(np.tile(np.arange(6.0), 6), INDEX)
"""The same order every day: F is best, then E."""


def test_ics_are_those_of_the_evaluation():
    """Means and ratios of the daily series, on every day."""
    score = LABEL + np.random.default_rng(1).standard_normal(len(INDEX)) * 0.02
    found = trial_result(score, LABEL, 2, 1)
    ic, rank_ic = daily_ic(score, LABEL), daily_rank_ic(score, LABEL)
    pd.testing.assert_series_equal(found.rank_ic, rank_ic, check_freq=False)
    assert found.metrics["ic"] == pytest.approx(ic.mean(), rel=1e-12)
    assert found.metrics["rank_icir"] == pytest.approx(rank_ic.mean() / rank_ic.std(ddof=1), rel=1e-12)


def test_a_day_without_order_counts_as_no_skill():
    """A model that scores all names alike on half of the days has half of its rank IC; on all days, none at all."""
    half = LABEL.where(INDEX.get_level_values(0).isin(DAYS[::2]), 0.0)
    assert trial_result(LABEL, LABEL, 2, 1).metrics["rank_ic"] == 1.0
    assert trial_result(half, LABEL, 2, 1).metrics["rank_ic"] == pytest.approx(0.5)
    nothing = trial_result(LABEL * 0, LABEL, 2, 1)
    assert nothing.metrics["rank_icir"] == nothing.metrics["ic"] == 0.0
    assert (nothing.rank_ic == 0).all() and len(nothing.rank_ic) == len(DAYS)


def test_days_whose_labels_are_not_known_are_left_out():
    """The newest days of a segment are purged: they are no zeros."""
    label = LABEL.where(INDEX.get_level_values(0) < DAYS[4])
    assert list(trial_result(LABEL, label, 2, 1).rank_ic.index) == list(DAYS[:4])


def test_turnover_is_what_is_bought_and_sold():
    """An order that stays trades nothing; one that turns round every day sells and buys everything: 2 a day."""
    sign = np.repeat([1.0, -1.0] * 3, 6)
    assert trial_result(CONSTANT, LABEL, 2, 1).metrics["turnover"] == 0.0
    assert trial_result(CONSTANT * sign, LABEL, 2, 1).metrics["turnover"] == 2.0
    swapped = CONSTANT.copy()
    swapped.loc[(DAYS[3], "E")], swapped.loc[(DAYS[3], "D")] = 3.0, 4.0  # one of two names, for one day
    assert trial_result(swapped, LABEL, 2, 1).metrics["turnover"] == pytest.approx(2 * 1.0 / 5)


def test_topk_is_capped_at_a_third_of_the_names():
    """Of six names two are held, however many are asked for."""
    score = CONSTANT + LABEL
    assert trial_result(score, LABEL, 50, 1).metrics == trial_result(score, LABEL, 2, 1).metrics


@pytest.mark.parametrize("horizon", [1, 5])
def test_drawdown_is_the_largest_fall_of_the_summed_excess_return(horizon):
    """Of the two held names over all six, a loss on the first day included."""
    excess = LABEL.unstack()[["E", "F"]].mean(axis=1) - LABEL.unstack().mean(axis=1)
    total = np.concatenate([[0.0], (excess / horizon).cumsum()])
    expected = max(total[i] - total[j] for i in range(len(total)) for j in range(i, len(total)))
    assert trial_result(CONSTANT, LABEL, 2, horizon).metrics["drawdown"] == pytest.approx(expected, rel=1e-12)
