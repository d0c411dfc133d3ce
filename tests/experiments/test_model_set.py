"""Several models at once, beliefs, and resampled means."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlops_tasks.errors import ExperimentError
from mlops_tasks.evaluation.confidence_sequences import Bernstein
from mlops_tasks.experiments.inference.bayes import belief
from mlops_tasks.experiments.inference.dated import open_ended, paired
from mlops_tasks.experiments.inference.model_set import (
    bootstrap_confidence_set,
    confidence_set,
    sequential_confidence_set,
)
from mlops_tasks.experiments.inference.resampling import Blocks, block_length, bootstrap_mean, resampling_weights
from mlops_tasks.experiments.inference.results import Method
from tests.evaluation.test_significance import ar1


def losses(seed: int, means: tuple[float, ...], days: int = 120, deviation: float = 1.0) -> pd.DataFrame:
    """Autocorrelated losses of models a, b, c, ..., with these means."""
    names = "abcdef"[: len(means)]
    return pd.DataFrame(
        {
            name: mean + deviation * ar1(0.3, days, 100 * seed + number)
            for number, (name, mean) in enumerate(zip(names, means, strict=True))
        },
        pd.bdate_range("2024-01-01", periods=days),
    )


@pytest.mark.parametrize("choose", [confidence_set, bootstrap_confidence_set])
def test_equal_models_are_all_kept_and_a_bad_one_goes(choose) -> None:
    """The best is dropped in few of forty sets of equal models; a clearly worse one is dropped in nearly all."""
    equal = [choose(losses(seed, (0.0, 0.0, 0.0))) for seed in range(40)]
    assert sum(len(found.kept) < 3 for found in equal) <= 6
    worse = [choose(losses(seed, (0.0, 0.0, 2.5))) for seed in range(20)]
    assert sum("c" not in found.kept for found in worse) >= 18
    assert "c may be dropped" in next(found for found in worse if found.kept == ("a", "b")).said()


def test_the_sequential_set_may_be_looked_at_on_any_day() -> None:
    """A bounded loss: a bad model is dropped and stays out; equal ones stay."""
    generator, bound = np.random.default_rng(7), Bernstein(2.0, v_opt=10.0)
    wins = generator.random((1500, 3)) < np.array([0.3, 0.3, 0.6])
    table = pd.DataFrame(wins.astype(float), columns=list("abc"))
    assert sequential_confidence_set(table, bound).kept == ("a", "b")
    assert sequential_confidence_set(table[["a", "b"]], bound).kept == ("a", "b")
    assert sequential_confidence_set(table.iloc[:15], bound).kept == ("a", "b", "c")
    with pytest.raises(ExperimentError, match="range that is possible"):
        sequential_confidence_set(table * 5, bound)


def test_sets_that_cannot_be_judged_are_refused() -> None:
    """One model, and two that are the same."""
    table = losses(1, (0.0, 0.0))
    with pytest.raises(ExperimentError, match="two models or more"):
        confidence_set(table[["a"]])
    with pytest.raises(ExperimentError, match="differ by the same on all days"):
        confidence_set(table.assign(c=table["a"] + 1.0))


def test_beliefs_with_a_flat_prior_are_the_likelihood_and_a_narrow_one_shrinks() -> None:
    """Probability and interval are those of the t distribution; the prior pulls the effect towards zero."""
    result = paired(ar1(0.3, 120, 4) + 0.3)
    flat, narrow = belief(result), belief(result, prior_deviation=0.05)
    assert flat.p_better == pytest.approx(stats.t(4).cdf(result.effect / result.standard_error), abs=1e-4)
    assert (flat.lower, flat.upper) == pytest.approx((result.lower, result.upper), abs=1e-3)
    assert abs(narrow.mean) < abs(result.effect) / 2
    assert flat.loss_if_refused - flat.loss_if_chosen == pytest.approx(flat.mean)
    with pytest.raises(ExperimentError, match="no likelihood"):
        belief(open_ended(ar1(0.3, 120, 4)))
    with pytest.raises(ExperimentError, match="above 0"):
        belief(result, prior_deviation=0.0)


@pytest.mark.parametrize("blocks", list(Blocks))
@pytest.mark.parametrize("length", [1, 4, 25])
def test_each_resample_has_as_many_days(blocks: Blocks, length: int) -> None:
    """Weights are whole numbers of days that sum to n, equal on average, and runs are blocks."""
    weights = resampling_weights(60, length, blocks, 4000, np.random.default_rng(1)) * 60
    np.testing.assert_allclose(weights, np.round(weights), atol=1e-9)
    assert (weights >= -1e-9).all()
    np.testing.assert_allclose(weights.sum(axis=1), 60)
    np.testing.assert_allclose(weights.mean(axis=0), 1.0, atol=0.2)
    variance = (weights @ ar1(0.0, 60, 2)).var()
    assert variance > 0


def test_blocks_keep_the_dependence_that_single_days_lose() -> None:
    """Of an AR(1) of 0.6 the resampled mean's error is near the truth with blocks, and half of it without."""
    rows = [ar1(0.6, 400, seed) for seed in range(12)]
    single, circular, stationary = (
        np.mean([bootstrap_mean(row, kind).standard_error for row in rows]) for kind in (None, *Blocks)
    )
    truth = 2.5 / np.sqrt(400)
    assert single < 0.6 * truth
    assert 0.75 * truth < circular < 1.1 * truth and 0.75 * truth < stationary < 1.1 * truth
    assert block_length(0.0, 252, Blocks.CIRCULAR) == 1 < block_length(0.6, 252, Blocks.CIRCULAR) < 84
    result = bootstrap_mean(rows[0] + 1.0, Blocks.STATIONARY)
    assert (result.method, result.significant) == (Method.STATIONARY_BOOTSTRAP, True)
