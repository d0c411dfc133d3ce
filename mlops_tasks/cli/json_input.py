"""JSON arguments of the command line."""

import inspect
import json
from collections.abc import Callable
from typing import Any

from mlops_tasks.errors import ConfigError


def json_object(option: str, text: str) -> dict[str, Any]:
    """The JSON object given by an option.

    Raises
    ------
    ConfigError
        It is not a JSON object. The message names the line and the column.
    """
    remedy = """give one object in single quotes, such as '{"name": "value"}'"""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{option}: invalid JSON in line {error.lineno}, column {error.colno}: {error.msg}; {remedy}"
        ) from None
    except RecursionError:
        raise ConfigError(f"{option}: nested too deep; {remedy}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{option}: expected an object, got {type(content).__name__}; {remedy}")
    return content


def stage_arguments(function: Callable[..., Any], stage: str, text: str) -> dict[str, Any]:
    """The keyword arguments of a stage from `run --arguments`.

    Raises
    ------
    ConfigError
        They are not a JSON object, or the stage does not accept them.
    """
    given = json_object("run --arguments", text)
    signature = inspect.signature(function)
    try:
        signature.bind(**given)
    except TypeError as error:
        raise ConfigError(f"run {stage} --arguments: {error}; it takes {', '.join(signature.parameters)}") from None
    return given
