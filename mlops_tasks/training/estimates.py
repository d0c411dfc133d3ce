"""What a training that is about to be requested will take: memory by the family's formula, time by those before it."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.features.sets import find_feature_set
from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.modeling.model_zoo.memory import BASE_MB, PLAIN_BASE_MB
from mlops_tasks.state.training_runs import finished_trainings
from mlops_tasks.training.memory_need import panel_need

_PAST = 10
"""Newest trainings of a model by which the next one's time is told."""


@dataclass(frozen=True)
class PastSeconds:
    """How long the newest finished trainings of a model took; those that were found finished do not count."""

    trainings: int
    least: float
    median: float
    most: float


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training will take at most.

    Attributes
    ----------
    rows
        Of all days of the vintage that it would load.
    memory_mb
        Peak, in MB (10^6 bytes).
    seconds
        None: none of this model has finished yet.
    """

    model: str
    data_version: str
    feature_set: str
    rows: int
    features: int
    memory_mb: float
    seconds: PastSeconds | None


def training_estimate(
    settings: Settings, model: str, overrides: Mapping[str, Any] | None = None, feature_set: str | None = None
) -> TrainingEstimate:
    """Estimate a training on the vintage in use.

    Raises
    ------
    ConfigError
        The model, a hyper-parameter or the feature set is unknown, or a value is out of range.
    StoreError
        No vintage is in use.
    """
    config = resolve_config(model, overrides or {}, seed=settings.training.seed, settings=settings)
    definition = find_feature_set(feature_set or settings.features.feature_set, settings)
    vintage, features = current_vintage(settings), len(definition.names)
    need = panel_need(vintage, int(vintage.manifest["rows"]), features, config)
    return TrainingEstimate(
        model=model,
        data_version=vintage.data_version,
        feature_set=definition.name,
        rows=need.rows,
        features=features,
        memory_mb=round(need.total_mb + BASE_MB.get(config.family, PLAIN_BASE_MB), 1),
        seconds=past_seconds(settings, model),
    )


def past_seconds(settings: Settings, model: str) -> PastSeconds | None:
    """How long the newest trainings of a model took; None where none has finished."""
    ended = finished_trainings(settings, model, _PAST)
    took = [float(payload["seconds"]) for payload in ended if "seconds" in payload and not payload.get("reused")]
    return PastSeconds(len(took), min(took), median(took), max(took)) if took else None
