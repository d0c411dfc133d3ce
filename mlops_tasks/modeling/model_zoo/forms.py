"""Texts about the zoo, for pages and the API."""

import json
from collections.abc import Mapping
from typing import Any

Field = Mapping[str, Any]
"""A hyper-parameter, as `describe_model` lists it."""


def value_text(value: Any) -> str:
    """A value as it is typed into a form: JSON, but words without quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def searched_text(field: Field) -> str:
    """What a search varies, such as `0.01 to 0.3, logarithmic`; empty for a hyper-parameter that it leaves alone."""
    search = field["search"]
    if search is None:
        return ""
    if search["kind"] == "categorical":
        return ", ".join(map(value_text, field.get("enum", [True, False])))
    span = f"{value_text(search['low'])} to {value_text(search['high'])}"
    return f"{span}, logarithmic" if search["kind"] == "log" else span
