"""A small family whose every step can be waited for: least squares by gradient descent, with momentum.

`fit_stage` is the training process with this family in the zoo. It is all that such a process imports of the tests.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlops_tasks.files import read_json, write_json
from mlops_tasks.modeling.model_zoo.families import FAMILIES, PACKAGES
from mlops_tasks.modeling.model_zoo.family import FitResult
from mlops_tasks.modeling.problem import LearningProblem
from mlops_tasks.modeling.session import TrainingSession
from mlops_tasks.training import fit

NAME = "descent"


class DescentFamily:
    """Steps along the mean gradient of a random tenth of the rows, drawn anew each step from (seed, step)."""

    weights: np.ndarray
    best: np.ndarray

    def fit(self, problem: LearningProblem, session: TrainingSession) -> FitResult:
        """The loop that `session.py` describes."""
        parameters = session.config.hyperparameters
        train, valid = problem.learned(problem.train), problem.learned(problem.valid)
        self.weights = np.zeros(problem.features.shape[1])
        self.best = speed = np.zeros_like(self.weights)
        done, steps = 0, int(parameters["steps"])
        session.expect(steps)
        if restored := session.restore():
            done = restored.iteration
            self.weights, self.best, speed = np.load(restored.folder / "state.npy")
        while done < steps:
            rng = np.random.default_rng((session.seed, done))
            rows = rng.choice(train, len(train) // 10, replace=False)
            error = problem.features[rows] @ self.weights - problem.label[rows]
            speed = 0.5 * speed - parameters["learning_rate"] * (problem.features[rows].T @ error) / len(rows)
            self.weights = self.weights + speed
            done += 1
            time.sleep(parameters["step_s"])
            losses = {"train.loss": self._loss(problem, train), "valid.loss": self._loss(problem, valid)}
            verdict = session.iteration(done, losses)
            if verdict.is_best:
                self.best = self.weights
            state = np.stack([self.weights, self.best, speed])
            session.checkpoint(done, lambda folder, state=state: np.save(folder / "state.npy", state))
            if verdict.stop:
                break
        return FitResult(session.best_iteration)

    def _loss(self, problem: LearningProblem, rows: np.ndarray) -> float:
        return float(np.mean((problem.features[rows] @ self.weights - problem.label[rows]) ** 2))

    def save(self, folder: Path) -> None:
        """Write weights.json."""
        write_json(folder / "weights.json", list(map(float, self.best)))

    @classmethod
    def load(cls, folder: Path, manifest: Mapping[str, Any], threads: int) -> "DescentPredictor":
        """The best weights."""
        return DescentPredictor(np.asarray(read_json(folder / "weights.json")))

    @classmethod
    def runs_code(cls, folder: Path) -> bool:
        """JSON."""
        return False

    @classmethod
    def memory_bytes(cls, hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
        """The rows that are learned from, once more."""
        return rows * features * 4


@dataclass(frozen=True)
class DescentPredictor:
    """score = features @ weights."""

    weights: np.ndarray

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Shape (n,)."""
        return np.einsum("ij,j->i", features.astype(np.float64), self.weights)


class DeafFamily(DescentFamily):
    """Computes on, whatever it is asked for."""

    def fit(self, problem: LearningProblem, session: TrainingSession) -> FitResult:
        """Never ends."""
        while True:
            time.sleep(0.05)


class DyingFamily(DescentFamily):
    """Dies as native code does."""

    def fit(self, problem: LearningProblem, session: TrainingSession) -> FitResult:
        """One iteration, then an abort."""
        session.iteration(1, {"train.loss": 1.0})
        os.abort()


@contextmanager
def known_families() -> Iterator[None]:
    """These families stand beside the shipped ones."""
    own = {NAME: "DescentFamily", "deaf": "DeafFamily", "dying": "DyingFamily"}
    FAMILIES.update({name: f"{__name__}:{family}" for name, family in own.items()})  # type: ignore[attr-defined]
    PACKAGES.update(dict.fromkeys(own, ()))  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name in own:
            del FAMILIES[name], PACKAGES[name]  # type: ignore[attr-defined]


def fit_stage(*, folder: str) -> dict[str, Any]:
    """The training process, with these families."""
    with known_families():
        return fit.fit_stage(folder=folder)
