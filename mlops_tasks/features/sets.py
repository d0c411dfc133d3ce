"""Feature sets: named lists of factor expressions and technical indicators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any

from mlops_tasks.columns import BAR_FIELDS
from mlops_tasks.errors import ConfigError
from mlops_tasks.features.alpha158 import alpha158
from mlops_tasks.features.expressions import Node, dependencies, lookback, parse_feature
from mlops_tasks.files import digest_of

if TYPE_CHECKING:  # its kernels are compiled code, and a DAG file asks for the names of the sets only
    from mlops_tasks.features.indicators.specs import IndicatorSpec

ENGINE_VERSION = 1
"""Raise it with every change that can change a value: stored features of other versions are then not reused."""

_BUILT_IN: Mapping[str, Callable[[], dict[str, str]]] = {"alpha158": alpha158}


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """A checked list of columns: expressions first, then those of indicators.

    Attributes
    ----------
    version
        The owner's number of the definition; stored features go by what is computed, not by it.
    expressions
        Column to its text, in the order of the columns.
    nodes
        Column to its syntax tree, in the same order.
    indicators
        Each gives one or more columns, after the expressions.
    """

    name: str
    version: int
    owner: str
    description: str
    expressions: Mapping[str, str]
    nodes: Mapping[str, Node]
    indicators: tuple[IndicatorSpec, ...] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names, in order."""
        return (*self.expressions, *(column for spec in self.indicators for column in spec.columns))

    @cached_property
    def digest(self) -> str:
        """Identity of what is computed: columns, expressions, indicators and the versions of the two engines."""
        content: dict[str, Any] = {
            "engine": ENGINE_VERSION,
            "expressions": [[name, _canonical(node)] for name, node in self.nodes.items()],
        }
        if self.indicators:
            from mlops_tasks.features.indicators.state import STATE_VERSION

            content["indicators"] = [STATE_VERSION, [spec.as_entry() for spec in self.indicators]]
        return digest_of(content)

    @cached_property
    def lookback_rows(self) -> float:
        """Calendar rows before the current one that a value depends on; infinite where the first bar matters.

        The windows of indicators count an instrument's own bars, which lie in any number of calendar rows.
        """
        return inf if self.indicators else max(lookback(node) for node in self.nodes.values())

    @cached_property
    def dependencies(self) -> dict[str, dict[str, float]]:
        """Column to the fields that it depends on, each with the calendar rows that it reaches back."""
        found = {name: dependencies(node) for name, node in self.nodes.items()}
        for spec in self.indicators:
            found |= {column: dict.fromkeys(fields, inf) for column, fields in spec.inputs.items()}
        return found

    @cached_property
    def foreign(self) -> dict[str, dict[str, float]]:
        """Other instruments that columns read, each with its fields and the calendar rows that they reach back."""
        return {}

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Bar fields that a column reads."""
        read = {name for fields in (*self.dependencies.values(), *self.foreign.values()) for name in fields}
        return tuple(name for name in BAR_FIELDS if name in read)


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
    nodes = {key: parse_feature(text) for key, text in expressions.items()}
    return FeatureSet(name, 1, "Qlib", "", expressions, nodes)


def _canonical(node: Node | float) -> Any:
    """A tree as nested lists: texts that differ in spaces or brackets only are one definition."""
    if not isinstance(node, Node):
        return node
    return [node.op, [_canonical(arg) for arg in node.args], list(node.params)]
