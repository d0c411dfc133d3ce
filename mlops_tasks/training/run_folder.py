"""What the two processes of a training run share while it runs: `<home>/training_runs/<run_id>/`.

    request.json    what to train (`FitRequest`)
    events.jsonl    the journal
    command         the newest command
    result/         the training folder until it is complete

The folder is removed when the state database has the run's terminal event.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.files import read_json, write_json
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.training.plan import RunPlan

_SETTINGS = {"home", "synthetic", "features", "models", "training", "portfolio"}
"""Sections that a training process is given; none of them holds a secret."""


@dataclass(frozen=True)
class FitRequest:
    """One training, as its process receives it."""

    plan: RunPlan
    feature_version: str
    config: TrainingConfig

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "plan": self.plan.model_dump(mode="json"),
            "feature_version": self.feature_version,
            "config": self.config.model_dump(mode="json"),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "FitRequest":
        """The inverse of `to_json`."""
        return cls(
            RunPlan.model_validate(content["plan"]),
            content["feature_version"],
            TrainingConfig.model_validate(content["config"]),
        )


@dataclass(frozen=True)
class RunFolder:
    """A run's folder: its paths and what they hold."""

    path: Path

    @classmethod
    def of(cls, settings: Settings, run_id: str) -> "RunFolder":
        """The folder of a run."""
        return cls(settings.training_runs_dir / run_id)

    @property
    def run_id(self) -> str:
        """The id of the run that the folder belongs to."""
        return self.path.name

    @property
    def journal(self) -> Path:
        """Events, see `events.py`."""
        return self.path / "events.jsonl"

    @property
    def command(self) -> Path:
        """The newest command, see `control.py`."""
        return self.path / "command"

    @property
    def result(self) -> Path:
        """Where the training's folder is prepared."""
        return self.path / "result"

    def write(self, settings: Settings, request: FitRequest) -> None:
        """Make the folder and write request.json."""
        content = {"settings": settings.model_dump(mode="json", include=_SETTINGS), "request": request.to_json()}
        write_json(self.path / "request.json", content)

    def read(self) -> tuple[Settings, FitRequest]:
        """What `write` wrote."""
        content = read_json(self.path / "request.json")
        return Settings.model_validate(content["settings"]), FitRequest.from_json(content["request"])
