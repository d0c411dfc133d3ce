"""The model zoo as plain JSON, for forms, pages and the command line; light to import, except for memory estimates."""

from collections.abc import Mapping
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.modeling.model_zoo.zoo import ModelEntry, read_zoo, zoo_entry


def describe_zoo(settings: Settings | None = None) -> list[dict[str, Any]]:
    """Every model of the zoo, in the order of the files; the user's own that clash with a shipped name come first.

    Returns
    -------
    For each: `name`, `own` (from the user's file), `error` (None, or why it cannot be trained; then the rest is
    missing), and the keys of `describe_model`.

    Raises
    ------
    ConfigError
        A file is not a YAML mapping.
    """
    zoo = read_zoo(settings)
    described = [
        {"name": name, "own": name in zoo.own, "error": None, **describe_model(entry)}
        for name, entry in zoo.entries.items()
        if name not in zoo.errors
    ]
    clashes = [{"name": name, "own": True, "error": error} for name, error in zoo.clashes.items()]
    wrong = [{"name": name, "own": name in zoo.own, "error": error} for name, error in zoo.errors.items()]
    return [*clashes, *described, *wrong]


def describe_model(entry: ModelEntry) -> dict[str, Any]:
    """An entry as plain JSON.

    Returns
    -------
    `family`, `class_path`, `description`, `recommended_for`, `feature_processors`, `label_processor`, `stopping`,
    `checkpoint_every`; `window` (trading days that it sees by default); `hyperparameters`: a list, in the form's
    order, of `name`, `type`, `default`, the limits (JSON Schema keywords), `description`, `advanced`, and `search`
    (None, or `kind` with `low` and `high`); `json_schema` of an object of them.
    """
    return {
        **entry.model_dump(mode="json", exclude={"hyperparameters"}),
        "window": int(entry.defaults().get("window", 1)),
        "hyperparameters": [_parameter(name, schema) for name, schema in entry.hyperparameters.items()],
        "json_schema": entry.json_schema(),
    }


def _parameter(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    searched = schema.get("search")
    search = {"kind": searched, **{end: schema[end] for end in ("low", "high") if end in schema}} if searched else None
    return {
        "name": name,
        "description": "",
        "advanced": False,
        **{key: value for key, value in schema.items() if key not in ("search", "low", "high", "window_share")},
        "search": search,
    }


def memory_estimate(
    settings: Settings, model: str, rows: int, features: int, overrides: Mapping[str, Any] | None = None
) -> int:
    """Estimated peak memory of a training in bytes; imports the family, which may take seconds.

    Parameters
    ----------
    rows
        Rows with a label of train and valid.
    features
        Columns.

    Returns
    -------
    The sum of the family's own estimate and the processed float32 matrix.

    Raises
    ------
    ConfigError
        The model or a hyper-parameter is unknown or out of range.
    """
    from mlops_tasks.modeling.model_zoo.family import find_family

    entry = zoo_entry(model, settings)
    hyperparameters = entry.resolve(model, overrides or {})
    return find_family(entry.family).memory_bytes(hyperparameters, rows, features) + rows * features * 4
