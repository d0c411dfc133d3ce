"""Overrides of the zoo by a form or a script: lines of `model.name=value`, or nested mappings. Light to import."""

import json
from collections.abc import Mapping
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, excerpt
from mlops_tasks.modeling.model_zoo.zoo import ModelEntry, zoo_entry

Overrides = dict[str, dict[str, Any]]
"""`{model: {name: value}}`; in `stopping`, a value may itself be a mapping."""

EXAMPLE = "lightgbm.num_leaves=31"
_COMMENT = "#"
_DEEPEST = 100
"""Lists and objects of a value, and levels of a path: no setting has so many, and one inside another they would exhaust
the stack of whatever reads them."""


def checked_overrides(settings: Settings, form: Mapping[str, Any]) -> dict[str, Overrides]:
    """What a form's fields `hyperparameters` and `stopping` override, as `read_overrides` takes it; absent: nothing.

    Raises
    ------
    ConfigError
        A text cannot be read, or a model, a name or a value is not one that the zoo allows; the message begins with the
        field's name.
    """
    found = {field: read_overrides(field, form.get(field) or {}) for field in ("hyperparameters", "stopping")}
    for model, overrides in found["hyperparameters"].items():
        named_entry("hyperparameters", model, settings).resolve(model, overrides)
    for model, overrides in found["stopping"].items():
        named_entry("stopping", model, settings).resolve_stopping(model, overrides)
    return found


def named_entry(field: str, model: str, settings: Settings) -> ModelEntry:
    """The entry of a model that a field of a form names; ConfigError with the field's name if there is none."""
    try:
        return zoo_entry(model, settings)
    except ConfigError as error:
        raise ConfigError(f"{field}: {error}") from None


def read_overrides(field: str, given: Any) -> Overrides:
    """The overrides that a field of a form holds; nothing is checked against the zoo.

    Parameters
    ----------
    field
        The field's name, for errors.
    given
        A text with one `model.name=value` per line, and a dot before each further level. A value is JSON, or a word
        without quotes; empty lines and lines that begin with # are ignored. Or `{model: {name: value}}`.

    Raises
    ------
    ConfigError
        It is neither; names the field and the line or the key.
    """
    if isinstance(given, str):
        return _from_lines(field, given)
    models = _mapping(field, given, "models to overrides, or a text of lines like " + EXAMPLE)
    return {model: dict(_mapping(f"{field}.{model}", of, "names to values")) for model, of in models.items()}


def _from_lines(field: str, text: str) -> Overrides:
    found: Overrides = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith(_COMMENT):
            continue
        path, _, value = (part.strip() for part in line.partition("="))
        *outer, name = path.split(".")
        if not (outer and all(outer) and name and value):
            raise ConfigError(
                f"{field}, line {number}: expected model.name=value, such as {EXAMPLE}, got {excerpt(line)}; correct it"
            )
        if max(value.count("[") + value.count("{"), len(outer)) > _DEEPEST:
            raise ConfigError(
                f"{field}, line {number}: {excerpt(line)} has more than {_DEEPEST} levels, lists or objects; correct it"
            )
        place: dict[str, Any] = found
        for level in outer:
            place = place.setdefault(level, {})
            if not isinstance(place, dict):
                break
        if not isinstance(place, dict) or name in place:
            raise ConfigError(f"{field}, line {number}: {excerpt(path)} is given a second time; keep one of the lines")
        place[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _mapping(path: str, value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: expected a mapping of {what}, got {value!r:.60}; correct it, or leave it out")
    return value
