"""What a model family is: it trains on a learning problem, saves itself as plain files, and scores from them."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.manifest import ArtefactManifest
from mlops_tasks.modeling.model_zoo.families import FAMILIES
from mlops_tasks.modeling.problem import LearningProblem
from mlops_tasks.modeling.session import TrainingSession

FloatArray = npt.NDArray[np.floating[Any]]


@dataclass
class FitResult:
    """The results of a training besides the model."""

    best_iteration: int = 0
    """0 for families without iterations."""
    importance: dict[str, float] = field(default_factory=dict)
    """By feature; empty where the family has no importance."""


class Family(Protocol):
    """One way of learning. A class of this protocol is named in `FAMILIES` and instantiated once per training."""

    def fit(self, problem: LearningProblem, session: TrainingSession) -> FitResult:
        """Learn on segment train, watch segment valid, report to the session; `session.py` describes the loop."""
        ...

    def save(self, folder: Path) -> None:
        """Write the model's files, with the state of the best iteration."""
        ...

    @classmethod
    def load(cls, folder: Path, manifest: ArtefactManifest, threads: int) -> "Predictor":
        """The predictor of the files of `save`; their digests have been checked."""
        ...

    @classmethod
    def runs_code(cls, folder: Path) -> bool:
        """Whether loading the files of `save` may run code that they contain, as a pickle does."""
        ...

    @classmethod
    def memory_bytes(cls, hyperparameters: Mapping[str, Any], rows: int, features: int) -> int:
        """Estimated peak memory of a training on this many learning rows, beyond the processed float32 matrix."""
        ...


class Predictor(Protocol):
    """Turns processed features into scores."""

    def predict(self, features: FloatArray) -> FloatArray:
        """Scores, shape (n,), of processed features: (n, features), or (n, window, features) for window models."""
        ...


def find_family(name: str) -> type[Family]:
    """The class of a family.

    Raises
    ------
    ConfigError
        The name is unknown.
    """
    if name not in FAMILIES:
        raise ConfigError(f"unknown family {name!r}; known: {', '.join(FAMILIES)}")
    module, _, attribute = FAMILIES[name].partition(":")
    found: type[Family] = getattr(importlib.import_module(module), attribute)
    return found
