"""Imports one model of Qlib alone: the package `qlib.contrib.model` imports all of them, including PyTorch's."""

import importlib
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

PACKAGE = "qlib.contrib.model"


def qlib_model(name: str) -> ModuleType:
    """The module `qlib.contrib.model.<name>`, imported without its package, whose import takes four seconds.

    Later imports of the package or the module get this same module.
    """
    full_name = f"{PACKAGE}.{name}"
    if full_name in sys.modules or PACKAGE in sys.modules:
        return importlib.import_module(full_name)
    (folder,) = importlib.import_module("qlib.contrib").__path__
    spec = spec_from_file_location(full_name, Path(folder, "model", f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[full_name] = module
    spec.loader.exec_module(module)
    return module
