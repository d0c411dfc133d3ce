"""Property 9, explanation consistency: additivity, symmetry of equal features, zero for unused ones, equal seeds equal
values."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_tasks.explain.engine import ExplainOptions, explain
from mlops_tasks.explain.kernels import Trees
from mlops_tasks.explain.trees import TreeExplainer
from tests.explain.artefacts import artefact, rows_of
from tests.explain.games import USED, lightgbm_model, matrix, xgboost_model

SEEDS = st.integers(0, 10_000)


@settings(max_examples=20)
@given(seed=SEEDS, leaves=st.integers(2, 40))
def test_trees_are_additive_and_ignore_what_they_do_not_use(seed: int, leaves: int) -> None:
    """Base and contributions are the score, of every row; a column without a split contributes exactly nothing."""
    model, values = lightgbm_model(seed, num_leaves=leaves), matrix(100, seed + 1)
    explainer = TreeExplainer.of_lightgbm(model.model_to_string())
    found = explainer.contributions(values)
    np.testing.assert_allclose(explainer.base + found.sum(axis=1), model.predict(values), rtol=0, atol=1e-12)
    assert not found[:, USED:].any()


@settings(max_examples=20)
@given(seed=SEEDS)
def test_xgboost_is_additive(seed: int) -> None:
    """To the digits of float32."""
    model, values = xgboost_model(seed, max_depth=4), matrix(100, seed + 1)
    explainer = TreeExplainer.of_xgboost(bytes(model.save_raw("json")))
    total = explainer.base + explainer.contributions(values).sum(axis=1)
    np.testing.assert_allclose(total, model.inplace_predict(values), rtol=0, atol=1e-5)


@settings(max_examples=20)
@given(seed=SEEDS, columns=st.permutations(range(USED)))
def test_features_that_the_trees_treat_alike_share_alike(seed: int, columns: list[int]) -> None:
    """Beside each tree stands its copy with two features exchanged: where both have one value they contribute alike."""
    one, other = columns[:2]
    trees = TreeExplainer.of_lightgbm(lightgbm_model(seed, num_leaves=20).model_to_string()).trees
    both = TreeExplainer(beside(trees, exchanged(trees, one, other)))
    values = matrix(60, seed + 1)
    values[:, other] = values[:, one]
    found = both.contributions(values)
    np.testing.assert_allclose(found[:, one], found[:, other], rtol=0, atol=1e-12)


def exchanged(trees: Trees, one: int, other: int) -> Trees:
    """The same trees of exchanged features."""
    names = np.arange(trees.columns, dtype=np.int32)
    names[[one, other]] = other, one
    return trees._replace(feature=np.where(trees.feature < 0, -1, names[trees.feature]).astype(np.int32))


def beside(first: Trees, second: Trees) -> Trees:
    """The trees of both."""
    nodes = np.int32(len(first.left))
    moved = {side: np.where(getattr(second, side) < 0, -1, getattr(second, side) + nodes) for side in ("left", "right")}
    moved |= {"root": second.root + nodes}
    parts = {
        name: np.concatenate([getattr(first, name), moved.get(name, getattr(second, name))]).astype(
            getattr(first, name).dtype
        )
        for name in Trees._fields
        if name != "columns"
    }
    return Trees(first.columns, **parts)


@settings(max_examples=10)
@given(seed=SEEDS)
def test_linear_models_are_additive_and_in_proportion(seed: int) -> None:
    """coefficient * (value - mean of the background): nothing else has these four properties."""
    rng = np.random.default_rng(seed)
    coefficients = rng.standard_normal(4).round(2)
    coefficients[3], coefficients[1] = 0.0, coefficients[0]
    values = rng.standard_normal((30, 4)).astype(np.float32)
    values[:, 1] = values[:, 0]
    model = artefact("linear", coefficients=coefficients, intercept=0.5)
    found = explain(model, rows_of(values), rows_of(values[:20]))
    expected = coefficients * (values.astype(np.float64) - values[:20].mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(found.contributions.to_numpy(), expected, rtol=0, atol=1e-12)
    assert found.gap.largest < 1e-12
    assert (found.contributions.iloc[:, 0] == found.contributions.iloc[:, 1]).all()
    assert (found.contributions.iloc[:, 3] == 0).all()


@pytest.mark.parametrize("window", [1, 5])
def test_networks_are_additive_to_their_gap_and_repeat_themselves(window: int) -> None:
    """The stated gap is what is missing, more points make it smaller, and a seed decides the values."""
    values = np.random.default_rng(0).standard_normal((120, 4)).astype(np.float32)
    model, rows = artefact("network", window=window), rows_of(values, window=window)
    coarse, fine, again, other = (
        explain(model, rows, rows, ExplainOptions(background_rows=6, points=points, seed=seed))
        for points, seed in ((2, 1), (40, 1), (40, 1), (40, 2))
    )
    assert fine.gap.largest < min(0.1 * coarse.gap.largest, 0.01 * fine.gap.spread)
    assert fine.contributions.equals(again.contributions)
    assert not fine.contributions.equals(other.contributions)
    assert fine.gaps.abs().max() == fine.gap.largest


def test_a_network_ignores_what_it_does_not_use_and_treats_equals_alike() -> None:
    """Its first layer has no weight on the last feature, and the same weights on the first two."""
    model = artefact("network", window=1)
    values = np.random.default_rng(1).standard_normal((40, 4)).astype(np.float32)
    values[:, 1] = values[:, 0]
    first = next(each for each in model.predictor.network.modules() if isinstance(each, torch.nn.Linear))
    with torch.no_grad():
        first.weight[:, 3] = 0.0
        first.weight[:, 1] = first.weight[:, 0]
    found = explain(model, rows_of(values), rows_of(values), ExplainOptions(background_rows=8))
    assert (found.contributions.iloc[:, 3] == 0).all()
    np.testing.assert_allclose(found.contributions.iloc[:, 0], found.contributions.iloc[:, 1], rtol=0, atol=1e-6)
