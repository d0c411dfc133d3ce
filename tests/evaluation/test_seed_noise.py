"""Seed noise: SciPy's Welch test, closed forms and error rates."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mlops_tasks.evaluation.seed_noise import configuration_key, seed_band, seed_difference
from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.training_folder import TrainingManifest


def test_a_band_is_students_interval() -> None:
    """Mean, spread and interval of known values; one seed has no spread."""
    values = [0.03, 0.05, 0.04]
    band = seed_band(values, confidence=0.9)
    assert (band.mean, band.standard_deviation, band.n) == (pytest.approx(0.04), pytest.approx(0.01), 3)
    assert (band.lower, band.upper) == pytest.approx(stats.t.interval(0.9, 2, 0.04, 0.01 / np.sqrt(3)))
    alone = seed_band([0.03])
    assert alone.mean == 0.03 and np.isnan(alone.standard_deviation) and np.isnan(alone.upper)


def test_a_difference_is_welchs_test() -> None:
    """Difference, interval and p-value are SciPy's for samples of different size and spread."""
    random = np.random.default_rng(0)
    ours, theirs = random.normal(0.04, 0.01, 5), random.normal(0.03, 0.002, 3)
    expected = stats.ttest_ind(ours, theirs, equal_var=False)
    interval = expected.confidence_interval(0.95)
    found = seed_difference(ours, theirs)
    assert found.p_two_sided == pytest.approx(expected.pvalue)
    assert (found.lower, found.upper) == pytest.approx((interval.low, interval.high))
    assert found.beyond_noise == (expected.pvalue < 0.05)


def test_seeds_of_equal_configurations_seldom_differ() -> None:
    """Three seeds on each side: a difference is claimed in about one of twenty cases, and a large one is found."""
    random = np.random.default_rng(1)
    draws = random.normal(0.03, 0.004, size=(1000, 2, 3))
    claimed = np.mean([seed_difference(ours, theirs).beyond_noise for ours, theirs in draws])
    assert claimed <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 1000)
    assert np.mean([seed_difference(ours + 0.03, theirs).beyond_noise for ours, theirs in draws]) > 0.95


def test_models_without_randomness_differ_beyond_rounding_only() -> None:
    """Without spread any difference counts, but for what is only rounding."""
    assert not seed_difference([0.03, 0.03], [0.03, 0.03]).beyond_noise
    assert seed_difference([0.03, 0.03], [0.0301, 0.0301]).beyond_noise
    assert not seed_difference([0.03, 0.03], [0.03 + 1e-9, 0.03 + 1e-9], rounding=1e-6).beyond_noise


@pytest.mark.parametrize("values", [[], [0.1, float("nan")]])
def test_values_must_be_there(values: list[float]) -> None:
    """No value, or NaN, is an error that says what to do; so is a single seed where two sides are compared."""
    with pytest.raises(ValueError, match="leave seeds without a result out"):
        seed_band(values)
    with pytest.raises(ValueError, match="two seeds or more"):
        seed_difference([0.1], [0.1, 0.2])


def test_a_configuration_is_named_without_its_seed_and_dates() -> None:
    """Seed and segments leave the key; a hyper-parameter, the feature set and the horizon change it."""
    trained = TrainingManifest(
        model="linear",
        data_version="d",
        last_date="2020-01-31",
        feature_set="alpha158",
        feature_version="f",
        horizon=1,
        segments={},
        seed=1,
        model_config={"seed": 1, "hyperparameters": {"a": 1}},
    )
    key = configuration_key(trained)
    again = {"seed": 2, "hyperparameters": {"a": 1}}
    days = ("2020-01-01", "2020-01-31")
    assert configuration_key(replace(trained, model_config=again, segments={"train": days}, seed=2)) == key
    others = [{"model_config": {"seed": 1, "hyperparameters": {"a": 2}}}, {"feature_set": "x"}, {"horizon": 5}]
    assert len({key, *(configuration_key(replace(trained, **other)) for other in others)}) == 4


def test_a_test_of_a_mean_is_widened_as_welch_has_it() -> None:
    """With the variance of a second mean added, the test is Welch's of two samples."""
    random = np.random.default_rng(2)
    first, second = random.normal(0.5, 1, 12), random.normal(0, 2, 7)
    expected = stats.ttest_ind(first, second, equal_var=False)
    plain = cosine_mean(first - second.mean(), terms=len(first) - 1)
    exact = first.var(ddof=1) / 12
    assert plain.standard_error**2 == pytest.approx(exact)
    found = replace(plain, degrees_of_freedom=11.0).widened([(second.var(ddof=1) / 7, 6.0)])
    assert (found.t, found.p_two_sided) == pytest.approx((expected.statistic, expected.pvalue))
    assert plain.widened([(0.0, 2.0)]) == plain
