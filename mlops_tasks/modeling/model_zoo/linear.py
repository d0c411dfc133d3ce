"""Linear models, solved by Qlib's `LinearModel`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mlops_tasks.errors import TrainingError
from mlops_tasks.files import read_json, write_json
from mlops_tasks.modeling.manifest import ArtefactManifest
from mlops_tasks.modeling.model_zoo.family import FitResult, FloatArray, Predictor
from mlops_tasks.modeling.model_zoo.memory import five_copies
from mlops_tasks.modeling.model_zoo.qlib_models import qlib_model
from mlops_tasks.modeling.problem import LearningProblem
from mlops_tasks.modeling.session import TrainingSession

MODEL_FILE = "linear.json"


class LinearFamily:
    """Least squares; importance is the size of a coefficient on scaled features."""

    model: Any

    def fit(self, problem: LearningProblem, session: TrainingSession) -> FitResult:
        """Solve once; there is no iteration and so no curve.

        Raises
        ------
        TrainingError
            A coefficient is not finite, or the penalty leaves none.
        """
        parameters = dict(session.config.hyperparameters)
        if parameters["estimator"] == "ols":
            parameters["alpha"] = 0.0  # a search varies both
        self.model = qlib_model("linear").LinearModel(**parameters)
        with threadpool_limits(session.threads):
            self.model.fit(problem.dataset)
        if not np.isfinite(self.model.coef_).all():
            raise TrainingError("linear model: a coefficient is not finite; check the features for overflow")
        if not np.any(self.model.coef_):
            raise TrainingError(
                f"linear model: {parameters['estimator']} with alpha {parameters['alpha']:g} leaves no factor; lower "
                f"hyperparameters.{session.config.model}.alpha"
            )
        return FitResult(importance=dict(zip(problem.names, map(float, np.abs(self.model.coef_)), strict=True)))

    def save(self, folder: Path) -> None:
        """Write linear.json."""
        content = {
            "coefficients": [float(c) for c in self.model.coef_],
            "intercept": float(self.model.intercept_),
        }
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
        return five_copies(hyperparameters, rows, features)


@dataclass(frozen=True)
class LinearPredictor:
    """score = features @ coefficients + intercept, in float64."""

    path: Path

    @cached_property
    def weights(self) -> tuple[FloatArray, float]:
        """Coefficients, shape (features,), and intercept."""
        content = read_json(self.path)
        return np.asarray(content["coefficients"], dtype=np.float64), float(content["intercept"])

    def predict(self, features: FloatArray) -> FloatArray:
        """Shape (n,)."""
        coefficients, intercept = self.weights
        # Over contiguous rows einsum sums each row in the same order, however many there are; a BLAS product does not.
        return np.einsum("ij,j->i", np.ascontiguousarray(features, dtype=np.float64), coefficients) + intercept
