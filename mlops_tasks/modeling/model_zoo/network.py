"""Neural networks: any `torch.nn.Module` by class path, trained on windows of days.

A network is created as `Class(features=F, window=L, **architecture)`, takes windows (batch, L, F), or (batch, F) if L
is 1, and returns scores (batch,). Its files are weights.safetensors and network.json; there is no pickle.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mlops_tasks.errors import ConfigError, TrainingError
from mlops_tasks.files import read_json, write_json
from mlops_tasks.modeling.manifest import ArtefactManifest
from mlops_tasks.modeling.metrics import TrainIC, ValidationMetrics
from mlops_tasks.modeling.model_zoo.family import FitResult, FloatArray, Predictor
from mlops_tasks.modeling.model_zoo.memory import network_bytes
from mlops_tasks.modeling.networks.trainer import (
    SCORED_AT_ONCE,
    State,
    TrainerConfig,
    Training,
    bfloat16_cost,
    copied,
    reproducible,
    watched,
)
from mlops_tasks.modeling.problem import LearningProblem
from mlops_tasks.modeling.session import TrainingSession
from mlops_tasks.modeling.windows import aligned

WEIGHTS, ARCHITECTURE, STATE = "weights.safetensors", "network.json", "state.pt"


@dataclass(frozen=True)
class Architecture:
    """What a network is made from: network.json."""

    class_path: str
    features: int
    window: int
    hyperparameters: Mapping[str, Any]

    def build(self) -> nn.Module:
        """A new network.

        Raises
        ------
        ConfigError
            The class cannot be imported, is not a `torch.nn.Module`, or does not take these hyper-parameters.
        """
        module, _, name = self.class_path.partition(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"class_path {self.class_path!r} cannot be imported: {error}; give module:Class, with the module "
                "installed or on the path of every process that trains or scores"
            ) from error
        if not (isinstance(found, type) and issubclass(found, nn.Module)):
            raise ConfigError(f"class_path {self.class_path!r} is not a torch.nn.Module; give the class of a network")
        try:
            return found(features=self.features, window=self.window, **self.hyperparameters)
        except TypeError as error:
            raise ConfigError(
                f"{self.class_path} cannot be made with features, window and {dict(self.hyperparameters)}: {error}"
            ) from error


class NetworkFamily:
    """Minimises the mean squared difference of score and processed label."""

    architecture: Architecture
    weights: State

    def fit(self, problem: LearningProblem, session: TrainingSession) -> FitResult:
        """Train until the session says stop or the epochs are over; keep the best epoch's weights."""
        trainer, hyperparameters = TrainerConfig.split(session.config.hyperparameters)
        class_path = session.config.class_path
        if class_path is None:
            raise ConfigError(f"{session.config.model}: class_path is missing; name the network's module:Class")
        if np.isnan(problem.features).any():
            raise ConfigError(
                f"{session.config.model}: a network cannot take missing values; set feature_processors: "
                "[robust_zscore_fill_zero] in its entry of include/config/models.yaml"
            )
        self.architecture = Architecture(class_path, len(problem.names), trainer.window, hyperparameters)
        with reproducible(session.threads):
            training = Training.begin(problem, self.architecture.build, trainer, session.seed)
            if trainer.precision == "bfloat16" and training.device.type == "cpu" and (cost := bfloat16_cost()) > 1.5:
                session.warn(
                    f"this machine's CPU takes {cost:.0f} times as long for products in bfloat16 as in float32; set "
                    f"hyperparameters.{session.config.model}.precision: float32"
                )
            metrics = ValidationMetrics(watched(problem, trainer.valid_rows_per_epoch, session.seed))
            train = TrainIC(problem, session.config.stopping.overfitting.metric, session.seed)
            restored = session.restore()
            if restored is not None:
                training.read(restored.folder / STATE)
            session.expect(trainer.epochs)
            while training.epochs_done < trainer.epochs and not session.monitor.stopped:
                found = {"loss": training.epoch(), **train.evaluate(training.score(train.rows))}
                done = training.epochs_done
                values = {f"train.{name}": value for name, value in found.items()}
                verdict = session.iteration(done, {**values, **metrics.evaluate(training.score(metrics.rows))})
                if verdict.is_best:
                    training.keep()
                session.checkpoint(done, lambda folder: training.write(folder / STATE))
            # If no metric could be compared, no epoch was the best one, and the last one is kept.
            self.weights = training.best if session.best_iteration else copied(training.network)
            training.network.load_state_dict(self.weights)
            importance = training.importance(metrics.rows)
        return FitResult(session.best_iteration, dict(zip(problem.names, importance, strict=True)))

    def save(self, folder: Path) -> None:
        """Write weights.safetensors and network.json."""
        save_file({name: tensor.contiguous() for name, tensor in self.weights.items()}, folder / WEIGHTS)
        write_json(folder / ARCHITECTURE, vars(self.architecture))

    @classmethod
    def load(cls, folder: Path, manifest: ArtefactManifest, threads: int) -> Predictor:
        """A network that scores on the CPU, whatever it was trained on."""
        return NetworkPredictor(folder, threads)

    @classmethod
    def runs_code(cls, folder: Path) -> bool:
        """Tensors contain no code; the class is one that is installed here."""
        return False

    @classmethod
    def memory_bytes(cls, hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
        """See `memory.py`."""
        return network_bytes(hyperparameters, rows, features)


@dataclass(frozen=True)
class NetworkPredictor:
    """A network that scores, in float32 on the CPU."""

    folder: Path
    threads: int

    @cached_property
    def network(self) -> nn.Module:
        """The loaded network, in eval mode.

        Raises
        ------
        ConfigError
            Its class cannot be imported.
        TrainingError
            The class has changed, so that its weights no longer fit.
        """
        architecture = Architecture(**read_json(self.folder / ARCHITECTURE))
        network = architecture.build()
        try:
            network.load_state_dict(load_file(self.folder / WEIGHTS))
        except RuntimeError as error:
            raise TrainingError(
                f"{self.folder}: the weights do not fit {architecture.class_path} as it is now: {error}; restore the "
                "class, or train again"
            ) from error
        return network.eval()

    def predict(self, features: FloatArray) -> FloatArray:
        """Scores, shape (n,), of (n, features), or (n, window, features) where the window is not 1."""
        network = self.network
        # The number of threads is the calling thread's own in OpenMP, so it is not enough to set it when loading.
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        scores = np.empty(len(features), dtype=np.float32)
        full = aligned((SCORED_AT_ONCE, *features.shape[1:]))
        with torch.inference_mode():
            for begin in range(0, len(features), SCORED_AT_ONCE):
                part = features[begin : begin + SCORED_AT_ONCE]
                full[: len(part)], full[len(part) :] = part, 0.0
                scores[begin : begin + len(part)] = network(torch.from_numpy(full)).numpy()[: len(part)]
        return scores
