"""How columns go together: equal to SciPy, blind to each column's own distribution, and not to anything else."""

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from mlops_tasks.monitoring.dependence import RIDGE, RankScores, daily_dependence, mean_correlations
from mlops_tasks.monitoring.summaries import MARGINAL, STATISTICS, daily_summaries
from tests.monitoring.planted_shifts import MARKETS


def scores_of(values: np.ndarray) -> RankScores:
    """Of values of shape (days, instruments, columns)."""
    days, instruments, columns = values.shape
    scores = RankScores.empty(np.full(days, instruments), columns)
    for column in range(columns):
        scores.put(column, np.array(values[:, :, column]))
    return scores


def test_ranks_equal_scipy() -> None:
    """Ties share their mean rank; a missing value has 0, and so has a day on which all values are the same."""
    values = np.array([[3.0, 1.0, np.nan, 1.0, 7.0], [2.0, 2.0, np.nan, 2.0, 2.0], [np.nan] * 5])
    scores = scores_of(values[:, :, None])
    ranks = rankdata([3.0, 1.0, 1.0, 7.0])
    expected = (ranks - ranks.mean()) / ranks.std()
    np.testing.assert_allclose(scores.values[0, [0, 1, 3, 4]], expected, rtol=1e-6)
    assert not scores.values[0, [2, *range(5, 15)]].any()
    assert scores.finite[:, 0].tolist() == [4, 0, 0]


def test_mean_correlations_equal_scipy() -> None:
    """The mean over days of Spearman's correlation, with ties; of a pair the days count on which both have values."""
    rng = np.random.default_rng(0)
    values = np.round(rng.standard_normal((6, 40, 3)) + rng.standard_normal((6, 40, 1)), 1)
    values[:2, :, 2] = np.nan
    result = mean_correlations(scores_of(values))
    by_day = [spearmanr(day).statistic for day in values]
    assert result[0, 1] == pytest.approx(np.mean([day[0, 1] for day in by_day]))
    assert result[1, 2] == pytest.approx(np.mean([day[1, 2] for day in by_day[2:]]))
    np.testing.assert_array_equal(np.diag(result), 1.0)


def test_unexplained_is_the_residual_of_a_ridge_regression() -> None:
    """Ranks that correlate by r on a day, and by R in the reference: 1 - 2 b r + b^2 with b = R / (1 + ridge)."""
    rng = np.random.default_rng(1)
    values = rng.standard_normal((1, 50, 2)) + rng.standard_normal((1, 50, 1))
    r, reference = spearmanr(values[0]).statistic, 0.8
    unexplained, _ = daily_dependence(scores_of(values), np.array([[1.0, reference], [reference, 1.0]]))
    b = reference / (1 + RIDGE)
    np.testing.assert_allclose(np.exp(unexplained[0]), 1 - 2 * b * r + b * b, rtol=1e-6)


def test_the_distance_of_correlations_has_no_bias() -> None:
    """0 on average when nothing moved, however few instruments; else the square of what moved, by the other columns."""
    rng = np.random.default_rng(2)
    _, quiet = daily_dependence(scores_of(rng.standard_normal((2000, 15, 5))), np.eye(5))
    assert abs(quiet.mean()) < 0.002
    values = rng.standard_normal((100, 400, 5))
    values[:, :, 1] = 0.8 * values[:, :, 0] + 0.6 * values[:, :, 1]
    _, moved = daily_dependence(scores_of(values), np.eye(5))
    rank_correlation = 6 / np.pi * np.arcsin(0.8 / 2)
    assert moved[:, :2].mean() == pytest.approx(rank_correlation**2 / 4, rel=0.03)
    assert abs(moved[:, 2:].mean()) < 0.001


def test_what_a_column_is_like_alone_does_not_enter() -> None:
    """Any increasing change of a column leaves both numbers as they are; other instruments leave all others so."""
    frame = MARKETS["dependent"](3, 40, 30)
    before = daily_summaries(frame)
    after = daily_summaries(frame.assign(F3=np.exp(3 * frame["F3"])), before.norms)
    np.testing.assert_allclose(after.values[:, :, MARGINAL:], before.values[:, :, MARGINAL:], atol=1e-5)
    mixed = frame.assign(F3=frame.groupby(level=0)["F3"].transform(lambda day: day.to_numpy()[::-1]))
    moved = daily_summaries(mixed, before.norms)
    np.testing.assert_array_equal(moved.values[:, :, :MARGINAL], before.values[:, :, :MARGINAL])
    unexplained = STATISTICS.index("unexplained")
    assert (moved.values[:, 3, unexplained] > before.values[:, 3, unexplained] + 0.5).mean() > 0.9


def test_one_column_and_empty_ones_are_no_news() -> None:
    """A column alone is explained by none; one without values, or whose values are all the same, has no number."""
    rng = np.random.default_rng(4)
    alone, none = daily_dependence(scores_of(rng.standard_normal((3, 20, 1))), np.eye(1))
    np.testing.assert_allclose(alone, 0.0, atol=1e-5)
    assert not none.any()
    values = rng.standard_normal((3, 20, 3))
    values[:, :, 1], values[:, :, 2] = np.nan, 7.0
    for each in daily_dependence(scores_of(values), np.eye(3)):
        assert np.isfinite(each[:, 0]).all() and np.isnan(each[:, 1:]).all()
