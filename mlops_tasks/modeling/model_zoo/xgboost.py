"""XGBoost: gradient boosted trees with second-order steps (Chen and Guestrin, KDD 2016).

The random draws of a round, its rows and columns, depend only on the seed and the round's number, so a training that
continues from a checkpoint ends with the same bytes as an uninterrupted one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from mlops_tasks.errors import TrainingError
from mlops_tasks.modeling.manifest import ArtefactManifest
from mlops_tasks.modeling.model_zoo.boosting import RoundMetrics, kept_round
from mlops_tasks.modeling.model_zoo.family import FitResult, FloatArray, Predictor
from mlops_tasks.modeling.model_zoo.memory import xgboost_bytes
from mlops_tasks.modeling.problem import IntArray, LearningProblem
from mlops_tasks.modeling.session import TrainingSession

MODEL_FILE = "model.ubj"
ROWS_AT_ONCE = 16_384


class XGBoostFamily:
    """Boosting as Qlib's `XGBModel` configures it; scores with the trees up to the best round, not with all."""

    booster: Any

    def fit(self, problem: LearningProblem, session: TrainingSession) -> FitResult:
        """Boost until the session says stop; keep the best round.

        Raises
        ------
        TrainingError
            XGBoost refuses the data (an infinite feature), or the training diverges.
        """
        try:
            return self._fit(problem, session)
        except xgboost.core.XGBoostError as error:
            lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Stack")]
            raise TrainingError(
                f"{session.config.model}: XGBoost refused to train: {lines[0] if lines else error}; correct the "
                f"features, or hyperparameters.{session.config.model}"
            ) from error

    def _fit(self, problem: LearningProblem, session: TrainingSession) -> FitResult:
        hyperparameters = dict(session.config.hyperparameters)
        rounds = int(hyperparameters.pop("num_boost_round"))
        data = _Data(problem, session, int(hyperparameters["max_bin"]))
        restored = session.restore()
        booster = xgboost.Booster(
            _parameters(hyperparameters, session),
            [data.learn, data.watch],
            model_file=restored and restored.folder / MODEL_FILE,
        )
        session.expect(rounds)
        for done in range(restored.iteration + 1 if restored else 1, rounds + 1):
            if session.monitor.stopped:
                break
            _boost(booster, data.learn, done - 1)
            session.iteration(done, data.evaluate(booster, done))
            session.checkpoint(done, lambda folder: booster.save_model(folder / MODEL_FILE))
        best = kept_round(session)
        self.booster = booster[:best]
        gains = self.booster.get_score(importance_type="total_gain")
        return FitResult(best, {name: gains.get(f"f{place}", 0.0) for place, name in enumerate(problem.names)})

    def save(self, folder: Path) -> None:
        """Write model.ubj, cut at the best round."""
        self.booster.save_model(folder / MODEL_FILE)

    @classmethod
    def load(cls, folder: Path, manifest: ArtefactManifest, threads: int) -> Predictor:
        """Trees in XGBoost's universal binary JSON."""
        return XGBoostPredictor(folder / MODEL_FILE, threads)

    @classmethod
    def runs_code(cls, folder: Path) -> bool:
        """Binary JSON of trees."""
        return False

    @classmethod
    def memory_bytes(cls, hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
        """See `memory.py`."""
        return xgboost_bytes(hyperparameters, rows, features)


class _Data:
    """Binned rows of both segments, and the metrics on them."""

    def __init__(self, problem: LearningProblem, session: TrainingSession, max_bin: int) -> None:
        self._metrics = RoundMetrics(problem, session)
        options = {"max_bin": max_bin, "nthread": session.threads}
        rows = problem.learned(problem.train)
        self._label = problem.label[rows]
        self.learn = xgboost.QuantileDMatrix(_Rows(problem, rows), **options)
        self.watch = xgboost.QuantileDMatrix(_Rows(problem, self._metrics.valid.rows), ref=self.learn, **options)

    def evaluate(self, booster: Any, done: int) -> dict[str, float]:
        """Metrics of the session after `done` rounds; the booster has cached the scores."""
        learned, scores = booster.predict(self.learn), booster.predict(self.watch)
        difference = learned.astype(np.float64) - self._label
        train = {"loss": float(difference @ difference / len(difference)), **self._metrics.train_ics(learned)}
        valid = {"loss": self._metrics.valid.loss(scores), **self._metrics.ics(done, scores)}
        values = {f"train.{name}": value for name, value in train.items()}
        return values | {f"valid.{name}": value for name, value in valid.items()}


class _Rows(xgboost.DataIter):
    """Rows of a problem, some at a time, so that they are binned without a copy of all of them."""

    def __init__(self, problem: LearningProblem, rows: IntArray) -> None:
        super().__init__()
        self._problem, self._rows, self._done = problem, rows, 0

    def reset(self) -> None:
        """Begin again."""
        self._done = 0

    def next(self, input_data: Callable[..., Any]) -> bool:
        """Hand over the next rows; False after the last ones."""
        part = self._rows[self._done : self._done + ROWS_AT_ONCE]
        if not len(part):
            return False
        input_data(data=self._problem.features[part], label=self._problem.label[part])
        self._done += len(part)
        return True


def _parameters(hyperparameters: Mapping[str, Any], session: TrainingSession) -> dict[str, Any]:
    return {
        **hyperparameters,
        "objective": "reg:squarederror",
        "disable_default_eval_metric": True,
        "tree_method": "hist",
        "seed": session.seed,
        "seed_per_iteration": True,
        "nthread": session.threads,
    }


def _boost(booster: Any, learn: Any, iteration: int) -> None:
    """One round, numbered from 0."""
    # The columns of a tree are drawn from a state that no checkpoint holds and that `seed_per_iteration` does not
    # touch; loading a configuration sets it again from the round's seed, in 0.3 ms.
    booster.load_config(booster.save_config())
    booster.update(learn, iteration)


@dataclass(frozen=True)
class XGBoostPredictor:
    """Trees, cut at the best round when they were saved."""

    path: Path
    threads: int

    @cached_property
    def booster(self) -> Any:
        """The loaded booster."""
        return xgboost.Booster({"nthread": self.threads}, model_file=self.path)

    def predict(self, features: FloatArray) -> FloatArray:
        """Sum of the trees; float32, shape (n,)."""
        scores: FloatArray = self.booster.inplace_predict(np.ascontiguousarray(features))
        return scores
