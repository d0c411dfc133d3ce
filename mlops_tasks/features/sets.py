"""Feature sets: named lists of factor expressions and technical indicators.

Some are built in, others are in YAML (`set_files.py`); a set may include others.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, cached_property
from math import inf
from typing import TYPE_CHECKING, Any, cast

from mlops_tasks.columns import BAR_FIELDS, KEY, LABEL, SCORE, SEGMENT
from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, hint
from mlops_tasks.features.alpha158 import alpha158
from mlops_tasks.features.alpha360 import alpha360
from mlops_tasks.features.expressions import (
    Node,
    dependencies,
    foreign_dependencies,
    lookback,
    market_dependencies,
    parse_feature,
)
from mlops_tasks.features.set_files import FeatureSetEntry, SetFile, read_set_files
from mlops_tasks.files import digest_of

if TYPE_CHECKING:  # its kernels are compiled code, and a DAG file asks for the names of the sets only
    from mlops_tasks.features.indicators.specs import IndicatorSpec

ENGINE_VERSION = 2
"""Increase it with every change that can change a value: stored features of other versions are then not reused."""

_BUILT_IN = {
    "alpha158": FeatureSetEntry(
        version=1,
        owner="Qlib",
        description="Qlib's Alpha158: the candlestick, prices, and 29 rolling families over five windows.",
        factors=alpha158(),
    ),
    "alpha360": FeatureSetEntry(
        version=1,
        owner="Qlib",
        description="Qlib's Alpha360: the last 60 days' prices and volumes as shares of the newest close and volume.",
        factors=alpha360(),
    ),
}

_RESERVED = (*KEY, LABEL, SCORE, SEGMENT)
"""Names of the other columns of frames with features."""


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """A checked list of columns: expressions first, then those of indicators.

    Attributes
    ----------
    version
        The owner's version number of the definition; stored features are identified by what is computed, not by it.
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
        found: dict[str, dict[str, float]] = {}
        for node in self.nodes.values():
            for instrument, fields in foreign_dependencies(node).items():
                reaches = found.setdefault(instrument, {})
                for name, rows in fields.items():
                    reaches[name] = max(reaches.get(name, 0.0), rows)
        return found

    @cached_property
    def market(self) -> dict[str, float]:
        """The fields of all instruments that operators across them read, and the calendar rows that they reach back."""
        found: dict[str, float] = {}
        for node in self.nodes.values():
            for name, rows in market_dependencies(node).items():
                found[name] = max(found.get(name, 0.0), rows)
        return found

    @property
    def is_cross_sectional(self) -> bool:
        """Whether a value depends on who is a member of the universe, and on the members' bars."""
        return bool(self.market)

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Bar fields that a column reads."""
        read = {
            name for fields in (*self.dependencies.values(), *self.foreign.values(), self.market) for name in fields
        }
        return tuple(name for name in BAR_FIELDS if name in read)

    def to_json(self) -> dict[str, Any]:
        """What `stored_feature_set` reads this from, with its digest."""
        return {
            "feature_set": self.name,
            "set_version": self.version,
            "owner": self.owner,
            "description": self.description,
            "definition": self.digest,
            "names": list(self.names),
            "expressions": dict(self.expressions),
            "indicators": [spec.as_entry() for spec in self.indicators],
        }


@dataclass(frozen=True)
class _Column:
    """A column while sets are put together; those with equal nodes compute equal values."""

    origin: str
    node: Hashable
    text: str = ""
    spec: IndicatorSpec | None = None


def find_feature_set(name: str, settings: Settings | None = None) -> FeatureSet:
    """The feature set of that name: built in, from the user's own file, or from the shipped one, in this order.

    Parameters
    ----------
    settings
        Whose home folder may hold the user's own file; None: built-in and shipped sets only.

    Raises
    ------
    ConfigError
        There is no such set, or its definition is wrong: names file, set and key, and the place in an expression.
    """
    return _Catalogue(settings).find(name)


def stored_feature_set(content: Mapping[str, Any]) -> FeatureSet:
    """The set that `to_json` wrote, even if its name stands for another one by now.

    Raises
    ------
    ConfigError
        An expression or indicator is not known any more.
    """
    expressions = {name: content["expressions"][name] for name in content["names"] if name in content["expressions"]}
    entries = content.get("indicators")  # the first stored sets had none, and no owners
    if entries:
        from mlops_tasks.features.indicators.specs import parse_indicators

        entries = parse_indicators(entries, f"{content['feature_set']}.indicators")
    return FeatureSet(
        name=content["feature_set"],
        version=content.get("set_version", 1),
        owner=content.get("owner", ""),
        description=content.get("description", ""),
        expressions=expressions,
        nodes={name: parse_feature(text) for name, text in expressions.items()},
        indicators=entries or (),
    )


def feature_set_names(settings: Settings | None = None) -> tuple[str, ...]:
    """Names of all sets, right or wrong; of the built-in ones only while a file cannot be read."""
    return _Catalogue(settings).names


def check_feature_sets(settings: Settings | None = None) -> dict[str, str]:
    """What is wrong, by name of the set; empty when all of them can be computed."""
    catalogue, wrong = _Catalogue(settings), {}
    if catalogue.unreadable:
        wrong["feature_sets.yaml"] = str(catalogue.unreadable)
    for name in catalogue.names:
        try:
            catalogue.find(name)
        except ConfigError as error:
            wrong[name] = str(error)
    return wrong


class _Catalogue:
    """All sets that can be asked for."""

    def __init__(self, settings: Settings | None) -> None:
        self.unreadable: ConfigError | None = None
        try:
            self.files = read_set_files(settings)
        except ConfigError as error:  # the built-in sets need no file
            self.files, self.unreadable = [], error

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*_BUILT_IN, *(name for file in self.files for name in file.names)]))

    def find(self, name: str) -> FeatureSet:
        entry, file = self._entry(name)
        return self.assemble(name, entry) if file else _built_in(name)

    def assemble(self, name: str, entry: FeatureSetEntry) -> FeatureSet:
        """The set that an entry and those that it includes make."""
        columns = self._columns(name, ())
        texts = {column: each.text for column, each in columns.items() if each.spec is None}
        wanted: dict[IndicatorSpec, list[str]] = {}
        for column, each in columns.items():
            if each.spec is not None:
                wanted.setdefault(each.spec, []).append(column)
        return FeatureSet(
            name=name,
            version=entry.version,
            owner=entry.owner,
            description=entry.description,
            expressions=texts,
            nodes={column: cast(Node, columns[column].node) for column in texts},
            indicators=tuple(spec.only(chosen) for spec, chosen in wanted.items()),
        )

    def _entry(self, name: str) -> tuple[FeatureSetEntry, SetFile | None]:
        holders = [file for file in self.files if name in file.names]
        if name in _BUILT_IN:
            if holders:
                raise ConfigError(f"{holders[0].path}: {name} is the name of a built-in set; give yours another one")
            return _BUILT_IN[name], None
        if holders:
            return holders[0].entry(name), holders[0]
        raise self.unreadable or ConfigError(f"unknown feature set {name!r}; {hint(name, self.names)}")

    def _columns(self, name: str, including: tuple[str, ...]) -> dict[str, _Column]:
        """The columns of a set, in order; `including` are the sets whose `include` led here."""
        entry, file = self._entry(name)
        where = f"{file.path}: {name}" if file else name
        if name in including:
            raise ConfigError(f"{where}.include: a set cannot include itself: {' > '.join((*including, name))}")
        columns: dict[str, _Column] = {}
        for number, other in enumerate(entry.include):
            if other not in self.names:
                raise ConfigError(f"{where}.include.{number}: unknown feature set {other!r}; {hint(other, self.names)}")
            _add(columns, self._columns(other, (*including, name)), f"{where}.include.{number}")
        for number, pattern in enumerate(entry.exclude):
            found = [column for column in columns if fnmatchcase(column, pattern)]
            if not found:
                raise ConfigError(f"{where}.exclude.{number}: unknown column {pattern!r}; {hint(pattern, columns)}")
            for column in found:
                del columns[column]
        _add(columns, _factors(name, entry, where), f"{where}.factors")
        _add(columns, _indicators(name, entry, file, where), f"{where}.indicators")
        if not columns:
            raise ConfigError(f"{where}: has no columns; give include, factors or indicators")
        return columns


@cache
def _built_in(name: str) -> FeatureSet:
    """Made once: it cannot change, and plans are cached by their set."""
    return _Catalogue(None).assemble(name, _BUILT_IN[name])


def _add(columns: dict[str, _Column], further: Mapping[str, _Column], where: str) -> None:
    """Add columns; the same one may be included several times, but two of one name may not."""
    for column, each in further.items():
        known = columns.setdefault(column, each)
        if known.node != each.node:
            raise ConfigError(
                f"{where}: column {column!r} of {each.origin} is a different one in {known.origin}; "
                "give one of the two another name, or exclude the included one"
            )


def _factors(name: str, entry: FeatureSetEntry, where: str) -> dict[str, _Column]:
    columns = {}
    for column, text in entry.factors.items():
        _check_name(column, f"{where}.factors.{column}")
        try:
            columns[column] = _Column(name, parse_feature(text), text)
        except ConfigError as error:
            raise ConfigError(f"{where}.factors.{column}: {error}") from None
    return columns


def _indicators(name: str, entry: FeatureSetEntry, file: SetFile | None, where: str) -> dict[str, _Column]:
    if not entry.indicators or file is None:
        return {}
    from mlops_tasks.features.indicators.specs import load_indicators, parse_indicators

    if isinstance(entry.indicators, str):
        specs = load_indicators(file.path.parent / entry.indicators)
    else:
        specs = parse_indicators(entry.indicators, f"{where}.indicators")
    columns = {}
    for spec in specs:
        for column, node in spec.nodes.items():
            _check_name(column, f"{where}.indicators")
            columns[column] = _Column(name, node, spec=spec)
    return columns


def _check_name(column: str, where: str) -> None:
    if not column.isidentifier() or column in _RESERVED:
        raise ConfigError(
            f"{where}: {column!r} is not a column name; use letters, digits and underscores, and none of "
            f"{', '.join(_RESERVED)}"
        )


def _canonical(node: Node | float) -> Any:
    """A tree as nested lists: texts that differ only in spaces or brackets are one definition."""
    if not isinstance(node, Node):
        return node
    return [node.op, [_canonical(arg) for arg in node.args], list(node.params)]
