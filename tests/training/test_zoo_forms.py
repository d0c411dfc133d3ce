"""What a form may say of the zoo, and what the zoo says of itself in words."""

from typing import Any

import pytest

from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.model_zoo.forms import searched_text, value_text
from mlops_tasks.modeling.model_zoo.zoo import model_zoo


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
def test_hyperparameters_are_what_their_entry_allows(overrides: dict[str, Any], right: bool) -> None:
    """Or refused, with their path."""
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
def test_stopping_is_what_its_type_allows(overrides: dict[str, Any], right: bool) -> None:
    """Or refused, with its path."""
    if right:
        model_zoo()["xgboost"].resolve_stopping("xgboost", overrides)
    else:
        with pytest.raises(ConfigError, match=r"stopping\.xgboost"):
            model_zoo()["xgboost"].resolve_stopping("xgboost", overrides)


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
