"""A small family whose every step can be waited for: least squares by gradient descent, with momentum.

`FIT_STAGE` is the training process with this family in the zoo. `python -m tests.training.descent <market>` trains
once, as a caller that may be killed; `<market>` is `SmallMarket.to_json`, the first line of output is the run's id.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_tasks.config import Settings, TrainingSettings
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import read_json, write_json
from mlops_tasks.signing import ensure_signing_key
from mlops_tasks.training import fit, supervision
from mlops_tasks.training.configuration import TrainingConfig
from mlops_tasks.training.engine import TrainingHandle, UnifiedQlibTrainingEngine
from mlops_tasks.training.model_zoo.families import FAMILIES, PACKAGES
from mlops_tasks.training.model_zoo.family import FitResult
from mlops_tasks.training.plan import RunPlan, make_plan
from mlops_tasks.training.problem import LearningProblem
from mlops_tasks.training.run_folder import RunFolder
from mlops_tasks.training.session import TrainingSession
from mlops_tasks.training.stopping import StoppingConfig
from tests.features.market import awkward_bars, make_vintage
from tests.features.small_sets import SETS

FIT_STAGE = "tests.training.descent:fit_stage"
NAME = "descent"
CHECKPOINT_EVERY = 7


def config(**hyperparameters: Any) -> TrainingConfig:
    """A training of 40 steps of some milliseconds each; `learning_rate`, `steps` and `step_s` may be changed."""
    return TrainingConfig(
        model=NAME,
        family=NAME,
        hyperparameters={"learning_rate": 0.01, "steps": 40, "step_s": 0.004, **hyperparameters},
        feature_processors=("robust_zscore_fill_zero",),
        label_processor="CSZScoreNorm",
        stopping=StoppingConfig(patience=30),
        checkpoint_every=CHECKPOINT_EVERY,
        seed=3,
    )


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
    with pytest.MonkeyPatch.context() as patch:
        for name, family in ((NAME, "DescentFamily"), ("deaf", "DeafFamily"), ("dying", "DyingFamily")):
            patch.setitem(FAMILIES, name, f"{__name__}:{family}")  # type: ignore[arg-type]
            patch.setitem(PACKAGES, name, ())  # type: ignore[arg-type]
        yield


def fit_stage(*, folder: str) -> dict[str, Any]:
    """The training process, with these families."""
    with known_families():
        return fit.fit_stage(folder=folder)


@dataclass(frozen=True)
class SmallMarket:
    """A home with a vintage of 8 instruments and 150 days, and features of it."""

    settings: Settings
    plan: RunPlan
    feature_version: str

    @classmethod
    def make(cls, home: Path) -> "SmallMarket":
        """Write it below `home`."""
        settings = Settings(home=home)
        ensure_signing_key(settings)  # copies have the same one: equal trainings leave equal bytes
        vintage = make_vintage(home, awkward_bars(instruments=8, days=150))
        plan = make_plan(settings, vintage.data_version, vintage.calendar(), {"models": ["linear"]})
        return cls(settings, plan, FeatureStore(settings).compute(vintage, SETS["windows"]).feature_version)

    def to_json(self) -> str:
        """For another process."""
        return json.dumps([str(self.settings.home), self.plan.model_dump(mode="json"), self.feature_version])

    @classmethod
    def from_json(cls, content: str) -> "SmallMarket":
        """The inverse of `to_json`."""
        home, plan, feature_version = json.loads(content)
        return cls(Settings(home=Path(home)), RunPlan.model_validate(plan), feature_version)

    def copy(self, home: Path, **training: Any) -> "SmallMarket":
        """The same in another home, with other settings of section `training`."""
        for name in ("data", "features", "secrets"):
            shutil.copytree(self.settings.home / name, home / name)
        settings = Settings(home=home, training=TrainingSettings(**training))
        return SmallMarket(settings, self.plan, self.feature_version)

    def start(self, **hyperparameters: Any) -> TrainingHandle:
        """A run of the small family."""
        return self.start_config(config(**hyperparameters))

    def start_config(self, given: TrainingConfig, **claim: Any) -> TrainingHandle:
        """A run of a configuration; `claim` is its owner and priority."""
        with known_families():
            return UnifiedQlibTrainingEngine(self.settings).start(self.plan, self.feature_version, given, **claim)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a training folder but metrics.json, which holds the run's id and how long it took."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "metrics.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def journal_reaches(settings: Settings, run_id: str, iteration: int, timeout_s: float = 60) -> bool:
    """Wait for an iteration in a run's journal; False when the run is over before."""
    journal, wanted = RunFolder.of(settings, run_id).journal, f'"iteration": {iteration},'
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if wanted in journal.read_text():
                return True
        except FileNotFoundError:
            return False
        time.sleep(0.002)
    raise AssertionError(f"{journal}: iteration {iteration} did not come in {timeout_s:.0f} s")


@pytest.fixture
def descending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine of this process start `FIT_STAGE`, and look more often."""
    monkeypatch.setattr(supervision, "FIT_STAGE", FIT_STAGE)
    monkeypatch.setattr(supervision, "TICK_S", 0.05)


if __name__ == "__main__":
    supervision.FIT_STAGE = FIT_STAGE
    started = SmallMarket.from_json(sys.argv[1]).start()
    print(started.run_id, flush=True)
    started.supervise()
