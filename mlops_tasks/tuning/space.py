"""The search space of a model, from its entry in the zoo."""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.model_zoo.zoo import ModelEntry
from mlops_tasks.tuning.study import searched

Space = dict[str, BaseDistribution]


def search_space(model: str, entry: ModelEntry, fixed: Mapping[str, Any] | None = None) -> Space:
    """Distribution of each hyper-parameter that the entry lets a search vary and that is not fixed.

    One with a `window_share` is at most that share of the window, so that every network can be built.

    Raises
    ------
    ConfigError
        An entry's `search` is unknown, or lacks its bounds.
    """
    fixed = fixed or {}
    window = fixed.get("window", _shortest_window(entry))
    return {
        name: _distribution(f"hyperparameters.{model}.{name}", _inside(window, schema))
        for name, schema in searched(entry, fixed).items()
    }


def within(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of names in the space, moved to the nearest bound where they lie outside it.

    A word that is not among the choices is left out, so that the sampler chooses.
    """
    inside: dict[str, Any] = {}
    for name, distribution in space.items():
        if name not in values:
            continue
        value = values[name]
        if isinstance(distribution, FloatDistribution | IntDistribution):
            inside[name] = min(max(value, distribution.low), distribution.high)
        elif isinstance(distribution, CategoricalDistribution) and value in distribution.choices:
            inside[name] = value
    return inside


def largest(space: Space, name: str, otherwise: int) -> int:
    """The largest value that a search may give to a whole number; `otherwise` where it is not searched."""
    distribution = space.get(name)
    if isinstance(distribution, IntDistribution):
        return distribution.high
    if isinstance(distribution, CategoricalDistribution):
        return max(int(choice or 0) for choice in distribution.choices)
    return otherwise


def _shortest_window(entry: ModelEntry) -> int:
    """Trading days that every trial sees at least, if the window is not fixed."""
    schema = entry.hyperparameters.get("window", {"default": 1})
    if "search" not in schema:
        return int(schema["default"])
    return int(schema["low"] if "low" in schema else min(schema["enum"]))


def _inside(window: int, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema with its bounds lowered to its share of a window."""
    if "window_share" not in schema:
        return schema
    most = max(int(window * schema["window_share"]), 1)
    return {**schema, "low": min(schema["low"], most), "high": min(schema["high"], most)}


def _distribution(path: str, schema: Mapping[str, Any]) -> BaseDistribution:
    kind = schema["search"]
    if kind == "categorical":
        choices = schema.get("enum") or ([False, True] if schema.get("type") == "boolean" else None)
        if not choices:
            raise ConfigError(f"{path}: search: categorical needs enum, or type boolean; give one in models.yaml")
        return CategoricalDistribution(choices)
    if kind not in ("log", "linear"):
        raise ConfigError(f"{path}: unknown search {kind!r}; use log, linear or categorical in models.yaml")
    if "low" not in schema or "high" not in schema:
        raise ConfigError(f"{path}: search: {kind} needs low and high; give them in models.yaml")
    numeric = IntDistribution if schema.get("type") == "integer" else FloatDistribution
    try:
        return numeric(schema["low"], schema["high"], log=kind == "log")
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; correct low and high in models.yaml") from None
