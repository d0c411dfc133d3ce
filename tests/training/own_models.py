"""Models that a user might bring along."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from qlib.model.base import Model
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mlops_tasks.modeling.stopping import IterationVerdict


class OneDay(torch.nn.Module):
    """A linear network of one day."""

    def __init__(self, features: int, window: int, hidden_size: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(features, hidden_size), torch.nn.Linear(hidden_size, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores, shape (batch,)."""
        return self.layers(x).squeeze(-1)


class OwnQlibModel(Model):
    """Least squares on Qlib's dataset, with a coefficient vector that Qlib would not pickle by itself."""

    def __init__(self, penalty: float, seed: int = 0) -> None:
        self.penalty, self.seed = penalty, seed

    def fit(self, dataset: Any, reweighter: Any = None) -> None:
        """Solve the normal equations."""
        frame = dataset.prepare("train", col_set=["feature", "label"], data_key="learn")
        x, y = frame["feature"].to_numpy(dtype=float), frame["label"].to_numpy(dtype=float)[:, 0]
        self._weights = np.linalg.solve(x.T @ x + self.penalty * np.eye(x.shape[1]), x.T @ y)

    def predict(self, dataset: Any, segment: str = "test") -> pd.Series:
        """By row."""
        x = dataset.prepare(segment, col_set="feature", data_key="infer")
        return pd.Series(x.to_numpy(dtype=float) @ self._weights, x.index)


class Relative(OwnQlibModel):
    """Takes the day's mean from each score, so that a row's depends on the others of its day."""

    def predict(self, dataset: Any, segment: str = "test") -> pd.Series:
        """By row."""
        scores = super().predict(dataset, segment)
        return scores - scores.groupby(level="datetime").transform("mean")


class Fragile(OwnQlibModel):
    """Fails."""

    def fit(self, dataset: Any, reweighter: Any = None) -> None:
        """At once."""
        raise ZeroDivisionError("no way")


class Centred(RegressorMixin, BaseEstimator):
    """An estimator that looks at the other rows."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Centred":
        """Nothing to do."""
        self.fitted_ = True
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The first feature, above the mean of all rows."""
        return X[:, 0] - X[: len(X) // 2, 0].mean()


class Hoarder(RegressorMixin, BaseEstimator):
    """Keeps what is no type of its own package or of scikit-learn's."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Hoarder":
        """Keep it."""
        self.kept_ = IterationVerdict(is_best=True, stop=False)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The first feature."""
        return X[:, 0]


def scaled_ridge(alpha: float) -> Pipeline:
    """A pipeline, by a function."""
    return make_pipeline(StandardScaler(), Ridge(alpha=alpha))


def classifier() -> LogisticRegression:
    """No regressor."""
    return LogisticRegression()
