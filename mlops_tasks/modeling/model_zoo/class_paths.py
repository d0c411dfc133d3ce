"""Imports the classes that an entry names by their path."""

import importlib
from collections.abc import Callable
from typing import Any

from mlops_tasks.errors import ConfigError
from mlops_tasks.modeling.configuration import TrainingConfig


def import_class(class_path: str) -> Callable[..., Any]:
    """What `module:Class` names: a class, or a function that makes an object.

    Raises
    ------
    ConfigError
        It cannot be imported.
    """
    module, _, name = class_path.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"class_path {class_path!r} cannot be imported: {error}; give module:Class, with the module installed or "
            "on the path of every process that trains or scores"
        ) from error
    return found


def make_configured(config: TrainingConfig, **fallback: Any) -> Any:
    """The object that a configuration's class path names, made with its hyper-parameters.

    `fallback` holds values of hyper-parameters that the configuration does not give.

    Raises
    ------
    ConfigError
        There is no class path, it cannot be imported, or its class does not take the hyper-parameters.
    """
    if config.class_path is None:
        raise ConfigError(f"models.{config.model}.class_path: is missing; name the module:Class")
    maker = import_class(config.class_path)
    try:
        return maker(**{**fallback, **config.hyperparameters})
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ConfigError(
            f"hyperparameters.{config.model}: {config.class_path} cannot be made with {config.hyperparameters}: "
            f"{type(error).__name__}: {error}; correct them, or the entry in models.yaml"
        ) from error
