"""Shapley values of trees are those of the definition, of LightGBM and of XGBoost."""

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_tasks.errors import ExplanationError
from mlops_tasks.explain.trees import TreeExplainer
from tests.explain.games import COLUMNS, label_of, lightgbm_model, matrix, mean_of_paths, shapley, xgboost_model


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    leaves=st.integers(2, 60),
    depth=st.sampled_from([-1, 1, 2, 3, 8]),
    missing=st.booleans(),
    rows=st.integers(1, 150),
)
def test_values_are_lightgbms_own(seed: int, leaves: int, depth: int, missing: bool, rows: int) -> None:
    """Whatever the shape of the trees, how often a feature is split on a path, and what is missing."""
    model = lightgbm_model(seed, num_leaves=leaves, max_depth=depth, use_missing=missing)
    values = matrix(rows, seed + 1)
    values[::7, seed % COLUMNS], values[::5, (seed + 1) % COLUMNS] = np.inf, -np.inf
    expected = model.predict(values, pred_contrib=True, num_threads=1)
    explainer = TreeExplainer.of_lightgbm(model.model_to_string())
    np.testing.assert_allclose(explainer.contributions(values), expected[:, :-1], rtol=0, atol=1e-12)
    assert explainer.base == pytest.approx(expected[0, -1], abs=1e-12)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), depth=st.integers(1, 8), rows=st.integers(1, 150))
def test_values_are_xgboosts_own(seed: int, depth: int, rows: int) -> None:
    """To the digits of float32, in which XGBoost has them."""
    model = xgboost_model(seed, max_depth=depth)
    values = matrix(rows, seed + 1)
    expected = model.predict(xgboost.DMatrix(values, nthread=1), pred_contribs=True)
    explainer = TreeExplainer.of_xgboost(bytes(model.save_raw("json")))
    np.testing.assert_allclose(explainer.contributions(values), expected[:, :-1], rtol=0, atol=1e-5)
    assert explainer.base == pytest.approx(expected[0, -1], abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_the_definition(seed: int) -> None:
    """Over all 128 coalitions, without any library's explanations."""
    model = lightgbm_model(seed, rounds=2, num_leaves=25)
    explainer = TreeExplainer.of_lightgbm(model.model_to_string())
    values = matrix(5, seed + 1)
    for row, found in zip(values, explainer.contributions(values), strict=True):
        expected = shapley(COLUMNS, lambda known, row=row: mean_of_paths(explainer.trees, row, known))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_deep_paths_are_exact() -> None:
    """A chain of forty splits, on all columns again and again."""
    values = matrix(400, 3)
    chosen = {"max_depth": -1, "num_leaves": 200, "min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 0.0}
    model = lightgbm_model(3, rounds=3, **chosen)
    assert model.trees_to_dataframe().node_depth.max() > 12
    expected = model.predict(values, pred_contrib=True, num_threads=1)[:, :-1]
    explainer = TreeExplainer.of_lightgbm(model.model_to_string())
    np.testing.assert_allclose(explainer.contributions(values), expected, rtol=0, atol=1e-10)


def test_a_tree_of_one_leaf_explains_nothing() -> None:
    """Where nothing can be split: all is base."""
    model = lightgbm_model(0, rounds=3, min_data_in_leaf=1000)
    explainer = TreeExplainer.of_lightgbm(model.model_to_string())
    values = matrix(3, 1)
    assert not explainer.contributions(values).any()
    assert explainer.base == pytest.approx(model.predict(values)[0], abs=1e-12)


def test_threads_and_other_rows_change_no_bit() -> None:
    """A row's values are its own."""
    explainer = TreeExplainer.of_lightgbm(lightgbm_model(1, num_leaves=40).model_to_string())
    values = matrix(500, 2)
    whole = explainer.contributions(values)
    assert explainer.contributions(values, threads=3).tobytes() == whole.tobytes()
    assert explainer.contributions(values[100:103]).tobytes() == whole[100:103].tobytes()
    assert explainer.contributions(values[:0]).shape == (0, COLUMNS)


def test_other_lightgbm_models_are_refused() -> None:
    """A score that is transformed is no sum of contributions."""
    with pytest.raises(ExplanationError, match="plain sum of trees"):
        TreeExplainer.of_lightgbm(lightgbm_model(0, objective="poisson").model_to_string())


def test_other_xgboost_models_are_refused() -> None:
    """Means of trees, transformed scores, and splits by categories."""
    for parameters in ({"booster": "dart"}, {"objective": "reg:pseudohubererror"}):
        with pytest.raises(ExplanationError, match="only gbtree with reg:squarederror"):
            TreeExplainer.of_xgboost(bytes(xgboost_model(0, **parameters).save_raw("json")))
    values = np.abs(matrix(300, 0))
    values[:, 0] = np.arange(300) % 7
    rows = xgboost.DMatrix(values, label_of(values, 0), feature_types=["c", *["q"] * (COLUMNS - 1)], nthread=1)
    model = xgboost.train({"max_cat_to_onehot": 1, "nthread": 1}, rows, 5)
    with pytest.raises(ExplanationError, match="splits by categories"):
        TreeExplainer.of_xgboost(bytes(model.save_raw("json")))


def test_rows_of_another_width_are_refused() -> None:
    """The error says how many columns there are."""
    explainer = TreeExplainer.of_lightgbm(lightgbm_model(0).model_to_string())
    with pytest.raises(ExplanationError, match="the model has 7 columns"):
        explainer.contributions(matrix(3, 0)[:, :4])
