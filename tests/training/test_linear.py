"""Linear models: closed forms of their solutions."""

from typing import Any

import numpy as np
import pytest

from mlops_tasks.errors import TrainingError
from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.modeling.model_zoo.linear import LinearFamily
from mlops_tasks.modeling.problem import LearningProblem, learning_problem
from mlops_tasks.modeling.processors import FittedProcessors
from mlops_tasks.modeling.session import TrainingSession
from tests.planted import Shape, plant


@pytest.fixture(scope="module")
def problem() -> LearningProblem:
    planted = plant("linear", Shape(days=80, instruments=20, features=4, snr=0.3))
    return learning_problem(planted.data, FittedProcessors(), "CSRankNorm")


def coefficients(problem: LearningProblem, **hyperparameters: Any) -> np.ndarray:
    """Of a fit."""
    family = LinearFamily()
    family.fit(problem, TrainingSession(resolve_config("linear", hyperparameters, seed=0)))
    return np.asarray(family.model.coef_)


@pytest.mark.parametrize(("estimator", "alpha", "penalty"), [("ols", 0.0, 0.0), ("ols", 5.0, 0.0), ("ridge", 300, 300)])
def test_least_squares_have_their_closed_form(
    problem: LearningProblem, estimator: str, alpha: float, penalty: float
) -> None:
    """(X'X + alpha I) w = X'y; ordinary least squares take no penalty."""
    rows = problem.learned(problem.train)
    x, y = problem.features[rows].astype(np.float64), problem.label[rows].astype(np.float64)
    expected = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    np.testing.assert_allclose(coefficients(problem, estimator=estimator, alpha=alpha), expected, rtol=1e-3)


def test_lasso_meets_its_optimality_condition(problem: LearningProblem) -> None:
    """X'(y - Xw) / n is alpha times the sign of each coefficient that is left."""
    rows = problem.learned(problem.train)
    x, y = problem.features[rows].astype(np.float64), problem.label[rows].astype(np.float64)
    found = coefficients(problem, estimator="lasso", alpha=0.05)
    assert np.all(found)
    np.testing.assert_allclose(x.T @ (y - x @ found) / len(y), 0.05 * np.sign(found), rtol=0.02)


def test_a_penalty_that_leaves_no_factor_is_an_error(problem: LearningProblem) -> None:
    """Equal scores for all rows are no model."""
    with pytest.raises(TrainingError, match=r"lasso with alpha 100 leaves no factor; lower hyperparameters\.linear"):
        coefficients(problem, estimator="lasso", alpha=100.0)
