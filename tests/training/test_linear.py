"""Linear models: closed forms of their solutions."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlops_tasks.errors import TrainingError
from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.modeling.model_zoo.linear import LinearFamily
from mlops_tasks.modeling.model_zoo.qlib_models import qlib_model
from mlops_tasks.modeling.problem import LearningProblem, learning_problem
from mlops_tasks.modeling.processors import FittedProcessors
from mlops_tasks.modeling.session import TrainingSession
from tests.planted import Shape, plant


@pytest.fixture(scope="module")
def problem() -> LearningProblem:
    planted = plant("linear", Shape(days=80, instruments=20, features=4, snr=0.3))
    return learning_problem(planted.data, FittedProcessors(), "CSRankNorm")


def fitted(problem: LearningProblem, **hyperparameters: Any) -> LinearFamily:
    """A model of the zoo."""
    family = LinearFamily()
    family.fit(problem, TrainingSession(resolve_config("linear", hyperparameters, seed=0)))
    return family


def coefficients(problem: LearningProblem, **hyperparameters: Any) -> np.ndarray:
    """Of a fit."""
    return np.asarray(fitted(problem, **hyperparameters).coefficients)


@pytest.mark.parametrize(("estimator", "alpha", "penalty"), [("ols", 0.0, 0.0), ("ols", 5.0, 0.0), ("ridge", 300, 300)])
def test_least_squares_have_their_closed_form(
    problem: LearningProblem, estimator: str, alpha: float, penalty: float
) -> None:
    """(X'X + alpha I) w = X'y; ordinary least squares take no penalty."""
    rows = problem.learned(problem.train)
    x, y = problem.features[rows].astype(np.float64), problem.label[rows].astype(np.float64)
    expected = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    np.testing.assert_allclose(coefficients(problem, estimator=estimator, alpha=alpha), expected, rtol=1e-9)


def test_lasso_meets_its_optimality_condition(problem: LearningProblem) -> None:
    """X'(y - Xw) / n is alpha times the sign of each coefficient that is left."""
    rows = problem.learned(problem.train)
    x, y = problem.features[rows].astype(np.float64), problem.label[rows].astype(np.float64)
    found = coefficients(problem, estimator="lasso", alpha=0.05)
    assert np.all(found)
    np.testing.assert_allclose(x.T @ (y - x @ found) / len(y), 0.05 * np.sign(found), rtol=0.02)


@pytest.mark.parametrize("estimator", ["ols", "ridge", "lasso"])
@pytest.mark.parametrize("intercept", [False, True])
def test_it_is_what_qlib_finds(problem: LearningProblem, estimator: str, intercept: bool) -> None:
    """Coefficients and intercept of Qlib's `LinearModel` on the same rows, which computes in float32."""
    options = {"estimator": estimator, "alpha": {"ols": 0.0, "ridge": 100.0, "lasso": 0.02}[estimator]}
    peer = qlib_model("linear").LinearModel(**options, fit_intercept=intercept)
    peer.fit(problem.dataset)
    found = fitted(problem, **options, fit_intercept=intercept)
    np.testing.assert_allclose(found.coefficients, peer.coef_, rtol=1e-3, atol=1e-5)
    assert found.intercept == pytest.approx(float(peer.intercept_), abs=1e-5)


def test_rows_that_lack_a_feature_and_features_that_repeat_another_are_no_obstacle(problem: LearningProblem) -> None:
    """The first are left out; of equal features each has an equal part, as the shortest solution says."""
    features = np.c_[problem.features, problem.features[:, 0]]
    features[::7, 2] = np.nan
    doubled = replace(problem, features=features, names=[*problem.names, "again"])
    rows = problem.learned(problem.train)
    rows = rows[~np.isnan(features[rows]).any(axis=1)]
    x, y = features[rows].astype(np.float64), problem.label[rows].astype(np.float64)
    expected = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(coefficients(doubled), expected, rtol=1e-8)
    assert expected[0] == pytest.approx(expected[-1])


def test_an_infinite_feature_and_rows_without_any_are_told(problem: LearningProblem) -> None:
    """With the remedy; neither has a least-squares solution."""
    features = problem.features.copy()
    features[5, 1] = np.inf
    with pytest.raises(TrainingError, match="a feature is infinite; set feature_processors"):
        fitted(replace(problem, features=features))
    with pytest.raises(TrainingError, match="every training row lacks a feature"):
        fitted(replace(problem, features=np.full_like(features, np.nan)))


def test_a_penalty_that_leaves_no_factor_is_an_error(problem: LearningProblem) -> None:
    """Equal scores for all rows are no model."""
    with pytest.raises(TrainingError, match=r"lasso with alpha 100 leaves no factor; lower hyperparameters\.linear"):
        coefficients(problem, estimator="lasso", alpha=100.0)
