"""Importing libraries without what makes it slow: of a stage's seconds, most may go into what it never uses."""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

_GRAMMAR = "rfc3987_syntax"


def import_json_schema() -> None:
    """Import jsonschema as if `rfc3987_syntax` were not installed; harmless when either is imported already.

    Great Expectations imports it. Where that package is there (Jupyter, which Qlib requires, brings it), the import
    compiles a grammar of international web addresses. That takes more than a second, for the formats `iri` and
    `iri-reference`, which nobody here uses.
    """
    if "jsonschema" in sys.modules or _GRAMMAR in sys.modules:
        return
    sys.modules[_GRAMMAR] = None  # type: ignore[assignment]  # Python's mark of what cannot be imported
    try:
        importlib.import_module("jsonschema")
    finally:
        del sys.modules[_GRAMMAR]


def import_late(name: str) -> None:
    """Let `import <name>` cost nothing from now on; the package is imported when something of it is first used.

    For a library that another one imports, and needs in few of its parts. What is imported already stays so, and what
    is not installed is still said to be missing.
    """
    if name in sys.modules or (spec := importlib.util.find_spec(name)) is None:
        return
    stand_in = ModuleType(name)
    stand_in.__spec__ = spec

    def use(attribute: str) -> Any:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    stand_in.__getattr__ = use  # type: ignore[method-assign]  # a module's own, PEP 562
    sys.modules[name] = stand_in
