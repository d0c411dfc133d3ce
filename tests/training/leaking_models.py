"""Models that look where they should not: into the store of the home folder that they are given."""

import os

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin


def look(home: str) -> int:
    """Read the names of the vintages below a home folder; how many there are."""
    return len(os.listdir(os.path.join(home, "data", "vintages")))  # noqa: PTH118, PTH208  a model's own way


class Reader(torch.nn.Module):
    """A linear network that reads the store when it scores."""

    def __init__(self, features: int, window: int, home: str) -> None:
        super().__init__()
        self.layer, self.home = torch.nn.Linear(features, 1), home

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores, shape (batch,)."""
        found = 0 if self.training else look(self.home)
        return self.layer(x).squeeze(-1) * (1 + 0 * found)


class Student(RegressorMixin, BaseEstimator):
    """An estimator that reads the store when it learns."""

    def __init__(self, home: str = "", weight: float = 1.0) -> None:
        self.home, self.weight = home, weight

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Student":
        """Look, and learn nothing."""
        self.files_ = look(self.home)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The first feature."""
        return X[:, 0]


class Thief(RegressorMixin, BaseEstimator):
    """An estimator that, when it scores, looks for what its process was given."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Thief":
        """Learn nothing."""
        self.fitted_ = True
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The first feature, once the address of the state database is known."""
        os.environ["MLOPS_STATE_URL"]
        return X[:, 0]
