"""The suites of `include/expectations/` and which rows break them.

A suite is data, in Great Expectations' own form. Its expectations are evaluated here, all of them on a part of the rows
at a time, because Great Expectations copies the frame for each of them. Their meaning is the same as there; the tests
compare the two. Any type or keyword that is not known here is refused, never ignored.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.config import PROJECT
from mlops_tasks.errors import StoreError

SUITES_FOLDER = PROJECT / "include" / "expectations"
BARS, INSTRUMENTS, SESSIONS = "bars", "instruments", "sessions"

DROPPED, ROW, HISTORY, INSTRUMENT_WHOLE, VINTAGE, WARNING = (
    "dropped",
    "row",
    "history",
    "instrument",
    "vintage",
    "warning",
)
SEVERITIES = {
    BARS: (DROPPED, ROW, VINTAGE, WARNING),
    INSTRUMENTS: (HISTORY, INSTRUMENT_WHOLE, VINTAGE, WARNING),
    SESSIONS: (VINTAGE, WARNING),
}
"""What a broken expectation of each suite may lead to."""

_PART = 1 << 16
"""Rows that are judged by all rules at a time: their columns stay in the processor's cache."""

Positions = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """One expectation's meaning, from its meta."""

    rule: str
    severity: str
    """`dropped`: the row is left out, but is not a bad one; `row`: it is quarantined; `instrument`: all its rows are,
    `history`: those before the date of the evidence;
    `vintage`: it is rejected; `warning`: rows stay."""
    says: str
    shows: Sequence[str]
    """Columns whose values the reason quotes."""
    remedy: str
    dated: str = ""
    """Column of the evidence's date, for rules of instruments: a release covers what happened until then."""


@dataclass(frozen=True)
class Expectation:
    """A Great Expectations type with its keywords, and the rule that it stands for."""

    type: str
    kwargs: Mapping[str, Any]
    rule: Rule

    def broken(self, frame: pd.DataFrame) -> Positions:
        """Positions of the rows of `frame` that break it; a missing value breaks no rule but `not_be_null`."""
        return broken_rows([self], frame)[0]

    def columns(self) -> list[str]:
        """The columns that it reads."""
        return [self.kwargs[key] for key in ("column", "column_A", "column_B") if key in self.kwargs]

    def configuration(self) -> dict[str, Any]:
        """The form that Great Expectations takes."""
        return {"type": self.type, "kwargs": dict(self.kwargs), "meta": {"rule": self.rule.rule}}


@dataclass(frozen=True)
class Suite:
    """Expectations about one frame. `measures` are the parameters of what is measured for it (`measures.py`)."""

    name: str
    expectations: tuple[Expectation, ...]
    measures: Mapping[str, Any]


@dataclass(frozen=True)
class Suites:
    """The rules about bars (one row per bar), instruments and sessions (one row each). `content` is the files' own."""

    bars: Suite
    instruments: Suite
    sessions: Suite
    content: Mapping[str, Any]

    def __iter__(self) -> Any:
        return iter((self.bars, self.instruments, self.sessions))

    @property
    def measures(self) -> dict[str, Any]:
        """The parameters of all measures."""
        return {name: value for suite in self for name, value in suite.measures.items()}


def load_suites(folder: Path = SUITES_FOLDER) -> Suites:
    """The three suites.

    Raises
    ------
    StoreError
        A file is missing, or an expectation's type, keyword or severity is not known; names the file and the rule.
    """
    content = {name: _read(folder / f"{name}.json") for name in (BARS, INSTRUMENTS, SESSIONS)}
    bars, instruments, sessions = (_suite(folder / f"{name}.json", name, entry) for name, entry in content.items())
    suites = Suites(bars, instruments, sessions, content)
    names = [expectation.rule.rule for suite in suites for expectation in suite.expectations]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise StoreError(f"{folder}: rules named twice: {', '.join(twice)}; give each its own name")
    return suites


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise StoreError(f"{path}: cannot be read as a suite ({error}); restore the file") from error
    return content


def _suite(path: Path, name: str, content: Mapping[str, Any]) -> Suite:
    expectations = tuple(_expectation(path, name, entry) for entry in content["expectations"])
    return Suite(name, expectations, content["meta"]["measures"])


def _expectation(path: Path, suite: str, entry: Mapping[str, Any]) -> Expectation:
    try:
        rule = Rule(**entry["meta"])
    except (KeyError, TypeError) as error:
        raise StoreError(f"{path}: an expectation's meta is incomplete ({error}); correct it") from error
    kind, kwargs = entry["type"], entry["kwargs"]
    if kind not in _TYPES:
        raise StoreError(f"{path}: rule {rule.rule}: type {kind!r} is not one of {', '.join(_TYPES)}; use one of them")
    known = _TYPES[kind][1]
    missing = [
        key for key, value in known.items() if (value is not None or key.startswith("column")) and key not in kwargs
    ]
    if missing:
        raise StoreError(f"{path}: rule {rule.rule}: {kind} needs {', '.join(missing)}; add it")
    unknown = [f"{key}={value!r}" for key, value in kwargs.items() if not _is_known(known, key, value)]
    if unknown:
        raise StoreError(f"{path}: rule {rule.rule}: {', '.join(unknown)} is not known for {kind}; remove it")
    if rule.severity not in SEVERITIES[suite]:
        raise StoreError(
            f"{path}: rule {rule.rule}: severity {rule.severity!r} is not one of {', '.join(SEVERITIES[suite])}"
        )
    return Expectation(kind, kwargs, rule)


def _is_known(known: Mapping[str, Any], key: str, value: object) -> bool:
    return key in known and (known[key] is None or known[key] == value)


def broken_rows(expectations: Sequence[Expectation], frame: pd.DataFrame) -> list[Positions]:
    """For each expectation, the positions of the rows of `frame` that break it."""
    values = {name: plain_values(frame[name]) for each in expectations for name in each.columns()}
    judged = [(_TYPES[each.type][0], each.columns(), each.kwargs) for each in expectations]
    parts: list[list[Positions]] = [[np.empty(0, dtype=np.int64)] for _ in expectations]
    for begin in range(0, len(frame), _PART):
        part = {name: column[begin : begin + _PART] for name, column in values.items()}
        for (evaluate, columns, kwargs), found in zip(judged, parts, strict=True):
            broken = evaluate([part[name] for name in columns], kwargs)
            if broken.any():
                found.append(np.flatnonzero(broken) + begin)
    return [np.concatenate(found) for found in parts]


def plain_values(column: pd.Series) -> Any:
    """A column without its index: a NumPy array where it is one, else pandas' own array."""
    return column.to_numpy() if isinstance(column.dtype, np.dtype) else column.array


def _row_count(values: Sequence[Any], kwargs: Mapping[str, Any]) -> Booleans:
    """No row breaks it by itself; `validate` refuses an empty table before any suite is run."""
    return np.zeros(0, dtype=bool)


def _null(values: Sequence[Any], kwargs: Mapping[str, Any]) -> Booleans:
    return ~_not_null(values, kwargs)


def _not_null(values: Sequence[Any], kwargs: Mapping[str, Any]) -> Booleans:
    column = values[0]
    is_float = isinstance(column, np.ndarray) and column.dtype.kind == "f"
    return np.asarray(np.isnan(column) if is_float else pd.isna(column), dtype=bool)


def _between(values: Sequence[Any], kwargs: Mapping[str, Any]) -> Booleans:
    column = values[0]
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    broken = np.zeros(len(column), dtype=bool)
    if low is not None:
        broken |= column <= low if kwargs.get("strict_min") else column < low
    if high is not None:
        broken |= column >= high if kwargs.get("strict_max") else column > high
    return broken


def _pair_greater(values: Sequence[Any], kwargs: Mapping[str, Any]) -> Booleans:
    greater, less = values
    broken: Booleans = greater < less if kwargs.get("or_equal") else greater <= less
    return broken


_Evaluate = Callable[[Sequence[Any], Mapping[str, Any]], Booleans]

_TYPES: Mapping[str, tuple[_Evaluate, Mapping[str, Any]]] = {
    "expect_table_row_count_to_be_between": (_row_count, {"min_value": 1}),
    "expect_column_values_to_be_null": (_null, {"column": None}),
    "expect_column_values_to_not_be_null": (_not_null, {"column": None}),
    "expect_column_values_to_be_between": (
        _between,
        dict.fromkeys(("column", "min_value", "max_value", "strict_min", "strict_max")),
    ),
    "expect_column_pair_values_a_to_be_greater_than_b": (
        _pair_greater,
        {"column_A": None, "column_B": None, "or_equal": None, "ignore_row_if": "either_value_is_missing"},
    ),
}
"""Type to its evaluation and the keywords known for it: None stands for any value, anything else for itself."""
