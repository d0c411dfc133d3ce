"""Linear models, solved from sums over the rows: their memory beyond the learning matrix does not grow with the rows.

The rows of X and y enter a least-squares problem only through X'X, X'y and y'y. These are summed block by block in
float64, and a matrix with as many rows as columns that has the same products is given to scikit-learn's solvers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sklearn.linear_model import Lasso, LinearRegression, Ridge
from threadpoolctl import threadpool_limits

from mlops_tasks.errors import TrainingError
from mlops_tasks.files import read_json, write_json
from mlops_tasks.modeling.manifest import ArtefactManifest
from mlops_tasks.modeling.model_zoo.family import FitResult, FloatArray, Predictor
from mlops_tasks.modeling.model_zoo.memory import linear_bytes
from mlops_tasks.modeling.problem import LearningProblem
from mlops_tasks.modeling.session import TrainingSession

MODEL_FILE = "linear.json"
BLOCK = 4096
"""Rows that are held in float64 at once."""


class LinearFamily:
    """Least squares as in Qlib's `LinearModel`; importance is the size of a coefficient on scaled features."""

    coefficients: FloatArray
    """Shape (features,)."""
    intercept: float

    def fit(self, problem: LearningProblem, session: TrainingSession) -> FitResult:
        """Solve once; there are no iterations, and so no curve. Rows with a missing feature are left out.

        Raises
        ------
        TrainingError
            No row has all features, a coefficient is not finite, or the penalty sets all coefficients to zero.
        """
        parameters = session.config.hyperparameters
        estimator, alpha = str(parameters["estimator"]), float(parameters["alpha"])
        with threadpool_limits(session.threads):
            sums = Sums.of(problem, centred=bool(parameters["fit_intercept"]))
            factors, label = sums.equivalent_rows()
            solver = _solver(estimator, alpha, sums.rows / len(label))
            self.coefficients = np.asarray(solver.fit(factors, label).coef_)
        self.intercept = float(sums.means[-1] - sums.means[:-1] @ self.coefficients)
        if not np.isfinite(self.coefficients).all():
            raise TrainingError("linear model: a coefficient is not finite; check the features for overflow")
        if not np.any(self.coefficients):
            raise TrainingError(
                f"linear model: {estimator} with alpha {alpha:g} leaves no factor; lower "
                f"hyperparameters.{session.config.model}.alpha"
            )
        return FitResult(importance=dict(zip(problem.names, map(float, np.abs(self.coefficients)), strict=True)))

    def save(self, folder: Path) -> None:
        """Write linear.json."""
        content = {"coefficients": [float(each) for each in self.coefficients], "intercept": self.intercept}
        write_json(folder / MODEL_FILE, content)

    @classmethod
    def load(cls, folder: Path, manifest: ArtefactManifest, threads: int) -> Predictor:
        """Coefficients and intercept."""
        return LinearPredictor(folder / MODEL_FILE)

    @classmethod
    def runs_code(cls, folder: Path) -> bool:
        """JSON."""
        return False

    @classmethod
    def memory_bytes(cls, hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
        """See `memory.py`."""
        return linear_bytes(hyperparameters, rows, features)


@dataclass(frozen=True)
class Sums:
    """The sums over the training rows that least squares needs.

    Attributes
    ----------
    rows
        How many there are.
    means
        Shape (features + 1,), the label's last: subtracted from each column first; zeros without an intercept.
    products
        Shape (features + 1, features + 1): for each pair of columns, the sum of their products over the rows.
    """

    rows: int
    means: FloatArray
    products: FloatArray

    @classmethod
    def of(cls, problem: LearningProblem, *, centred: bool) -> "Sums":
        """Sum over the training rows that have a label and no missing feature.

        Raises
        ------
        TrainingError
            There is no such row, or a feature is infinite.
        """
        columns = len(problem.names) + 1
        means, products, rows = np.zeros(columns), np.zeros((columns, columns)), 0
        if centred:
            for block in _blocks(problem):
                means += block.sum(axis=0)
                rows += len(block)
            means /= max(1, rows)
            rows = 0
        with np.errstate(invalid="ignore", over="ignore"):
            for block in _blocks(problem):
                centred_block = block - means
                products += centred_block.T @ centred_block
                rows += len(block)
        if not rows:
            raise TrainingError("linear model: every training row lacks a feature; set feature_processors")
        if not np.isfinite(products).all():
            raise TrainingError("linear model: a feature is infinite; set feature_processors")
        return cls(rows, means, products)

    def equivalent_rows(self) -> tuple[FloatArray, FloatArray]:
        """Features and label of `features + 1` rows with the same sums of products."""
        values, vectors = np.linalg.eigh(self.products)
        matrix = np.sqrt(np.clip(values, 0.0, None))[:, None] * vectors.T
        return np.ascontiguousarray(matrix[:, :-1]), np.ascontiguousarray(matrix[:, -1])


def _blocks(problem: LearningProblem) -> Iterator[FloatArray]:
    """Features and label, float64, of the training rows without missing values."""
    rows = problem.learned(problem.train)
    for begin in range(0, len(rows), BLOCK):
        part = rows[begin : begin + BLOCK]
        block = np.empty((len(part), len(problem.names) + 1))
        block[:, :-1] = problem.features[part]
        block[:, -1] = problem.label[part]
        missing = np.isnan(block).any(axis=1)
        yield block[~missing] if missing.any() else block


def _solver(estimator: str, alpha: float, rows_each: float) -> Any:
    """scikit-learn's solver, for rows that each stand for `rows_each`; ordinary least squares has no penalty."""
    if estimator == "ols":
        return LinearRegression(fit_intercept=False, copy_X=False)
    if estimator == "ridge":
        return Ridge(alpha=alpha, fit_intercept=False, copy_X=False)
    return Lasso(alpha=alpha * rows_each, fit_intercept=False, copy_X=False)


@dataclass(frozen=True)
class LinearPredictor:
    """score = features @ coefficients + intercept, in float64."""

    path: Path
    is_quick: ClassVar[bool] = True
    """A row is scored in a fraction of a millisecond."""

    @cached_property
    def weights(self) -> tuple[FloatArray, float]:
        """Coefficients, shape (features,), and intercept."""
        content = read_json(self.path)
        return np.asarray(content["coefficients"], dtype=np.float64), float(content["intercept"])

    def predict(self, features: FloatArray) -> FloatArray:
        """Shape (n,)."""
        coefficients, intercept = self.weights
        scores = np.empty(len(features))
        for begin in range(0, len(features), BLOCK):
            block = np.ascontiguousarray(features[begin : begin + BLOCK], dtype=np.float64)
            # On contiguous rows, einsum sums each row in the same order, however many there are; a BLAS product does
            # not.
            np.einsum("ij,j->i", block, coefficients, out=scores[begin : begin + BLOCK])
        return scores + intercept
