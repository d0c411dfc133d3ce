"""What is replayed, as the process that replays it receives it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self

from mlops_tasks.files import read_json, write_json
from mlops_tasks.modeling.configuration import TrainingConfig


@dataclass(frozen=True)
class ReplayRequest:
    """One replay; nothing in it needs a secret, MLflow or the state database.

    Attributes
    ----------
    feature_version
        The features that the version was trained on.
    definition
        The feature set, as `FeatureSet.to_json` describes it.
    configuration
        What the training key follows from besides the learning data.
    model_config
        A `TrainingConfig` as JSON.
    threads
        Threads that it was trained with; None where they change nothing.
    files
        Name to SHA-256 of the registered model's files, as they were signed.
    same_environment
        Whether nothing that may change a model has changed since.
    tolerance
        As `ReplaySettings.tolerance`.
    """

    training_key: str
    data_version: str
    feature_version: str
    definition: Mapping[str, Any]
    horizon: int
    segments: Mapping[str, tuple[str, str]]
    configuration: Mapping[str, Any]
    model_config: Mapping[str, Any]
    threads: int | None
    files: Mapping[str, str]
    same_environment: bool
    tolerance: float

    @property
    def config(self) -> TrainingConfig:
        """How it was trained."""
        return TrainingConfig.model_validate(self.model_config)

    @property
    def days(self) -> dict[str, tuple[date, date]]:
        """First and last day of each segment."""
        return {
            name: (date.fromisoformat(first), date.fromisoformat(last)) for name, (first, last) in self.segments.items()
        }

    def write(self, path: Path) -> None:
        """As JSON."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Self:
        """The inverse of `write`."""
        return cls(**read_json(path))
