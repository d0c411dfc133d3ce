"""The zoo as a form: JSON Schemas of overrides, and what a person reads about each hyper-parameter.

DAG forms, pages and the API are made from it, so a new entry in the zoo is in all of them. Light: DAG files read it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.training.model_zoo.description import describe_zoo
from mlops_tasks.training.overfitting import OverfittingConfig
from mlops_tasks.training.stopping import StoppingConfig

Field = Mapping[str, Any]
"""A hyper-parameter, as `describe_model` lists it."""
Overrides = Mapping[str, Mapping[str, Any]]
"""`{model: {hyper-parameter: value}}`."""

_ABOUT = {"name", "advanced", "search"}
"""What a field has beyond JSON Schema."""


def trainable_models(settings: Settings) -> list[dict[str, Any]]:
    """What `describe_zoo` says of the models whose entries are right."""
    return [model for model in describe_zoo(settings) if model["error"] is None]


def basic_fields(model: Mapping[str, Any]) -> list[Field]:
    """The hyper-parameters that a person looks at first."""
    return [field for field in model["hyperparameters"] if not field["advanced"]]


def advanced_fields(model: Mapping[str, Any]) -> list[Field]:
    """The others: good as they are for most."""
    return [field for field in model["hyperparameters"] if field["advanced"]]


def overrides_schema(fields_of: Mapping[str, Sequence[Field]]) -> dict[str, Any]:
    """JSON Schema (2020-12) of overrides; a model without fields takes none."""
    models = {model: _object({field["name"]: _schema(field) for field in each}) for model, each in fields_of.items()}
    return _object({model: schema for model, schema in models.items() if schema["properties"]})


def stopping_schema(models: Sequence[str]) -> dict[str, Any]:
    """JSON Schema (2020-12) of overrides of when a model's training stops, by model."""
    own = StoppingConfig.model_json_schema()
    nested = own["$defs"][OverfittingConfig.__name__]
    one = _object({**own["properties"], "overfitting": _object(nested["properties"])})
    return _object(dict.fromkeys(models, one))


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _schema(field: Field) -> dict[str, Any]:
    return {key: value for key, value in field.items() if key not in _ABOUT}


def merge_overrides(parts: Mapping[str, Overrides]) -> dict[str, dict[str, Any]]:
    """Overrides from several parts of a form, by their keys; of a hyper-parameter that is in two the later one counts.

    Raises
    ------
    ConfigError
        A part, or what it says of a model, is no mapping; names its path.
    """
    merged: dict[str, dict[str, Any]] = {}
    for key, part in parts.items():
        for model, overrides in _mapping(key, part, "models to overrides").items():
            merged.setdefault(model, {}).update(_mapping(f"{key}.{model}", overrides, "hyper-parameters to values"))
    return merged


def _mapping(path: str, value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: expected a mapping of {what}, got {value!r}; correct it, or leave it out")
    return value


def value_text(value: Any) -> str:
    """A value as JSON, words without quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def searched_text(field: Field) -> str:
    """What a search varies: `0.01 to 0.3, logarithmic`; empty for a hyper-parameter that it leaves alone."""
    search = field["search"]
    if search is None:
        return ""
    if search["kind"] == "categorical":
        return ", ".join(map(value_text, field.get("enum", [True, False])))
    span = f"{value_text(search['low'])} to {value_text(search['high'])}"
    return f"{span}, logarithmic" if search["kind"] == "log" else span
