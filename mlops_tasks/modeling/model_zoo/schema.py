"""Hyper-parameters as JSON Schema: values are checked against schemas, and schemas against a closed list of keywords.

JSON Schema ignores keywords that it does not know, so `minmum: 2` would check nothing; here it is an error.

The few keywords that are left are checked here, with the answers of the package jsonschema (a test compares them):
every light process reads the zoo, and importing that package takes seconds.
"""

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

from mlops_tasks.errors import ConfigError, hint

Schema = Mapping[str, Any]

_TYPES: Mapping[str, str] = {
    "integer": "an integer",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "null": "null",
}
_LIMITS = {"exclusiveMinimum": "above", "minimum": "not below", "exclusiveMaximum": "below", "maximum": "not above"}
_LENGTHS = {"minItems": "of at least", "maxItems": "of at most"}
Check = Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_length(value: Any) -> bool:
    return _is_integer(value) and value >= 0


def _names_types(value: Any) -> bool:
    if isinstance(value, str):
        return value in _TYPES
    return isinstance(value, list) and 0 < len(value) == len({*map(str, value)}) and all(map(_names_types, value))


_IS: Mapping[str, Check] = {
    "integer": _is_integer,
    "number": _is_number,
    "string": _is_text,
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "null": lambda value: value is None,
}
_VALUE: Mapping[str, Check] = {
    "type": _names_types,
    "enum": lambda value: isinstance(value, list) and bool(value),
    **dict.fromkeys(_LIMITS, _is_number),
    **dict.fromkeys(_LENGTHS, _is_length),
    "items": lambda value: isinstance(value, dict),
}
"""Keywords that a value is checked by, and the check of each keyword's own value."""
_ABOUT: Mapping[str, Check] = {
    "default": lambda value: True,
    "title": _is_text,
    "description": _is_text,
    "advanced": _IS["boolean"],
    "search": lambda value: value in ("log", "linear", "categorical"),
    "low": _is_number,
    "high": _is_number,
    "window_share": lambda value: _is_number(value) and 0 < value <= 1,
}
"""Further keywords that describe a hyper-parameter."""


def check_schema(path: str, schema: Schema) -> None:
    """Check the schema of one hyper-parameter.

    Parameters
    ----------
    path
        Of the schema, for the error: file, entry and key.

    Raises
    ------
    ConfigError
        A keyword is unknown or has a wrong value; type or default is missing; the schema does not allow the default, a
        value of enum, `low` or `high`; or a search lacks what it needs.
    """
    for name in ("type", "default"):
        if name not in schema:
            raise ConfigError(f"{path}.{name}: is missing; give one")
    _check_keywords(path, schema, {**_VALUE, **_ABOUT})
    for word in schema.get("enum", ()):
        check_value(f"{path}.enum", {name: each for name, each in schema.items() if name != "enum"}, word)
    check_value(f"{path}.default", schema, schema["default"])
    if "search" in schema:
        _check_search(path, schema)
    elif not {"low", "high", "window_share"}.isdisjoint(schema):
        raise ConfigError(
            f"{path}: low, high and window_share say where a search looks; give search: log or linear too"
        )


def check_value(path: str, schema: Schema, value: Any) -> Any:
    """A value that its schema allows, in the schema's type: 1.0 for an integer becomes 1, and 1 for a number 1.0.

    So equal configurations have the same digest. NaN and infinity are not numbers, and true is not an integer.

    Raises
    ------
    ConfigError
        The value is not allowed; the message says what is.
    """
    rules = _rules(schema)
    if not _finite(value) or not fits(rules, value):
        default = f", or leave it out for {schema['default']!r}" if "default" in schema else ""
        raise ConfigError(f"{path}: expected {allowed(schema)}, got {value!r:.60}; correct it{default}")
    return _typed(rules, value)


def allowed(schema: Schema) -> str:
    """What a schema allows, in words: `an integer from 2 to 4096`."""
    if "enum" in schema:
        return f"one of {', '.join(map(repr, schema['enum']))}"
    limits = [f"{word} {schema[name]}" for name, word in _LIMITS.items() if name in schema]
    if "minimum" in schema and "maximum" in schema:
        limits = [f"from {schema['minimum']} to {schema['maximum']}"]
    about = [" or ".join(_TYPES[name] for name in types_of(schema)) or "a value", " and ".join(limits)]
    if "items" in schema:
        about.append(f"each {allowed(schema['items'])}")
    lengths = [f"{word} {schema[name]} elements" for name, word in _LENGTHS.items() if name in schema]
    return " ".join(filter(None, [*about, " and ".join(lengths)]))


def types_of(schema: Schema) -> list[str]:
    """Names of the types that a schema allows; none: any."""
    found = schema.get("type", [])
    return [found] if isinstance(found, str) else list(found)


def fits(schema: Schema, value: Any) -> bool:
    """Whether a schema made of the keywords `_VALUE` allows a JSON value."""
    types = types_of(schema)
    if types and not any(_IS[name](value) for name in types):
        return False
    if "enum" in schema and not any(_equal(value, word) for word in schema["enum"]):
        return False
    if _is_number(value) and not _within(schema, value):
        return False
    if not isinstance(value, list):
        return True
    enough = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
    return enough and all(fits(schema.get("items", {}), each) for each in value)


def _within(schema: Schema, value: float) -> bool:
    return (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and not value <= schema.get("exclusiveMinimum", -math.inf)
        and not value >= schema.get("exclusiveMaximum", math.inf)
    )


def _equal(one: Any, other: Any) -> bool:
    """Whether values are equal in JSON: 1 equals 1.0, and neither equals true."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _check_keywords(path: str, schema: Schema, known: Mapping[str, Check]) -> None:
    for name, value in schema.items():
        if name not in known:
            raise ConfigError(f"{path}.{name}: unknown keyword; {hint(str(name), known)}")
        if not known[name](value):
            raise ConfigError(f"{path}.{name}: {value!r} is not a valid value of this keyword; correct it")
    if "items" in schema:
        _check_keywords(f"{path}.items", schema["items"], _VALUE)


def _check_search(path: str, schema: Schema) -> None:
    kind, numeric = schema["search"], set(types_of(schema)) <= {"integer", "number"}
    if kind == "categorical":
        if "enum" not in schema and types_of(schema) != ["boolean"]:
            raise ConfigError(f"{path}.search: categorical needs enum, or type boolean; give one")
        if "window_share" in schema:
            raise ConfigError(f"{path}.window_share: only bounds a log or linear search; remove it")
        return
    if not numeric or "low" not in schema or "high" not in schema:
        raise ConfigError(f"{path}.search: {kind} needs type integer or number, and low and high; give them")
    low, high = (check_value(f"{path}.{end}", schema, schema[end]) for end in ("low", "high"))
    if low >= high or (kind == "log" and low <= 0):
        above = " above 0" if kind == "log" else ""
        raise ConfigError(f"{path}: a {kind} search from {low} to {high} is empty; give low{above} and a larger high")


def _rules(schema: Schema) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name in _VALUE}


def _finite(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    if not isinstance(value, int | float):
        return True
    return -sys.float_info.max <= value <= sys.float_info.max  # an integer can be larger than any float, too


def _typed(schema: Schema, value: Any) -> Any:
    types = types_of(schema)
    if isinstance(value, list):
        return [_typed(schema.get("items", {}), each) for each in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if "integer" in types and "number" not in types:
        return int(value)
    return float(value) if "number" in types and "integer" not in types else value
