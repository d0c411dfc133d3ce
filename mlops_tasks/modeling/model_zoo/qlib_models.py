"""One model of Qlib by itself: the package `qlib.contrib.model` imports all of them, PyTorch's among them."""

import importlib
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

PACKAGE = "qlib.contrib.model"


def qlib_model(name: str) -> ModuleType:
    """The module `qlib.contrib.model.<name>`, imported without its package, which takes four seconds.

    Whoever imports the package or the module later gets this very module.
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
