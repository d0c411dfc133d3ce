"""Adapters of Qlib's model classes: live progress while they train, plain files when they are saved."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from qlib.contrib.model.gbdt import LGBModel
from qlib.contrib.model.linear import LinearModel

from mlops_tasks.errors import TrainingError
from mlops_tasks.files import write_json, write_text

log = logging.getLogger(__name__)

PROGRESS_EVERY = 20
"""Iterations between two lines of progress."""

Curves = dict[str, dict[str, list[float]]]
"""metric -> segment -> value of each iteration."""


@dataclass
class FitResult:
    """What a training leaves besides the model."""

    curves: Curves = field(default_factory=dict)
    best_iteration: int = 0
    importance: dict[str, float] = field(default_factory=dict)


class Family(Protocol):
    """One model family: trains on a Qlib dataset, saves itself as plain files."""

    def fit(self, dataset: Any) -> FitResult:
        """Train on segments train and valid."""
        ...

    def save(self, folder: Path) -> None:
        """Write the model's files."""
        ...


class LightGBMFamily(LGBModel):
    """Qlib's LGBModel; its own `fit` logs after training only and into a recorder, this one while it trains."""

    def __init__(self, hyperparameters: Mapping[str, Any], seed: int, threads: int) -> None:
        fixed = {"seed": seed, "num_threads": threads, "deterministic": True, "force_row_wise": True}
        super().__init__(**{**hyperparameters, **fixed})

    def fit(self, dataset: Any) -> FitResult:
        """Boost until validation loss has not improved for `early_stopping_rounds`; keep the best iteration."""
        import lightgbm

        (train, _), (valid, _) = self._prepare_data(dataset)
        recorded: dict[str, dict[str, list[float]]] = {}
        self.model = lightgbm.train(
            self.params,
            train,
            num_boost_round=self.num_boost_round,
            valid_sets=[train, valid],
            valid_names=["train", "valid"],
            callbacks=[
                lightgbm.early_stopping(self.early_stopping_rounds, verbose=False),
                lightgbm.record_evaluation(recorded),
                _log_progress(self.num_boost_round),
            ],
        )
        curves = {metric: {s: recorded[s][metric] for s in recorded} for metric in recorded["train"]}
        names = _feature_names(dataset)
        gains = self.model.feature_importance("gain", iteration=self.model.best_iteration)
        return FitResult(curves, int(self.model.best_iteration), dict(zip(names, map(float, gains), strict=True)))

    def save(self, folder: Path) -> None:
        """Write model.txt, cut at the best iteration."""
        write_text(folder / "model.txt", self.model.model_to_string(num_iteration=self.model.best_iteration))


def _feature_names(dataset: Any) -> list[str]:
    return list(dataset.handler.get_cols("feature"))


def _log_progress(rounds: int) -> Callable[[Any], None]:
    def callback(env: Any) -> None:
        done = env.iteration + 1
        if done % PROGRESS_EVERY == 0 or done == rounds:
            values = ", ".join(
                f"{segment} {metric} {value:.6f}" for segment, metric, value, _ in env.evaluation_result_list
            )
            log.info("iteration %d of at most %d: %s", done, rounds, values)

    return callback


class LinearFamily(LinearModel):
    """Qlib's LinearModel; importance is the size of a coefficient on scaled features."""

    def __init__(self, hyperparameters: Mapping[str, Any], seed: int, threads: int) -> None:
        super().__init__(**hyperparameters)

    def fit(self, dataset: Any) -> FitResult:
        """Solve once; there is no iteration and so no curve."""
        super().fit(dataset)
        if not np.isfinite(self.coef_).all():
            raise TrainingError("linear model: a coefficient is not finite; check the features for overflow")
        return FitResult(importance=dict(zip(_feature_names(dataset), map(float, np.abs(self.coef_)), strict=True)))

    def save(self, folder: Path) -> None:
        """Write linear.json."""
        content = {"coefficients": [float(c) for c in self.coef_], "intercept": float(self.intercept_)}
        write_json(folder / "linear.json", content)


FAMILIES: Mapping[str, Callable[[Mapping[str, Any], int, int], Family]] = {
    "lightgbm": LightGBMFamily,
    "linear": LinearFamily,
}
