"""A family whose best answer is known: score = focus * F0 + (1 - focus) * F7, where F0 alone foretells the label.

It trains in ten iterations that report the validation rank IC, each of `step_s` seconds.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlops_tasks.config import Settings, TrainingSettings, TuningSettings
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.files import read_json, write_json
from mlops_tasks.modeling.model_zoo import zoo as entries
from mlops_tasks.modeling.model_zoo.family import FAMILIES, FitResult
from mlops_tasks.modeling.problem import LearningProblem
from mlops_tasks.modeling.session import TrainingSession
from mlops_tasks.tuning.optimizer import HyperparameterOptimizer, StudySubject
from mlops_tasks.tuning.study import StudyConfig
from tests.planted import Planted, Shape, plant

NAME = "pointer"
ITERATIONS = 10
ENTRY = entries.ModelEntry(
    family=NAME,
    description="Two features.",
    recommended_for=("Tests.",),
    label_processor="CSZScoreNorm",
    hyperparameters={
        "focus": {"type": "number", "default": 0.5, "search": "linear", "low": 0.0, "high": 1.0},
        "scale": {"type": "number", "default": 1.0, "search": "log", "low": 0.1, "high": 10.0},
        "sign": {"type": "boolean", "default": True, "search": "categorical"},
        "broken_above": {"type": "number", "default": 2.0},
        "step_s": {"type": "number", "default": 0.0},
    },
)


class PointerFamily:
    """Nothing is learned; `broken_above` lets a training with a larger focus fail."""

    weights: np.ndarray

    def fit(self, problem: LearningProblem, session: TrainingSession) -> FitResult:
        """Report the same rank IC again and again."""
        parameters = session.config.hyperparameters
        if parameters["focus"] > parameters["broken_above"]:
            raise FloatingPointError(f"focus {parameters['focus']:.3f}")
        self.weights = np.zeros(problem.features.shape[1])
        self.weights[[0, 7]] = parameters["focus"], 1 - parameters["focus"]
        self.weights *= parameters["scale"] * (1 if parameters["sign"] else -1)
        rows = problem.valid
        index = pd.MultiIndex.from_arrays([problem.day[rows], problem.instrument[rows]])
        scores = pd.Series(problem.features[rows] @ self.weights, index)
        rank_ic = daily_rank_ic(scores, pd.Series(problem.realised[rows], index)).mean()
        for done in range(1, ITERATIONS + 1):
            time.sleep(parameters["step_s"])
            session.iteration(done, {"valid.rank_ic": rank_ic})
        return FitResult(ITERATIONS)

    def save(self, folder: Path) -> None:
        """Write weights.json."""
        write_json(folder / "weights.json", list(map(float, self.weights)))

    @classmethod
    def load(cls, folder: Path, manifest: Mapping[str, Any], threads: int) -> "PointerPredictor":
        """The weights."""
        return PointerPredictor(np.asarray(read_json(folder / "weights.json")))

    @classmethod
    def runs_code(cls, folder: Path) -> bool:
        """Numbers."""
        return False

    @classmethod
    def memory_bytes(cls, hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
        """As if memory grew with `scale`: 100 MB of it."""
        return int(hyperparameters["scale"] * 1e8)


@dataclass(frozen=True)
class PointerPredictor:
    """score = features @ weights."""

    weights: np.ndarray

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Shape (n,)."""
        return features.astype(np.float64) @ self.weights


def zoo(settings: Settings | None = None) -> dict[str, entries.ModelEntry]:
    """The zoo with this model."""
    return {**_real_zoo(settings), NAME: ENTRY}


_real_zoo = entries.model_zoo
FAMILY = f"{__name__}:PointerFamily"


def planted(seed: int = 1) -> Planted:
    """A linear signal of which F0 is one term in eight; F7 is another one, of the other sign."""
    return plant("linear", Shape(days=120, instruments=30, snr=0.5), seed)


def optimizer(settings: Settings, config: Mapping[str, Any]) -> HyperparameterOptimizer:
    """A study of this model on `planted()`."""
    subject = StudySubject("v1", "f1", 1, planted().data.segments)
    return HyperparameterOptimizer(settings, StudyConfig(model=NAME, **config), subject)


def settings_of(home: Path, storage_url: str = "") -> Settings:
    """One thread, studies at an address."""
    return Settings(home=home, training=TrainingSettings(threads=1), tuning=TuningSettings(storage_url=storage_url))


def work(*, home: str, storage_url: str, config: Mapping[str, Any], gate: str) -> dict[str, int]:
    """A stage: one worker of a study, which may be killed; `finished`: the trials that it has finished.

    It takes none before the file `open` is in the folder `gate`, and leaves a file there when it waits for that.
    """
    FAMILIES[NAME] = FAMILY  # type: ignore[index]
    entries.model_zoo = zoo
    worker, made = optimizer(settings_of(Path(home), storage_url), config), planted()
    Path(gate, str(os.getpid())).touch()
    while not Path(gate, "open").exists():
        time.sleep(0.01)
    return {"finished": worker.run(made.data)}
