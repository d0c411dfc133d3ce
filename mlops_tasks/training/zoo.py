"""The model zoo: what can be trained, read from include/config/models.yaml and checked."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from mlops_tasks.config import PROJECT, Section
from mlops_tasks.errors import ConfigError


class ModelEntry(Section):
    """One model of the zoo."""

    family: Literal["lightgbm", "linear"]
    description: str
    recommended_for: str
    feature_processors: tuple[Literal["robust_zscore_fill_zero"], ...] = ()
    label_processor: Literal["CSZScoreNorm", "CSRankNorm"]
    hyperparameters: Mapping[str, Any]


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
