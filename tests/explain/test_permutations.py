"""Models that are only asked for scores: Shapley values by orders of the features, with their standard error."""

import numpy as np
import pytest

from mlops_tasks.explain.permutations import PermutationExplainer
from tests.explain.games import shapley


def interacting(x: np.ndarray) -> np.ndarray:
    """An interaction of three, one of two, and a feature alone; the last feature says nothing."""
    x = x.astype(np.float64)
    found: np.ndarray = x[:, 0] * x[:, 1] * x[:, 2] + np.abs(x[:, 1] - x[:, 3]) + 2 * x[:, 0]
    return found


def exact(row: np.ndarray, background: np.ndarray) -> np.ndarray:
    """By the definition, over all coalitions."""

    def worth(known: frozenset[int]) -> float:
        mixed = background.copy()
        mixed[:, list(known)] = row[list(known)]
        return float(interacting(mixed).mean())

    return shapley(len(row), worth)


def test_values_are_shapley_values_within_their_standard_error() -> None:
    """Ten rows and five features: nearly all lie within two errors and none beyond five; the sum has no gap."""
    rng = np.random.default_rng(0)
    rows, background = (rng.standard_normal((count, 5)).astype(np.float32) for count in (10, 400))
    explainer = PermutationExplainer(interacting, background, seed=1)
    found = explainer.contributions(rows)
    expected = np.array([exact(row, background) for row in rows])
    # Orders and baselines are drawn together: against this background the error can only be smaller than stated.
    misses = np.abs(found.values - expected)[:, :4] / np.sqrt(found.variances[:, :4])
    assert misses.max() < 5
    assert (misses < 2).mean() > 0.9
    assert (found.values[:, 4] == 0).all()
    np.testing.assert_allclose(explainer.base() + found.values.sum(axis=1), interacting(rows), rtol=0, atol=1e-9)


def test_an_additive_function_needs_no_order() -> None:
    """The steps are the same in every order: f_i(x) less its mean over the background."""
    rng = np.random.default_rng(1)
    rows, background = (rng.standard_normal((count, 3)).astype(np.float32) for count in (20, 7))
    found = PermutationExplainer(lambda x: x[:, 0] ** 2 - 3 * x[:, 2], background, seed=1).contributions(rows)
    one, three = (rows[:, place].astype(np.float64) for place in (0, 2))
    np.testing.assert_allclose(found.values[:, 0], one**2 - (background[:, 0].astype(float) ** 2).mean(), atol=1e-5)
    np.testing.assert_allclose(found.values[:, 2], -3 * (three - background[:, 2].astype(float).mean()), atol=1e-5)


@pytest.mark.parametrize("rows", [0, 1, 33])
def test_rows_are_explained_alike_alone_and_together(rows: int) -> None:
    """To the last bit, and with the same seed again; no row has none."""
    rng = np.random.default_rng(2)
    values, background = (rng.standard_normal((count, 5)).astype(np.float32) for count in (33, 6))
    explainer = PermutationExplainer(interacting, background, seed=3)
    whole, some = explainer.contributions(values), explainer.contributions(values[:rows])
    assert some.values.shape == (rows, 5)
    assert whole.values[:rows].tobytes() == some.values.tobytes()
    other = PermutationExplainer(interacting, background, seed=4).contributions(values)
    assert other.values.tobytes() != whole.values.tobytes()
