"""The configuration of one training, typed and checked before any work."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from mlops_tasks.config import Section, Settings
from mlops_tasks.modeling.model_zoo.zoo import zoo_entry
from mlops_tasks.modeling.stopping import StoppingConfig


class TrainingConfig(Section):
    """Everything that decides what a model learns: on equal data, equal configurations give equal models."""

    model: str
    family: str
    class_path: str | None = None
    """`module:Class` of the network, estimator or Qlib model, where the family takes one."""
    hyperparameters: dict[str, Any]
    """Complete: defaults and overrides, checked against the entry's JSON schema."""
    feature_processors: tuple[Literal["robust_zscore_fill_zero"], ...] = ()
    label_processor: Literal["CSZScoreNorm", "CSRankNorm"]
    stopping: StoppingConfig = StoppingConfig()
    checkpoint_every: int = Field(100, ge=1, strict=True)
    """Iterations between two checkpoints."""
    seed: int = Field(ge=0, strict=True)

    @property
    def window(self) -> int:
        """Trading days that the model sees at once; 1: only the row's own."""
        return int(self.hyperparameters.get("window", 1))


def resolve_config(
    model: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    seed: int,
    stopping: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
) -> TrainingConfig:
    """The configuration of a model of the zoo.

    Parameters
    ----------
    overrides, stopping
        Overrides of the entry's hyper-parameters and of its stopping rule.
    settings
        For the user's own models; without them only the shipped ones are known.

    Raises
    ------
    ConfigError
        The model or a key is unknown, or a value is of the wrong type or out of range. The error names the path of the
        key, what is allowed and the remedy.
    """
    entry = zoo_entry(model, settings)
    return TrainingConfig(
        model=model,
        family=entry.family,
        class_path=entry.class_path,
        hyperparameters=entry.resolve(model, {} if overrides is None else overrides),
        feature_processors=entry.feature_processors,
        label_processor=entry.label_processor,
        stopping=entry.resolve_stopping(model, {} if stopping is None else stopping),
        checkpoint_every=entry.checkpoint_every,
        seed=seed,
    )
