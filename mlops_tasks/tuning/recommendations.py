"""The algorithm selector's recommendations, as the searches that asked for one have left them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.files import read_json, write_json


@dataclass(frozen=True)
class Recommended:
    """A model, and with which hyper-parameters to begin."""

    model: str
    expected_rank_ic: float | None
    hyperparameters: Mapping[str, Any]
    reasons: Sequence[str]


@dataclass(frozen=True)
class RecordedRecommendation:
    """What the selector said of a vintage, best first."""

    data_version: str
    at: datetime
    summary: str
    skill_found: bool
    ranking: Sequence[Recommended]
    refused: Mapping[str, str]
    """Models that do not fit into memory, and why."""


def _folder(settings: Settings) -> Path:
    return settings.tuning_dir / "recommendations"


def record_recommendation(settings: Settings, data_version: str, content: Mapping[str, Any]) -> None:
    """Keep a profile and what was recommended by it."""
    write_json(_folder(settings) / f"{data_version}.json", dict(content))


def newest_recommendation(settings: Settings) -> RecordedRecommendation | None:
    """The newest one, whichever vintage it is of; None: nobody has asked for one yet."""
    found = sorted(_folder(settings).glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    if not found:
        return None
    path = found[-1]
    said = read_json(path)["recommendation"]
    names = ("model", "expected_rank_ic", "hyperparameters", "reasons")
    return RecordedRecommendation(
        data_version=path.stem,
        at=datetime.fromtimestamp(path.stat().st_mtime, UTC),
        summary=said["summary"],
        skill_found=said["skill_found"],
        ranking=[Recommended(**{name: each[name] for name in names}) for each in said["ranking"]],
        refused=said["refused"],
    )
