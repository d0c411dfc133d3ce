"""LightGBM: gradient boosted trees."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from mlops_tasks.files import write_text
from mlops_tasks.training.model_zoo.family import FitResult, FloatArray, Predictor
from mlops_tasks.training.problem import LearningProblem
from mlops_tasks.training.session import TrainingSession

MODEL_FILE = "model.txt"


class LightGBMFamily:
    """Boosting as Qlib's `LGBModel` configures it."""

    booster: Any

    def fit(self, problem: LearningProblem, session: TrainingSession) -> FitResult:
        """Boost until the session says stop; keep the best iteration."""
        params = dict(session.config.hyperparameters)
        rounds = int(params.pop("num_boost_round"))
        params |= {"objective": params.pop("loss"), "verbosity": -1, "seed": session.seed}
        params |= {"num_threads": session.threads, "deterministic": True, "force_row_wise": True}
        train, valid = (problem.learned(segment) for segment in (problem.train, problem.valid))
        learn = lightgbm.Dataset(problem.features[train], problem.label[train])
        watch = lightgbm.Dataset(problem.features[valid], problem.label[valid], reference=learn)
        session.expect(rounds)

        def report(env: Any) -> None:
            values = {f"{segment}.loss": value for segment, _, value, _ in env.evaluation_result_list}
            if session.iteration(env.iteration + 1, values).stop:
                raise lightgbm.callback.EarlyStopException(session.best_iteration - 1, env.evaluation_result_list)

        self.booster = lightgbm.train(
            params,
            learn,
            num_boost_round=rounds,
            valid_sets=[learn, watch],
            valid_names=["train", "valid"],
            callbacks=[report],
        )
        self.best_iteration = session.best_iteration
        gains = self.booster.feature_importance("gain", iteration=self.best_iteration)
        return FitResult(self.best_iteration, dict(zip(problem.names, map(float, gains), strict=True)))

    def save(self, folder: Path) -> None:
        """Write model.txt, cut at the best iteration."""
        write_text(folder / MODEL_FILE, self.booster.model_to_string(num_iteration=self.best_iteration))

    @classmethod
    def load(cls, folder: Path, manifest: Mapping[str, Any], threads: int) -> Predictor:
        """Trees in LightGBM's text format."""
        return LightGBMPredictor(folder / MODEL_FILE, threads)

    @classmethod
    def memory_bytes(cls, hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
        """The copy of the learning rows, their bins, gradients and scores."""
        return rows * (features * (4 + 1) + 32)


@dataclass(frozen=True)
class LightGBMPredictor:
    """Trees, cut at the best iteration when they were saved."""

    path: Path
    threads: int

    @cached_property
    def booster(self) -> Any:
        """The loaded booster."""
        return lightgbm.Booster(model_file=str(self.path))

    def predict(self, features: FloatArray) -> FloatArray:
        """Sum of the trees; shape (n,)."""
        scores: FloatArray = np.asarray(self.booster.predict(features, num_threads=self.threads))
        return scores
