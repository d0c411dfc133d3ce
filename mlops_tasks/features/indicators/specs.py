"""Which indicators are wanted: a list in YAML, checked against the catalogue."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import yaml

from mlops_tasks.config import PROJECT
from mlops_tasks.entry_files import yaml_fault
from mlops_tasks.errors import ConfigError
from mlops_tasks.features.indicators.definitions import CATALOGUE, Definition, Parameter, Value
from mlops_tasks.features.indicators.graph import BAR, SeriesNode, fields_of, lookback

INDICATORS_FILE = PROJECT / "include" / "config" / "indicators.yaml"

_OWN_KEYS = ("indicator", "name", "columns")


@dataclass(frozen=True)
class IndicatorSpec:
    """An indicator with its parameters, all of them known and in range.

    Attributes
    ----------
    name
        Name of the column of its main output; the others are called `<name>_<output>`.
    columns
        Names of the wanted columns, in the order of its outputs.
    """

    name: str
    indicator: str
    parameters: Mapping[str, Value] = field(hash=False)
    columns: tuple[str, ...]

    @cached_property
    def nodes(self) -> Mapping[str, SeriesNode]:
        """Wanted column to series."""
        outputs = CATALOGUE[self.indicator].build(BAR, **self.parameters)
        columns = dict(zip(all_columns(self.name, self.indicator), outputs.values(), strict=True))
        return {column: columns[column] for column in self.columns}

    @property
    def inputs(self) -> Mapping[str, tuple[str, ...]]:
        """Column to the fields of the bar that it reads."""
        return {column: fields_of([node]) for column, node in self.nodes.items()}

    @property
    def window(self) -> int | None:
        """Bars of the instrument that a value depends on, the newest included; None: all since its first."""
        earlier = [lookback(node) for node in self.nodes.values()]
        known = [bars for bars in earlier if bars is not None]
        return max(known) + 1 if len(known) == len(earlier) else None

    def only(self, columns: Collection[str]) -> Self:
        """The same, with only those of the given columns that it has."""
        return replace(self, columns=tuple(column for column in self.columns if column in columns))

    def as_entry(self) -> dict[str, Any]:
        """The entry from which `parse_indicators` makes this."""
        entry: dict[str, Any] = {"indicator": self.indicator, "name": self.name, **self.parameters}
        if self.columns != all_columns(self.name, self.indicator):
            entry["columns"] = list(self.columns)
        return entry


def all_columns(name: str, indicator: str) -> tuple[str, ...]:
    """Names of all columns that an indicator gives."""
    return tuple(f"{name}_{output}" if output else name for output in CATALOGUE[indicator].outputs)


def load_indicators(path: Path = INDICATORS_FILE) -> tuple[IndicatorSpec, ...]:
    """The list in a YAML file.

    Raises
    ------
    ConfigError
        The file is missing or not a YAML list, or as `parse_indicators` says.
    """
    try:
        entries = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {yaml_fault(error)}; correct the file") from None
    return parse_indicators(entries, str(path))


def parse_indicators(entries: Any, where: str = "indicators") -> tuple[IndicatorSpec, ...]:
    """Check a list of mappings `{indicator: rsi, window: 14, name: RSI14}`.

    The name is the indicator's by default; `columns` are the wanted outputs, by default all.

    Parameters
    ----------
    entries
        What YAML gave.
    where
        What the entries are called in messages.

    Raises
    ------
    ConfigError
        An entry is not a mapping, its indicator or a parameter is unknown, a value has the wrong type or is out of
        range, or two entries give the same column; names the entry, the key and the remedy.
    """
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise ConfigError(f"{where}: expected a list of entries like {{indicator: rsi, window: 14, name: RSI14}}")
    specs = tuple(_parse(entry, f"{where}[{number}]") for number, entry in enumerate(entries))
    owners: dict[str, int] = {}
    for number, spec in enumerate(specs):
        for column in spec.columns:
            if column in owners:
                raise ConfigError(
                    f"{where}[{number}].name: column {column!r} is already given by {where}[{owners[column]}]; "
                    "give one of the two another name"
                )
            owners[column] = number
    return specs


def _parse(entry: Any, where: str) -> IndicatorSpec:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: expected a mapping like {{indicator: rsi, window: 14}}, got {entry!r}")
    indicator = entry.get("indicator")
    definition = CATALOGUE.get(indicator) if isinstance(indicator, str) else None
    if definition is None:
        raise ConfigError(f"{where}.indicator: unknown indicator {indicator!r}; known: {', '.join(CATALOGUE)}")
    name = entry.get("name", indicator)
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"{where}.name: {name!r} is not a column name; use letters, digits and underscores")
    given = {key: value for key, value in entry.items() if key not in _OWN_KEYS}
    columns = _columns(entry.get("columns"), all_columns(name, definition.name), f"{where}.columns")
    return IndicatorSpec(name, definition.name, _parameters(definition, given, where), columns)


def _columns(given: Any, known: tuple[str, ...], where: str) -> tuple[str, ...]:
    if given is None:
        return known
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise ConfigError(f"{where}: expected a list of columns, of {', '.join(known)}; leave it out for all")
    for column in given:
        if column not in known:
            raise ConfigError(f"{where}: no column {column!r}; the entry gives {', '.join(known)}")
    return tuple(column for column in known if column in given)


def _parameters(definition: Definition, given: Mapping[str, Any], where: str) -> dict[str, Value]:
    known = definition.parameters
    for key in given:
        if key not in known:
            takes = f"takes {', '.join(known)}" if known else "takes none"
            raise ConfigError(f"{where}.{key}: unknown parameter; {definition.name} {takes}: correct or remove it")
    return {
        name: _value(given.get(name, parameter.default), parameter, f"{where}.{name}")
        for name, parameter in known.items()
    }


def _value(value: Any, parameter: Parameter, where: str) -> Value:
    kind, limits = parameter.kind, parameter.limits
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    is_kind = type(value) is kind  # True is not an int here
    if not is_kind:
        raise ConfigError(f"{where}: expected {kind.__name__}, got {value!r}; the default is {parameter.default!r}")
    if not limits.low <= value <= limits.high:
        raise ConfigError(f"{where}: {value!r} is not between {limits.low:g} and {limits.high:g}; correct it")
    return kind(value)
