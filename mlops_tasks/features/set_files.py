"""Feature sets in YAML: the shipped file and the user's own, read one set at a time.

A file is a mapping from a set's name to its entry; `FeatureSetEntry` says what that holds. A wrong entry does not
affect the others. A set of `<home>/feature_sets.yaml` replaces a shipped one of the same name.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from mlops_tasks.config import PROJECT, Section, Settings
from mlops_tasks.entry_files import EntryFile, read_entry_file
from mlops_tasks.errors import ConfigError, hint

SHIPPED_FILE = PROJECT / "include" / "config" / "feature_sets.yaml"
OWN_FILE = "feature_sets.yaml"
"""In the home folder."""


class FeatureSetEntry(Section):
    """The YAML entry of one set."""

    version: int = Field(ge=1, strict=True)
    """The owner's version number of the definition."""
    owner: str
    description: str
    include: tuple[str, ...] = ()
    """Other sets, whose columns come first."""
    exclude: tuple[str, ...] = ()
    """Included columns that are left out: names, or patterns with `*` and `?`."""
    factors: dict[str, str] = Field(default_factory=dict)
    """Column to expression."""
    indicators: tuple[dict[str, Any], ...] | str = ()
    """Entries as in include/config/indicators.yaml, or the name of such a file beside this one."""


_NAME = re.compile(r"[\w-]+")
"""A set's name is part of file names."""

_EXPECTED = {
    "version": "a whole number from 1 on",
    "owner": "a name",
    "description": "a text",
    "include": "a list of sets",
    "exclude": "a list of columns or patterns",
    "factors": "lines like `MOMENTUM5: $close/Ref($close, 5)-1`, a column and its expression",
    "indicators": "a list of entries as in indicators.yaml, or the name of such a file",
}


@dataclass(frozen=True)
class SetFile:
    """A file of feature sets."""

    file: EntryFile

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.file.path

    @property
    def names(self) -> list[str]:
        """Names of its sets."""
        return list(self.file.nodes)

    def entry(self, name: str) -> FeatureSetEntry:
        """The entry of one set, checked except for its expressions and indicators.

        Raises
        ------
        ConfigError
            The name is not a valid one, it or a key in its entry occurs twice, a key is unknown or missing, or a value
            has the wrong type.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{self.path}: {name!r} is not a name for a set; use letters, digits, underscores and hyphens"
            )
        try:
            return FeatureSetEntry.model_validate(self.file.content(name))
        except ValidationError as error:
            raise ConfigError(f"{self.path}: {name}{_reason(error)}") from None


def read_set_files(settings: Settings | None) -> list[SetFile]:
    """The user's own file, where there is one, then the shipped one.

    Raises
    ------
    ConfigError
        A file is not a YAML mapping.
    """
    paths = [SHIPPED_FILE]
    if settings is not None and (settings.home / OWN_FILE).is_file():
        paths.insert(0, settings.home / OWN_FILE)
    return [SetFile(read_entry_file(path, "set")) for path in paths]


def _reason(error: ValidationError) -> str:
    """The first thing that is wrong with an entry, after the key that it concerns."""
    first = error.errors()[0]
    if not first["loc"]:
        return f": expected a mapping of {', '.join(FeatureSetEntry.model_fields)}, got {first['input']!r}; correct it"
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f".{key}: unknown key {key!r}; {hint(key, FeatureSetEntry.model_fields)}"
    if first["type"] == "missing":
        return f".{key}: is missing; give {_EXPECTED[key]}"
    part = f".{first['loc'][1]}" if key == "factors" and len(first["loc"]) > 1 else ""
    return f".{key}{part}: expected {_EXPECTED[key]}, got {first['input']!r}; correct it"
