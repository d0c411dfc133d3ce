"""Trees summed by the kernel are LightGBM's own scores, bit by bit, whatever its trees look like."""

from pathlib import Path

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_tasks.modeling.model_zoo import forest
from mlops_tasks.modeling.model_zoo.forest import forest_of, sum_trees
from mlops_tasks.modeling.model_zoo.lightgbm import LightGBMPredictor

COLUMNS = 6


def matrix(rows: int, seed: int) -> np.ndarray:
    """Values of every kind that a float32 may be: coarse ones that meet thresholds, tiny, huge, infinite, missing."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, COLUMNS)).astype(np.float32)
    values[:, 1] = np.round(values[:, 1] * 4) / 4
    values[:, 2] *= np.float32(1e-38)
    odd = np.array([np.nan, 0.0, -0.0, np.inf, -np.inf, 3.4e38, 1e-45], np.float32)
    chosen = rng.random(values.shape) < 0.1
    values[chosen] = rng.choice(odd, chosen.sum())
    return values


def booster(seed: int = 0, rounds: int = 20, **parameters: object) -> lightgbm.Booster:
    """Trees that follow two of the columns."""
    values = matrix(400, seed)
    known = np.nan_to_num(values.astype(np.float64), posinf=2, neginf=-2).clip(-3, 3)
    label = known[:, 0] + np.sin(3 * known[:, 1]) + 0.1 * np.random.default_rng(seed).standard_normal(len(values))
    chosen = {"objective": "regression", "verbosity": -1, "min_data_in_leaf": 5, "seed": seed, "num_threads": 1}
    categorical = parameters.pop("categorical_feature", "auto")
    learn = lightgbm.Dataset(values, label, categorical_feature=categorical, params={"verbosity": -1})
    return lightgbm.train(chosen | parameters, learn, rounds)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    leaves=st.integers(2, 60),
    objective=st.sampled_from(["regression", "regression_l1", "huber", "fair", "quantile", "lambdarank"]),
    missing=st.booleans(),
    rows=st.integers(1, 200),
)
def test_scores_are_lightgbms_own(seed: int, leaves: int, objective: str, missing: bool, rows: int) -> None:
    """Of any depth, with and without a way of its own for what is missing."""
    depth = (-1, 1, 3, 8)[seed % 4]
    parameters = {"num_leaves": leaves, "max_depth": depth, "use_missing": missing}
    if objective == "lambdarank":
        model = ranker(seed, parameters)
    else:
        model = booster(seed, 8, objective=objective, **parameters)
    forest = forest_of(model.model_to_string())
    assert forest is not None
    values = matrix(rows, seed + 1)
    assert sum_trees(forest, values).tobytes() == model.predict(values, num_threads=1).tobytes()


def ranker(seed: int, parameters: dict[str, object]) -> lightgbm.Booster:
    """Trees of a ranking."""
    values = matrix(400, seed)
    grade = np.random.default_rng(seed).integers(0, 4, 400)
    learn = lightgbm.Dataset(values, grade, group=[40] * 10, params={"verbosity": -1})
    return lightgbm.train({"objective": "lambdarank", "verbosity": -1, "seed": seed, **parameters}, learn, 8)


def test_a_tree_of_one_leaf_is_its_value() -> None:
    """Where nothing can be split."""
    model = booster(rounds=3, min_data_in_leaf=1000)
    forest = forest_of(model.model_to_string())
    assert forest is not None
    values = matrix(70, 1)
    assert sum_trees(forest, values).tobytes() == model.predict(values).tobytes()


@pytest.mark.parametrize(
    "parameters",
    [
        {"categorical_feature": [1]},
        {"zero_as_missing": True},
        {"linear_tree": True},
        {"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1},
        {"objective": "poisson"},
        {"reg_sqrt": True},
    ],
    ids=lambda parameters: next(iter(parameters)),
)
def test_what_is_no_sum_of_plain_trees_is_left_to_lightgbm(parameters: dict[str, object], tmp_path: Path) -> None:
    """And the predictor gives LightGBM's scores all the same."""
    if "categorical_feature" in parameters or "objective" in parameters:
        model = counted(parameters)
    else:
        model = booster(**parameters)
    assert forest_of(model.model_to_string()) is None
    model.save_model(tmp_path / "model.txt")
    values = np.abs(np.round(matrix(50, 3).clip(-3, 3)))
    assert LightGBMPredictor(tmp_path / "model.txt", 1).predict(values).tobytes() == model.predict(values).tobytes()


def counted(parameters: dict[str, object]) -> lightgbm.Booster:
    """Trees of whole numbers, none negative."""
    values = np.random.default_rng(0).integers(0, 4, (400, COLUMNS)).astype(np.float32)
    label = 5 * (values[:, 1] == 2) + values[:, 0]
    asked = {"objective": "regression", "verbosity": -1, "min_data_in_leaf": 5, "min_data_per_group": 5, **parameters}
    learn = lightgbm.Dataset(values, label, categorical_feature=asked.pop("categorical_feature", "auto"))
    return lightgbm.train(asked, learn, 8)


def test_the_predictor_sums_what_it_can(tmp_path: Path) -> None:
    """float32 rows of the model's width go to the kernel; others, whom LightGBM judges, to LightGBM."""
    model = booster()
    model.save_model(tmp_path / "model.txt")
    predictor = LightGBMPredictor(tmp_path / "model.txt", 1)
    values = matrix(100, 5)
    wide = np.asfortranarray(values)
    assert predictor.forest is not None
    assert predictor.predict(wide).tobytes() == model.predict(values).tobytes()
    assert predictor.predict(values.astype(np.float64)).tobytes() == model.predict(values).tobytes()
    with pytest.raises(lightgbm.basic.LightGBMError, match="number of features"):
        predictor.predict(values[:, :3])


def test_trees_that_a_node_has_no_bits_for_are_left_to_lightgbm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many columns, or too many nodes in one tree; one fewer is summed."""
    text = booster(rounds=3, num_leaves=8).model_to_string()
    for limit, size in (("MOST_COLUMNS", COLUMNS), ("MOST_NODES", 15)):
        monkeypatch.setattr(forest, limit, size)
        assert forest_of(text) is not None
        monkeypatch.setattr(forest, limit, size - 1)
        assert forest_of(text) is None
        monkeypatch.undo()
