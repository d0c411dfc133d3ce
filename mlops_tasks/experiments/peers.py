"""Qlib's own model classes on the learning data of a plan, for comparison with the zoo's models of the same name."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mlops_tasks.columns import LABEL, SCORE, SEGMENT
from mlops_tasks.config import Settings, load_settings
from mlops_tasks.data.qlib.store import init_qlib
from mlops_tasks.evaluation.report import evaluate, is_current, write_evaluation
from mlops_tasks.files import digest_of, new_folder, retire_folder
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.modeling.dataset import LearningData, fit_processors, load_learning_data, qlib_dataset
from mlops_tasks.modeling.model_zoo.qlib_models import qlib_model
from mlops_tasks.modeling.processors import FittedProcessors
from mlops_tasks.training.plan import RunPlan
from mlops_tasks.training_folder import (
    PREDICTION_COLUMNS,
    EvaluationFolder,
    Metrics,
    TrainingFolder,
    TrainingManifest,
    TrainingMetrics,
)

PREDICTED = ("valid", "test")


class _NoRecorder:
    """Replaces Qlib's recorder, to which `LGBModel` logs its curve and which would leave a run and folders behind."""

    def log_metrics(self, **metrics: float) -> None:
        """Discard them."""


def _fit_lightgbm(config: TrainingConfig, dataset: Any, threads: int) -> Any:
    gbdt = qlib_model("gbdt")
    gbdt.R = _NoRecorder()  # type: ignore[attr-defined]
    # Fixed, because otherwise the order of sums, and with it the result, depends on a measurement of speed.
    order = {"deterministic": True, "force_row_wise": True}
    model = gbdt.LGBModel(
        **config.hyperparameters,
        **order,
        seed=config.seed,
        num_threads=threads,
        early_stopping_rounds=config.stopping.patience,
    )
    model.fit(dataset)
    return model


def _fit_xgboost(config: TrainingConfig, dataset: Any, threads: int) -> Any:
    parameters = dict(config.hyperparameters)
    rounds = int(parameters.pop("num_boost_round"))
    model = qlib_model("xgboost").XGBModel(**parameters, seed=config.seed, nthread=threads)
    model.fit(
        dataset, num_boost_round=rounds, early_stopping_rounds=config.stopping.patience, verbose_eval=0, evals_result={}
    )
    return model


def _fit_linear(config: TrainingConfig, dataset: Any, threads: int) -> Any:
    model = qlib_model("linear").LinearModel(**config.hyperparameters)
    model.fit(dataset)
    return model


PEERS: Mapping[str, Callable[[TrainingConfig, Any, int], Any]] = {
    "lightgbm": _fit_lightgbm,
    "xgboost": _fit_xgboost,
    "linear": _fit_linear,
}
"""Models of the zoo for which Qlib has a class of its own, fitted with the same hyper-parameters."""


def train_peer_task(*, plan: dict[str, Any], feature_version: str, config: dict[str, Any]) -> dict[str, Any]:
    """Train, score and evaluate Qlib's own class of a configuration; what exists already is not done again.

    Returns
    -------
    `metrics` of the evaluation, including `train_seconds`.
    """
    settings = load_settings()
    peer = Peer(RunPlan.model_validate(plan), feature_version, TrainingConfig.model_validate(config))
    folder = peer.folder(settings)
    if not folder.exists:
        with new_folder(folder.path) as beside:
            peer.train_into(TrainingFolder(beside), settings)
    portfolio = settings.portfolio.holding(peer.plan.topk, peer.plan.n_drop)
    if not is_current(settings, folder, portfolio):
        target = folder.evaluation.path
        with new_folder(target) as beside:
            write_evaluation(EvaluationFolder(beside), evaluate(settings, folder, portfolio), folder)
            retire_folder(target)
    return {"metrics": all_metrics(folder)}


def all_metrics(folder: TrainingFolder) -> Metrics:
    """The metrics of an evaluated training, and what it took."""
    return {**folder.evaluation.read().metrics, **folder.metrics().numbers}


@dataclass(frozen=True)
class Peer:
    """One training of Qlib's own class of a model with the zoo's configuration."""

    plan: RunPlan
    feature_version: str
    config: TrainingConfig

    @property
    def manifest(self) -> TrainingManifest:
        """Everything that decides the result."""
        return TrainingManifest.from_json(
            {
                **self.plan.model_dump(mode="json", exclude={"models", "deployment_strategy", "study"}),
                "model": f"qlib {self.config.model}",
                "model_config": self.config.model_dump(mode="json"),
                "feature_version": self.feature_version,
            }
        )

    def folder(self, settings: Settings) -> TrainingFolder:
        """The folder of manifest, predictions and metrics, and later of the evaluation; it holds no model of ours."""
        return TrainingFolder(settings.reports_dir / "model_table" / "peers" / digest_of(self.manifest.to_json()))

    def train_into(self, folder: TrainingFolder, settings: Settings) -> None:
        """Fit the class on the engine's learning data and write the results."""
        config, threads = self.config, settings.training.threads
        data = load_learning_data(settings, self.plan.learning_spec(self.feature_version))
        init_qlib(settings, self.plan.data_version)
        processors = fit_processors(data, config.feature_processors)
        dataset = qlib_dataset(data, processors, config.label_processor)
        started = time.monotonic()
        fitted = PEERS[self.config.model](config, dataset, threads)
        seconds = time.monotonic() - started
        folder.write_predictions(predictions(fitted, data, processors))
        folder.write_manifest(self.manifest)
        folder.write_metrics(TrainingMetrics({"train_seconds": round(seconds, 3)}))


def predictions(model: Any, data: LearningData, processors: FittedProcessors) -> pd.DataFrame:
    """The scores of Qlib's `predict` for valid and test, with the columns that a training's predictions have."""
    from qlib.data.dataset import DatasetH
    from qlib.data.dataset.handler import DataHandlerLP
    from qlib.data.dataset.loader import StaticDataLoader

    rows = slice(data.rows("valid").start, data.rows("test").stop)
    columns = pd.MultiIndex.from_tuples([("feature", name) for name in data.features.columns])
    matrix = processors.transform(data.features.iloc[rows].to_numpy())
    handler = DataHandlerLP(data_loader=StaticDataLoader(pd.DataFrame(matrix, data.features.index[rows], columns)))
    dataset = DatasetH(handler, segments={name: tuple(map(pd.Timestamp, data.segments[name])) for name in PREDICTED})
    parts = []
    for name in PREDICTED:
        score = model.predict(dataset, segment=name).rename(SCORE)
        parts.append(score.to_frame().assign(**{SEGMENT: name, LABEL: data.label.reindex(score.index)}))
    return pd.concat(parts).reset_index()[list(PREDICTION_COLUMNS)]
