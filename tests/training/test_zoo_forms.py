"""The zoo as a form: its schema refuses what the library refuses, and its texts say what the entries say."""

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError
from mlops_tasks.training.model_zoo.catalogue import model_zoo
from mlops_tasks.training.model_zoo.forms import (
    advanced_fields,
    basic_fields,
    merge_overrides,
    overrides_schema,
    searched_text,
    stopping_schema,
    trainable_models,
    value_text,
)


def test_each_hyperparameter_is_in_one_of_the_two_parts(tmp_path: Path) -> None:
    """In the order of the entry."""
    for model in trainable_models(Settings(home=tmp_path)):
        parts = [field["name"] for field in basic_fields(model)], [field["name"] for field in advanced_fields(model)]
        schemas = model_zoo()[model["name"]].hyperparameters
        assert parts[0] == [name for name, schema in schemas.items() if not schema.get("advanced", False)]
        assert parts[1] == [name for name, schema in schemas.items() if schema.get("advanced", False)]


@pytest.mark.parametrize(
    ("overrides", "right"),
    [
        ({"num_leaves": 31}, True),
        ({"num_leaves": 31.0}, True),
        ({"num_leaves": 31.5}, False),
        ({"num_leaves": 1}, False),
        ({"num_leaves": True}, False),
        ({"num_leaves": "31"}, False),
        ({"num_leafs": 31}, False),
        ({"learning_rate": 0}, False),
        ({"learning_rate": 1}, True),
        ({"loss": "no_loss"}, False),
        ({}, True),
    ],
)
def test_the_schema_refuses_what_the_library_refuses(tmp_path: Path, overrides: dict[str, Any], right: bool) -> None:
    """A form lets nothing through that a plan would refuse, nor refuses what it would take."""
    fields = {model["name"]: model["hyperparameters"] for model in trainable_models(Settings(home=tmp_path))}
    assert Draft202012Validator(overrides_schema(fields)).is_valid({"lightgbm": overrides}) == right
    if right:
        model_zoo()["lightgbm"].resolve("lightgbm", overrides)
    else:
        with pytest.raises(ConfigError, match=r"hyperparameters\.lightgbm"):
            model_zoo()["lightgbm"].resolve("lightgbm", overrides)


@pytest.mark.parametrize(
    ("overrides", "right"),
    [
        ({"metric": "rank_ic", "patience": 5}, True),
        ({"patience": 5.0, "min_delta": 0}, True),
        ({"patience": True}, False),
        ({"patience": "5"}, False),
        ({"min_delta": "0.1"}, False),
        ({"overfitting": {"gap": True}}, False),
        ({"overfitting": {"window": "7"}}, False),
        ({"min_delta": 0.001, "overfitting": {"action": "stop", "window": 7}}, True),
        ({"overfitting": {"window": None}}, True),
        ({"metric": "rankic"}, False),
        ({"patience": 0}, False),
        ({"patience": 2.5}, False),
        ({"overfitting": {"action": "shout"}}, False),
        ({"overfitting": {"window": 4}}, False),
        ({"overfit": {}}, False),
    ],
)
def test_the_schema_of_stopping_refuses_what_the_library_refuses(overrides: dict[str, Any], right: bool) -> None:
    """As that of hyper-parameters does."""
    assert Draft202012Validator(stopping_schema(["xgboost"])).is_valid({"xgboost": overrides}) == right
    if right:
        model_zoo()["xgboost"].resolve_stopping("xgboost", overrides)
    else:
        with pytest.raises(ConfigError, match=r"stopping\.xgboost"):
            model_zoo()["xgboost"].resolve_stopping("xgboost", overrides)


def test_two_forms_become_one_and_the_second_one_wins() -> None:
    """Models of either are kept."""
    first, second = {"a": {"x": 1, "y": 2}, "b": {"x": 3}}, {"a": {"y": 5, "z": 6}, "c": {"x": 7}}
    merged = merge_overrides({"hyperparameters": first, "advanced_hyperparameters": second})
    assert merged == {"a": {"x": 1, "y": 5, "z": 6}, "b": {"x": 3}, "c": {"x": 7}}


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({"search": None}, ""),
        ({"search": {"kind": "log", "low": 0.01, "high": 0.3}}, "0.01 to 0.3, logarithmic"),
        ({"search": {"kind": "linear", "low": 3, "high": 12}}, "3 to 12"),
        ({"search": {"kind": "categorical"}, "enum": ["ols", "ridge"]}, "ols, ridge"),
        ({"search": {"kind": "categorical"}, "type": "boolean"}, "true, false"),
    ],
)
def test_what_a_search_varies_is_said_in_words(field: dict[str, Any], text: str) -> None:
    """As the entry has it."""
    assert searched_text(field) == text


def test_a_value_reads_as_it_is_typed_into_the_form() -> None:
    """JSON, but words without quotes."""
    assert [value_text(value) for value in (1, 0.5, True, None, "ols", [1, 2])] == [
        "1",
        "0.5",
        "true",
        "null",
        "ols",
        "[1, 2]",
    ]
