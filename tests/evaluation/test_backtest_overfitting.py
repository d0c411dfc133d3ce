"""The luck of a search: closed forms, a published example, and error rates by simulation."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from mlops_tasks.evaluation.backtest_overfitting import (
    deflated_sharpe_ratio,
    effective_trials,
    expected_maximum,
    mean_correlation,
    overfitting,
    search_evidence,
    trials_variance,
    usable_partitions,
)
from tests.evaluation.searches import DAYS, Search, best_of


def test_the_published_example_of_a_deflated_sharpe_ratio() -> None:
    """Bailey and Lopez de Prado (2014), p. 99: ratio 2.5 a year, 1250 days, skewness -3, kurtosis 10, 100 trials: 0.90.

    A series of two values has kurtosis = skewness^2 + 1, as the example has.
    """
    values = np.repeat([1.0, 0.0], [1145, 105])
    values = (values - values.mean()) / values.std(ddof=1) + 2.5 / np.sqrt(250)
    values = np.random.default_rng(0).permutation(values)
    found = deflated_sharpe_ratio(values, n_trials=1, terms=len(values) - 1)
    assert (found.skewness, found.kurtosis) == (pytest.approx(-3, abs=1e-2), pytest.approx(10, abs=1e-2))
    for trials, expected, probability in ((100, 0.1132, 0.9004), (46, 0.1004, 0.9505)):
        found = deflated_sharpe_ratio(values, trials, variance=0.5 / 250, terms=1249)  # of their trials, 1/2 a year
        assert found.expected_maximum == pytest.approx(expected, abs=5e-5)
        assert found.probability == pytest.approx(probability, abs=5e-4)


@pytest.mark.parametrize("n", [1, 2, 5, 30, 1000])
def test_the_expected_maximum_is_that_of_normal_values(n: int) -> None:
    """The approximation agrees with the integral of x n phi(x) Phi(x)^(n-1)."""
    x = np.linspace(-10, 10, 200_001)
    exact = np.trapezoid(x * n * norm.pdf(x) * norm.cdf(x) ** (n - 1), x)
    assert expected_maximum(n) == pytest.approx(exact, abs=0.05)


def test_without_luck_to_take_out_it_is_the_plain_test() -> None:
    """One trial: the probability that the ratio is above zero, with the textbook's error for normal values."""
    values = np.random.default_rng(1).normal(0.01, 0.1, size=1000)
    found = deflated_sharpe_ratio(values, n_trials=1, terms=len(values) - 1)
    assert found.expected_maximum == 0
    assert found.standard_error == pytest.approx(np.sqrt((1 + found.sharpe**2 / 2) / 1000), rel=0.03)
    assert found.probability == pytest.approx(norm.cdf(found.sharpe / found.standard_error), abs=1e-3)


def test_effective_trials_are_those_of_independent_or_equal_trials() -> None:
    """N independent trials are worth N, N copies of one are worth one, and the correlation is NumPy's."""
    random = np.random.default_rng(2)
    independent = pd.DataFrame(random.normal(size=(4000, 20)))
    assert effective_trials(20, mean_correlation(independent)) == pytest.approx(20, rel=0.01)
    copies = pd.concat([independent[0]] * 20, axis=1)
    assert effective_trials(20, mean_correlation(copies)) == pytest.approx(1)
    mixed = pd.DataFrame(random.normal(size=(50, 1)) + random.normal(size=(50, 6)))
    pairs = np.corrcoef(mixed.T)[np.triu_indices(6, 1)]
    assert mean_correlation(mixed.assign(constant=0.0)) == pytest.approx(pairs.mean(), abs=1e-12)
    assert mean_correlation(mixed[[0]]) == 0.0
    with pytest.raises(ValueError, match="one trial or more"):
        effective_trials(0, 0.5)


@pytest.mark.parametrize("trials", [1, 10, 50])
@pytest.mark.parametrize(("correlation", "memory"), [(0.0, 0.0), (0.5, 0.3), (0.9, 0.0)])
def test_the_best_of_many_without_skill_seldom_survives(trials: int, correlation: float, memory: float) -> None:
    """Deflated at 95%, at most one search in twenty is taken for skill, however alike its trials are."""
    search, studies = Search(trials, correlation=correlation, memory=memory), 300
    survived = 0
    for seed in range(studies):
        drawn = search.draw(seed)
        found = deflated_sharpe_ratio(best_of(drawn).to_numpy(), trials, mean_correlation(drawn))
        survived += found.probability >= 0.95
    assert survived / studies <= 0.05 + 0.01 + 2 * np.sqrt(0.05 * 0.95 / studies)


def test_without_deflation_most_searches_would_be_taken_for_skill() -> None:
    """The same searches judged as if there had been one trial: luck passes for skill in most of them."""
    search = Search(50, correlation=0.0)
    plain = [deflated_sharpe_ratio(best_of(search.draw(seed)).to_numpy(), 1).probability for seed in range(50)]
    assert np.mean(np.array(plain) >= 0.95) > 0.7


def test_luck_is_the_larger_of_both_variances() -> None:
    """A variance of trials below the sampling variance changes nothing; above it the benchmark follows it alone."""
    values = np.random.default_rng(3).normal(0.05, 0.1, size=400)
    plain = deflated_sharpe_ratio(values, 20)
    below, above = (
        deflated_sharpe_ratio(values, 20, variance=(share * plain.standard_error) ** 2) for share in (0.9, 3)
    )
    assert (below.expected_maximum, below.probability) == (plain.expected_maximum, plain.probability)
    assert above.expected_maximum == pytest.approx(3 * plain.expected_maximum)
    with pytest.raises(ValueError, match="0 or more"):
        deflated_sharpe_ratio(values, 20, variance=-1e-9)


def test_the_trials_variance_is_that_of_luck_and_not_of_bad_trials() -> None:
    """Of normal ratios the variance itself; two fifths of bad trials hardly change it; a few have none."""
    ratios = np.random.default_rng(4).normal(0.1, 0.2, size=4000)
    assert trials_variance(ratios) == pytest.approx(0.04, rel=0.1)
    assert trials_variance(np.r_[ratios, np.full(8, np.nan)]) == trials_variance(ratios)
    assert trials_variance(np.r_[np.full(4, -3.0), np.full(6, 0.2)]) == 0
    assert trials_variance(np.array([0.1, 0.3])) == 0
    by_hand = np.array([0.4, 0.1, -5.0, 0.2])  # median 0.2 of the higher two in the middle
    assert trials_variance(by_hand) == pytest.approx(0.2**2)


def test_a_search_is_deflated_by_the_spread_of_its_trials() -> None:
    """Trials whose true ratios differ: the benchmark is the spread's, and it was the sampling error's before."""
    skill = np.random.default_rng(5).normal(0, 0.05, size=30)
    drawn = Search(30, 200, skill=skill).draw(0)
    found = search_evidence(best_of(drawn), drawn, 30).deflated
    assert found.trials_deviation == pytest.approx(0.5, rel=0.35)
    assert found.trials_deviation > found.standard_error
    assert found.expected_maximum == pytest.approx(found.trials_deviation * expected_maximum(found.effective_trials))


def test_real_skill_survives_deflation_and_failed_trials_do_not_change_that() -> None:
    """A ratio of 0.4 a day stands out of 50 trials, also where half of the search was truly bad."""
    bad_half = np.repeat([0.04, -0.1], 25)
    for skill in (0.04, bad_half):
        drawn = Search(50, skill=skill).draw(3)
        assert deflated_sharpe_ratio(best_of(drawn).to_numpy(), 50, mean_correlation(drawn)).probability > 0.99


def test_a_series_without_variance_has_no_ratio() -> None:
    """Constant performance gives NaN, which no gate lets pass; too few days are an error."""
    assert np.isnan(deflated_sharpe_ratio(np.zeros(50), 3).probability)
    with pytest.raises(ValueError, match="3 or more days"):
        deflated_sharpe_ratio(np.ones(2), 3)


def test_overfitting_is_what_its_definition_says() -> None:
    """All ways to take half of the blocks, counted one by one."""
    drawn = Search(7, 60).draw(5).to_numpy()
    found = overfitting(drawn, partitions=6)
    blocks = np.array_split(np.arange(60), 6)
    logits = []
    for chosen in combinations(range(6), 3):
        inside = np.isin(np.arange(60), np.concatenate([blocks[i] for i in chosen]))
        ratios = [part.mean(axis=0) / part.std(axis=0) for part in (drawn[inside], drawn[~inside])]
        rank = (ratios[1] <= ratios[1][ratios[0].argmax()]).sum()
        logits.append(np.log(rank / (8 - rank)))
    np.testing.assert_allclose(found.logits, logits, atol=1e-12)
    assert found.probability == np.mean(np.array(logits) < 0) + 0.5 * np.mean(np.array(logits) == 0)
    assert found.loss_probability == np.mean(found.out_of_sample < 0)


@pytest.mark.parametrize("trials", [2, 3, 40])
def test_noise_is_overfitted_every_second_time(trials: int) -> None:
    """Without skill the best in-sample is above the median out-of-sample half of the time."""
    found = [overfitting(Search(trials, 100, 0.3).draw(seed).to_numpy(), 8).probability for seed in range(300)]
    assert np.mean(found) == pytest.approx(0.5, abs=3 * np.std(found) / np.sqrt(len(found)))


def test_a_truly_better_trial_is_no_overfitting() -> None:
    """One trial with a skill that the others lack: the probability goes to zero."""
    skill = np.r_[np.zeros(29), 0.05]
    assert overfitting(Search(30, 250, skill=skill).draw(0).to_numpy()).probability < 0.01


def test_purged_days_do_not_count() -> None:
    """Whatever the days at the beginning of the later blocks hold, the result is the same."""
    drawn = Search(5, 80).draw(1).to_numpy()
    changed = drawn.copy()
    for start in (20, 40, 60):
        changed[start : start + 3] = np.random.default_rng(start).normal(size=(3, 5))
    np.testing.assert_allclose(overfitting(drawn, 4, 3).logits, overfitting(changed, 4, 3).logits)
    assert not np.allclose(overfitting(drawn, 4, 2).in_sample, overfitting(changed, 4, 2).in_sample)


@pytest.mark.parametrize(
    ("days", "purge", "partitions"), [(250, 2, 16), (60, 2, 8), (60, 0, 12), (20, 2, 2), (4, 0, 0)]
)
def test_partitions_leave_days_in_each_block(days: int, purge: int, partitions: int) -> None:
    """Sixteen where there are days enough, fewer where there are not, always even."""
    assert usable_partitions(days, purge) == partitions


@pytest.mark.parametrize(
    ("shape", "partitions"), [((50, 1), 4), ((50, 3), 5), ((50, 3), 40)], ids=["one trial", "odd", "short blocks"]
)
def test_what_cannot_be_measured_is_refused(shape: tuple[int, int], partitions: int) -> None:
    """One trial, an odd number of blocks and blocks of a day are errors; so is NaN."""
    with pytest.raises(ValueError, match="cannot be measured"):
        overfitting(np.random.default_rng(0).normal(size=shape), partitions)
    with pytest.raises(ValueError, match="not finite"):
        overfitting(np.full((40, 3), np.nan), 4)


def test_search_evidence_is_plain_json_and_counts_pruned_trials() -> None:
    """Trials without a series count; a day without a value is 0; a short segment has no probability."""
    drawn = Search(10, 120).draw(0)
    drawn.iloc[3:5, 2] = np.nan
    drawn.iloc[7] = np.nan
    found = search_evidence(best_of(drawn), drawn, n_trials=25)
    assert found.deflated.trials == 25 and found.deflated.n_days == 119
    expected = overfitting(drawn.drop(drawn.index[7]).fillna(0).to_numpy(), 16, 2)
    assert found.overfitting_probability == expected.probability
    assert found.loss_probability == expected.loss_probability
    content = found.to_json()
    assert content["deflated_sharpe_ratio"] == found.deflated.probability
    assert all(isinstance(value, int | float) for value in content.values())
    short = search_evidence(best_of(drawn[:20]), drawn[:20], 10)
    assert short.overfitting_probability is None and short.loss_probability is None
    assert search_evidence(drawn[0], drawn[[0]], 1).to_json()["overfitting_probability"] is None


def test_a_day_on_which_the_chosen_model_orders_nothing_counts_as_zero() -> None:
    """Twenty lucky days are no skill where all scores were the same on 180; scores that never differ have no ratio."""
    drawn = Search(10, 200).draw(0)
    lucky = (drawn[0].abs() + 0.05).where(np.arange(200) < 20)
    found = search_evidence(lucky, drawn, 10).deflated
    assert (found.n_days, found.sharpe) == (200, pytest.approx(lucky.fillna(0.0).mean() / lucky.fillna(0.0).std()))
    assert found == search_evidence(lucky.fillna(0.0), drawn, 10).deflated
    never = search_evidence(lucky * np.nan, drawn, 10).deflated
    assert np.isnan(never.probability) and never.n_days == 200


def test_trials_that_lack_days_are_counted_and_not_compared() -> None:
    """With values on half of the days a trial changes the number of trials only; days of the chosen alone are left."""
    drawn = Search(10, 200).draw(0)
    partial = drawn.assign(half=drawn[3].where(np.arange(200) >= 100))
    longer = pd.concat([drawn[0], pd.Series(0.1, DAYS[200:210])])
    assert search_evidence(longer, partial, 11) == search_evidence(drawn[0], drawn, 11)


def test_bad_trials_do_not_make_luck_look_lasting() -> None:
    """Thirty bad trials among ten of noise empty the share below the median; that below zero stays at half."""
    found = []
    for seed in range(100):
        noise, bad = Search(10, 80).draw(seed), Search(30, 80, skill=-0.1).draw(1000 + seed).add_prefix("bad")
        alone = search_evidence(best_of(noise), noise, 40)
        among = search_evidence(best_of(noise), noise.join(bad), 40)
        found.append((alone.loss_probability, among.loss_probability, among.overfitting_probability))
    alone, among, below_median = np.array(found).T
    assert below_median.max() < 0.05
    np.testing.assert_allclose(among, alone, atol=0.05)
    assert among.mean() == pytest.approx(0.5, abs=3 * among.std() / np.sqrt(len(among)))
