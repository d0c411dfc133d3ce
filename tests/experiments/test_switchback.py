"""Days as units: the design's own randomness is the test's, under any dependence and under carry-over."""

import numpy as np
import pytest
from scipy.special import betaln, logsumexp

from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.inference.checks import PRIOR_UNITS, carry_over, novelty, sample_ratio
from mlops_tasks.experiments.inference.results import Horizon
from mlops_tasks.experiments.inference.switchback import Switchback, switchback_test
from tests.evaluation.test_significance import ar1

DESIGN = Switchback(days=80, block=4, washout=1)


def test_a_schedule_serves_each_arm_for_half_of_each_pair() -> None:
    """Blocks of one arm, both arms in each pair, days after the last whole pair in none."""
    design = Switchback(days=85, block=4, washout=1)
    first = design.assign(np.random.default_rng(1))[0]
    arms = design.schedule(first)
    assert (arms[80:] == -1).all()
    blocks = arms[:80].reshape(10, 2, 4)
    assert (blocks == blocks[:, :, :1]).all()
    assert (blocks[:, 0, 0] == first).all() and (blocks[:, :, 0].sum(axis=1) == 1).all()


def test_the_p_value_is_the_share_of_all_assignments() -> None:
    """Of six pairs: 64 assignments, written out."""
    design = Switchback(days=24, block=2, washout=1)
    values, first = ar1(0.5, 24, 3), np.array([True, False, True, True, False, False])
    contrast = np.array([values[4 * pair + 1] - values[4 * pair + 3] for pair in range(6)])
    observed = abs(np.mean(np.where(first, contrast, -contrast)))
    others = [
        abs(np.mean([c if (number >> pair) & 1 else -c for pair, c in enumerate(contrast)])) for number in range(64)
    ]
    result = switchback_test(values, first, design)
    assert result.p_value == pytest.approx(np.mean([other >= observed - 1e-12 for other in others]))
    assert (result.n, result.horizon) == (6, Horizon.FIXED)


def test_no_effect_is_seldom_found_under_dependence_and_carry_over_and_an_effect_is() -> None:
    """The first day of a block keeps some of the arm before, which a test that counts it takes for less effect."""
    generator, found, effect, low = np.random.default_rng(2), [], [], 0
    for seed in range(200):
        first = DESIGN.assign(generator)[0]
        arms = DESIGN.schedule(first).astype(float)
        before = np.concatenate([[0.0], arms[:-1]])
        noise = ar1(0.7, 80, seed) * np.sqrt(1 - 0.7**2)
        # An effect on the first day only, of the arm before: none on the days that count.
        found.append(switchback_test(noise + 2.0 * (before - arms) * (before != arms), first, DESIGN).significant)
        result = switchback_test(noise + 1.0 * arms, first, DESIGN)
        effect.append(result.effect)
        low += result.lower <= 1.0 <= result.upper
    assert np.mean(found) <= 0.09
    assert np.mean(effect) == pytest.approx(1.0, abs=0.06)
    assert low / 200 >= 0.9


def test_the_interval_is_where_the_test_ends() -> None:
    """An effect inside is not rejected, one outside is."""
    first = DESIGN.assign(np.random.default_rng(4))[0]
    values = ar1(0.3, 80, 4) + 0.8 * DESIGN.schedule(first)
    result = switchback_test(values, first, DESIGN)
    treated = DESIGN.schedule(first) == 1
    for bound, inside in ((result.lower, 0.01), (result.upper, -0.01)):
        assert switchback_test(values - (bound + inside) * treated, first, DESIGN).p_value > 0.05
        assert switchback_test(values - (bound - inside) * treated, first, DESIGN).p_value <= 0.05


def test_designs_that_prove_nothing_are_refused() -> None:
    """Too few pairs, blocks that are all washout, days that are missing."""
    with pytest.raises(ExperimentError, match="has no day to count"):
        Switchback(80, 2, 2)
    with pytest.raises(ExperimentError, match="4 pairs of blocks of 5 days, but 6 are needed"):
        Switchback(40, 5, 1)
    first = DESIGN.assign(np.random.default_rng(1))[0]
    with pytest.raises(ExperimentError, match="day 3 of the design"):
        switchback_test(np.where(np.arange(80) == 2, np.nan, 1.0), first, DESIGN)
    with pytest.raises(ExperimentError, match="pairs of blocks, got values of shape"):
        switchback_test(np.ones(10), first, DESIGN)


def test_carry_over_is_found_where_there_is_some() -> None:
    """The arm of the day before has half of the day's own effect; without it the check is silent at its level."""
    generator, found = np.random.default_rng(5), []
    for seed in range(150):
        treated = generator.random(120) < 0.5
        noise = ar1(0.3, 120, seed)
        found.append(carry_over(noise + 1.0 * treated, treated).found)
    assert np.mean(found) <= 0.1
    before = np.concatenate([[False], treated[:-1]])
    check = carry_over(noise + 2.0 * treated + 2.0 * before, treated)
    assert check.found and check.test.lower < 2.0 < check.test.upper and "leave out" in check.sentence
    with pytest.raises(ExperimentError, match="carry-over is not seen"):
        carry_over(noise, np.ones(120, dtype=bool))


def test_an_effect_that_fades_is_found() -> None:
    """And one that lasts is not said to fade: the rate is that of the level, also with few terms."""
    for n in (60, 120):
        rows = np.stack([ar1(0.3, n, seed) for seed in range(600)])
        assert np.mean([novelty(row + 0.5).found for row in rows]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)
    row = ar1(0.3, 252, 1)
    fading = novelty(row + np.linspace(2.5, 0.0, 252))
    assert fading.found and "fades" in fading.sentence
    assert fading.test.mean == pytest.approx(np.polyfit(np.arange(252) / 21, row + np.linspace(2.5, 0.0, 252), 1)[0])


def mean_factor(treated, units, share):
    """Logarithm of the mean of the Bayes factors of two arms, ratios of beta functions, written out."""
    factors = []
    for weight in PRIOR_UNITS:
        prior = (weight * share, weight * (1 - share))
        seen = betaln(prior[0] + treated, prior[1] + units - treated) - betaln(*prior)
        factors.append(seen - treated * np.log(share) - (units - treated) * np.log(1 - share))
    return logsumexp(factors, axis=0) - np.log(len(factors))


def test_a_sample_ratio_is_the_bayes_factor_and_names_a_mismatch() -> None:
    """Counts that chance explains pass, lost units do not, be they few or a small part of many."""
    ours = sample_ratio([8300, 1700], [0.8, 0.2])
    assert ours.p_value == pytest.approx(np.exp(-mean_factor(8300, 10_000, 0.8)), rel=1e-6)
    assert ours.expected == pytest.approx((8000, 2000))
    assert not sample_ratio([5050, 4950], [0.5, 0.5]).mismatch
    assert not sample_ratio([3, 1], [0.5, 0.5]).mismatch
    assert not sample_ratio([4050, 3950, 2000], [0.4, 0.4, 0.2]).mismatch
    lost = sample_ratio([5300, 4700], [0.5, 0.5])
    assert lost.mismatch and "find out where" in lost.said()
    assert sample_ratio([4000, 4000, 1600], [0.4, 0.4, 0.2]).mismatch
    assert sample_ratio([34, 0], [0.5, 0.5]).mismatch and sample_ratio([51_500, 48_500], [0.5, 0.5]).mismatch
    with pytest.raises(ExperimentError, match=r"sum to 1, got .* which sum to 0.9"):
        sample_ratio([5, 5], [0.5, 0.4])
    with pytest.raises(ExperimentError, match="wait"):
        sample_ratio([0, 0], [0.5, 0.5])


def test_a_sample_ratio_that_is_looked_at_every_day_alarms_seldom() -> None:
    """Of 2,000 sound experiments, ten units a day for a year, 2 are allowed; the chi-square test stops about 30."""
    generator = np.random.default_rng(6)
    treated = generator.binomial(10, 0.5, size=(2000, 252)).cumsum(axis=1)
    units = 10 * np.arange(1, 253)
    chi_square = (treated - units / 2) ** 2 / (units / 4)
    assert (chi_square > 10.83).any(axis=1).mean() > 0.008
    factors = mean_factor(treated, units, 0.5)
    last = [sample_ratio([2520 - count, count], [0.5, 0.5]).p_value for count in treated[:20, -1].tolist()]
    assert last == pytest.approx(np.exp(np.minimum(0.0, -factors[:20, -1])))
    assert (factors > np.log(1000)).any(axis=1).sum() <= 4
