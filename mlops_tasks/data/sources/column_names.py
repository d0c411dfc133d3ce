"""Vendor column names: which column of a table is which, and what a message says where one is missing.

No message quotes a name of the table that is not an accepted one: while required columns are missing, the table may be
anything.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import yaml

from mlops_tasks.columns import DATETIME, INSTRUMENT, PRICES, VOLUME
from mlops_tasks.config import PROJECT
from mlops_tasks.entry_files import read_yaml_text, yaml_fault
from mlops_tasks.errors import ConfigError, SourceError, excerpt

log = logging.getLogger(__name__)

ALIASES_FILE = PROJECT / "include" / "config" / "sources.yaml"
REQUIRED = (DATETIME, INSTRUMENT, *PRICES, VOLUME)
ADJUSTED_CLOSE = "adjusted_close"
AMOUNT = "amount"


@dataclass(frozen=True)
class ColumnNames:
    """The names that a source's columns may have.

    Attributes
    ----------
    accepted
        Standard name to the names that it may have in a table, best first.
    own
        What the source names itself, standard name to the table's; part of `accepted`.
    """

    accepted: Mapping[str, Sequence[str]]
    own: Mapping[str, str] = field(default_factory=dict)

    def knows(self, name: str) -> bool:
        """Whether a table's column has one of these names."""
        return _folded(name) in self._folded()

    def _folded(self) -> set[str]:
        return {_folded(name) for names in self.accepted.values() for name in names}


class MissingColumnError(SourceError):
    """Required columns are missing: perhaps this is not a table of bars, or its header is read wrongly."""

    def __init__(self, message: str, missing: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.missing = tuple(missing)


@lru_cache(maxsize=4)
def load_aliases(path: Path = ALIASES_FILE) -> Mapping[str, Sequence[str]]:
    """Standard column name to its vendor names, best first.

    Raises
    ------
    ConfigError
        The file is not such a mapping.
    """
    try:
        aliases = yaml.safe_load(read_yaml_text(path))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {yaml_fault(error)}; correct the file") from None
    if not isinstance(aliases, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in aliases.values()
    ):
        raise ConfigError(f"{path}: expected standard names, each with a list of names; correct the file")
    return aliases


def named_columns(source: str, columns: Mapping[str, str]) -> ColumnNames:
    """The aliases, with those of the columns that a source names itself replaced by that name.

    A name that the source gives to one column no longer counts for another.

    Raises
    ------
    ConfigError
        A key is not a standard name, or two have the same column.
    """
    aliases = load_aliases()
    for standard in columns:
        if standard not in aliases:
            raise ConfigError(
                f"data.sources.{source}.columns: {standard!r} is not a standard name; use some of {', '.join(aliases)}"
            )
    twice = [name for name, count in Counter(name.strip() for name in columns.values()).items() if count > 1]
    if twice:
        both = [standard for standard, name in columns.items() if name.strip() == twice[0]]
        raise ConfigError(
            f"data.sources.{source}.columns: {' and '.join(both)} name the same column; give each its own"
        )
    taken = {name.strip() for name in columns.values()}
    others = {standard: [name for name in names if name not in taken] for standard, names in aliases.items()}
    return ColumnNames(others | {standard: [column] for standard, column in columns.items()}, columns)


def map_columns(
    origin: Path | str,
    columns: Sequence[str],
    names: ColumnNames,
    required: Sequence[str] = REQUIRED,
    remedies: Callable[[Sequence[str]], Iterable[str]] = lambda _: (),
) -> dict[str, str]:
    """Standard name to the table's column name.

    A name is looked up as it is written, and then without regard to case and surrounding blanks if that leaves one
    column. A message about missing columns offers their `remedies` before the usual ones.

    Raises
    ------
    MissingColumnError
        A required column is missing, or one that the source names itself.
    SourceError
        One name stands for two columns, or two for one.
    """
    found: dict[str, str] = {}
    alike: dict[str, list[str]] = {}
    for standard, accepted in names.accepted.items():
        column, folded = _find(origin, standard, columns, accepted)
        if column is not None:
            found[standard] = column
            alike[standard] = folded
    wanted = dict.fromkeys([*required, *(name for name in names.own if name not in REQUIRED)])
    missing = [standard for standard in wanted if standard not in found]
    if missing:
        raise MissingColumnError(_missing(origin, missing, names, remedies(missing)), missing)
    _check_apart(origin, found)
    _tell_alike(origin, found, alike)
    ignored = len(columns) - len(found)
    if ignored > 0:
        log.info("%s: %s other columns are ignored", origin, ignored)
    return found


def _find(
    origin: Path | str, standard: str, columns: Sequence[str], accepted: Sequence[str]
) -> tuple[str | None, list[str]]:
    """The column of a standard name, if there is one, and those whose names differ from it in case only."""
    for name in accepted:
        exact = [column for column in columns if column.strip() == name.strip()]
        folded = [column for column in columns if _folded(column) == _folded(name)]
        if len(exact or folded) > 1:
            both = " and ".join(excerpt(column.strip()) for column in (exact or folded)[:2])
            raise SourceError(
                f"{origin}: rule distinct_columns: {both} may both be {standard!r}; say which it is in the source's "
                f"`columns` ({standard}: ...), as it is written there, or remove one"
            )
        if folded:
            return (exact or folded)[0], folded
    return None, []


def _tell_alike(origin: Path | str, found: Mapping[str, str], alike: Mapping[str, Sequence[str]]) -> None:
    """Name the columns that are not read and differ in case only from one that is."""
    for standard, columns in alike.items():
        for other in sorted(set(columns) - set(found.values())):
            log.warning(
                "%s: %s is read as %s, %s is not read",
                *(origin, excerpt(found[standard].strip()), standard, excerpt(other.strip())),
            )


def _check_apart(origin: Path | str, found: Mapping[str, str]) -> None:
    by_column: dict[str, str] = {}
    for standard, column in found.items():
        if column in by_column:
            raise SourceError(
                f"{origin}: rule distinct_columns: {excerpt(column.strip())} would be {by_column[column]!r} and "
                f"{standard!r}; name both in the source's `columns`, as they are written there"
            )
        by_column[column] = standard


def _missing(origin: Path | str, missing: Sequence[str], names: ColumnNames, remedies: Iterable[str]) -> str:
    first, *others = missing
    also = f", as {'is' if len(others) == 1 else 'are'} {', '.join(map(repr, others))}" if others else ""
    usual = (
        "rename the column there, name it in the source's `columns`, or add its name to "
        f"{ALIASES_FILE.relative_to(PROJECT)}"
    )
    return (
        f"{origin}: rule required_columns: column {first!r} is missing (accepted names: "
        f"{', '.join(names.accepted[first])}){also}; {'; '.join([*remedies, usual])}"
    )


@lru_cache(maxsize=1024)
def _folded(name: str) -> str:
    return name.strip().casefold()
