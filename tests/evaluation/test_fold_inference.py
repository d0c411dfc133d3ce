"""Errors of a mean over folds: closed forms of who trains whom, brute force, and coverage on noise."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_tasks.evaluation.fold_inference import inflated, variance_inflation
from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.evaluation.splits import CombinatorialPurged, Gap, Split, WalkForward
from tests.evaluation.fold_panels import SPLITTERS, Panels

NONE = np.arange(0)


def test_blocks_that_train_each_other_double_the_variance() -> None:
    """Two halves, each the other's training set: exactly 2. A walk-forward, and folds of one direction: exactly 1."""
    first, second = np.arange(10), np.arange(10, 20)
    both = [Split(first, NONE, second), Split(second, NONE, first)]
    assert variance_inflation(both, 20) == pytest.approx(2)
    assert variance_inflation(both[:1], 20) == 1
    assert variance_inflation(list(WalkForward(40, 20, 10, gap=Gap(1, 2)).splits(200)), 200) == 1
    assert variance_inflation([Split(first, NONE, NONE)], 20) == 1, "nothing is tested"


@given(st.integers(2, 6), st.integers(1, 2), st.integers(0, 3), st.integers(0, 6))
def test_it_is_the_variance_ratio_of_symmetric_terms(groups: int, tested: int, embargo: int, valid: int) -> None:
    """Brute force over pairs of days: each pair's term once with both weights, against each weight by itself."""
    n_days = 90
    splitter = CombinatorialPurged(groups, min(tested, groups - 1), valid, Gap(1, embargo))
    splits = list(splitter.splits(n_days))
    weights = np.zeros((n_days, n_days))
    for split in splits:
        for day in split.test:
            weights[split.train, day] += 1 / np.sqrt(len(split.train))
    weights /= splitter.n_paths
    pairs = np.tril_indices(n_days, -1)
    shared = np.sum((weights[pairs] + weights.T[pairs]) ** 2)
    separate = np.sum(weights[pairs] ** 2 + weights.T[pairs] ** 2)
    assert variance_inflation(splits, n_days) == pytest.approx(shared / separate)
    assert 1 <= variance_inflation(splits, n_days) <= 2


def test_an_inflated_test_is_the_same_test_with_a_larger_error() -> None:
    """Interval and t change by the square root; one that is not inflated, or has no error, does not change."""
    plain = cosine_mean(np.random.default_rng(0).normal(0.02, 0.1, 200))
    wide = inflated(plain, 2.0)
    assert wide.t == pytest.approx(plain.t / np.sqrt(2))
    assert wide.upper - wide.lower == pytest.approx((plain.upper - plain.lower) * np.sqrt(2))
    assert wide.lower_bound(0.025) == pytest.approx(wide.lower)
    assert (wide.p_two_sided, wide.p_one_sided) == (
        pytest.approx(2 * wide.p_one_sided),
        pytest.approx(wide.p_one_sided),
    )
    same = inflated(plain, 1.0)
    assert dataclasses.astuple(same) == pytest.approx(dataclasses.astuple(plain))
    constant = cosine_mean(np.full(32, 0.5))
    assert inflated(constant, 2.0) == constant


def test_intervals_over_folds_hold_zero_on_noise() -> None:
    """Three kinds of splits, 120 panels: the plain intervals miss zero too often, those that know the folds do not."""
    splitters = {name: each for name, each in SPLITTERS.items() if name != "10 groups, 1 tested"}
    panels = Panels()
    drawn = [panels.daily(list(splitters.values()), seed) for seed in range(120)]
    for (name, splitter), dailies in zip(splitters.items(), zip(*drawn, strict=True), strict=True):
        inflation = variance_inflation(list(splitter.splits(panels.days)), panels.days)
        plain = [cosine_mean(daily) for daily in dailies]
        missed, missed_plain = (
            np.mean([test.p_two_sided <= 0.05 for test in tests])
            for tests in ([inflated(test, inflation) for test in plain], plain)
        )
        assert missed <= 0.05 + 3 * 0.02, name  # three standard errors of a share of 120
        if name != "walk-forward":
            assert missed_plain >= missed + 0.03, name
