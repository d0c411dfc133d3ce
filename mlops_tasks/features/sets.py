"""Feature sets: named lists of factor expressions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlops_tasks.errors import ConfigError
from mlops_tasks.features.alpha158 import alpha158
from mlops_tasks.features.expressions import Node, dependencies, lookback, parse_feature
from mlops_tasks.files import digest_of

ENGINE_VERSION = 1
"""Raise it with every change that can change a value: stored features of other versions are then not reused."""

_BUILT_IN: Mapping[str, Callable[[], dict[str, str]]] = {"alpha158": alpha158}


@dataclass(frozen=True)
class FeatureSet:
    """A checked list of factors.

    Attributes
    ----------
    expressions
        Feature name to its text, in the order of the columns.
    nodes
        Feature name to its syntax tree, in the same order.
    """

    name: str
    expressions: Mapping[str, str]
    nodes: Mapping[str, Node]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, in order."""
        return tuple(self.expressions)

    @property
    def digest(self) -> str:
        """Identity of what is computed: names, texts and the engine's version."""
        return digest_of({"engine": ENGINE_VERSION, "expressions": list(self.expressions.items())})

    @property
    def lookback_rows(self) -> float:
        """Calendar rows before the current one that a value depends on; infinite where the first bar matters."""
        return max(lookback(node) for node in self.nodes.values())

    @property
    def dependencies(self) -> dict[str, dict[str, float]]:
        """Feature to the fields that it depends on, each with the calendar rows that it reaches back."""
        return {name: dependencies(node) for name, node in self.nodes.items()}


def find_feature_set(name: str) -> FeatureSet:
    """The feature set of that name.

    Raises
    ------
    ConfigError
        There is no such set, or one of its expressions is wrong.
    """
    if name not in _BUILT_IN:
        raise ConfigError(f"features.feature_set: unknown feature set {name!r}; known: {', '.join(_BUILT_IN)}")
    expressions = _BUILT_IN[name]()
    return FeatureSet(name, expressions, {key: parse_feature(text) for key, text in expressions.items()})
