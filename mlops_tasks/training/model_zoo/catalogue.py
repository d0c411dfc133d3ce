"""The model zoo: what can be trained, read from include/config/models.yaml and checked."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from mlops_tasks.config import PROJECT, Section
from mlops_tasks.errors import ConfigError, hint
from mlops_tasks.training.stopping import StoppingConfig


class ModelEntry(Section):
    """One model of the zoo."""

    family: str
    """A key of `FAMILIES`."""
    class_path: str | None = None
    """`module:Class` of the network, estimator or Qlib model, where the family takes one."""
    description: str
    recommended_for: tuple[str, ...]
    """Scenarios in which it is a good choice."""
    feature_processors: tuple[Literal["robust_zscore_fill_zero"], ...] = ()
    label_processor: Literal["CSZScoreNorm", "CSRankNorm"]
    stopping: StoppingConfig = StoppingConfig()
    checkpoint_every: int = Field(100, ge=1)
    """Iterations between two checkpoints."""
    hyperparameters: Mapping[str, Mapping[str, Any]]
    """JSON Schema of each: type, default, minimum, maximum, enum, description; `advanced` (hidden at first),
    `search` (`log`, `linear` or `categorical`: a search varies it, from `low` to `high`)."""

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of an object of hyper-parameters."""
        return {"type": "object", "properties": dict(self.hyperparameters), "additionalProperties": False}

    def defaults(self) -> dict[str, Any]:
        """Every hyper-parameter's default."""
        return {name: schema["default"] for name, schema in self.hyperparameters.items()}

    def resolve(self, model: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults and overrides, checked.

        Raises
        ------
        ConfigError
            A key is unknown, or a value of the wrong type or out of range.
        """
        for name in overrides:
            if name not in self.hyperparameters:
                raise ConfigError(f"hyperparameters.{model}.{name}: unknown; {hint(name, self.hyperparameters)}")
        return {**self.defaults(), **overrides}


@cache
def model_zoo() -> Mapping[str, ModelEntry]:
    """All entries by name.

    Raises
    ------
    ConfigError
        An entry has an unknown key or value; names the file, the entry and the key.
    """
    path = PROJECT / "include" / "config" / "models.yaml"
    entries = {}
    for name, content in yaml.safe_load(path.read_text()).items():
        try:
            entries[name] = ModelEntry.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(
                f"{path}: {name}.{'.'.join(map(str, first['loc']))}: {first['msg']}; correct the entry"
            ) from None
    return entries


def zoo_entry(name: str) -> ModelEntry:
    """One entry; ConfigError with the known names when there is none."""
    zoo = model_zoo()
    if name not in zoo:
        raise ConfigError(f"unknown model {name!r}; include/config/models.yaml has {', '.join(zoo)}")
    return zoo[name]
