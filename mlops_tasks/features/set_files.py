"""Feature sets in YAML: the shipped file and the user's own, read one set at a time.

A file is a mapping from a set's name to its entry; `FeatureSetEntry` says what that holds. One wrong entry spoils no
other one. A set of `<home>/feature_sets.yaml` takes the place of a shipped one of its name.
"""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from mlops_tasks.config import PROJECT, Section, Settings
from mlops_tasks.errors import ConfigError, hint

SHIPPED_FILE = PROJECT / "include" / "config" / "feature_sets.yaml"
OWN_FILE = "feature_sets.yaml"
"""In the home folder."""


class FeatureSetEntry(Section):
    """What YAML says of one set."""

    version: int = Field(ge=1, strict=True)
    """The owner's number of the definition."""
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
    """A file of feature sets.

    Attributes
    ----------
    nodes
        Set name to its YAML, not looked at yet; more than one where a name is there twice.
    """

    path: Path
    nodes: Mapping[str, list[yaml.Node]]

    def entry(self, name: str) -> FeatureSetEntry:
        """The entry of one set, checked but for what its expressions and indicators say.

        Raises
        ------
        ConfigError
            The name is none, it or a key in its entry is there twice, a key is unknown or missing, or a value has the
            wrong type.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{self.path}: {name!r} is no name of a set; use letters, digits, underscores and hyphens"
            )
        if len(self.nodes[name]) > 1:
            raise ConfigError(f"{self.path}: {name} is there {len(self.nodes[name])} times; give each set its own name")
        try:
            return FeatureSetEntry.model_validate(_Loader("").construct_document(self.nodes[name][0]))
        except yaml.YAMLError as error:
            raise ConfigError(f"{self.path}: {name}: {error}; correct the entry") from None
        except ValidationError as error:
            raise ConfigError(f"{self.path}: {name}{_reason(error)}") from None


def read_set_files(settings: Settings | None) -> list[SetFile]:
    """The user's own file, where there is one, then the shipped one.

    Raises
    ------
    ConfigError
        A file is no YAML mapping.
    """
    paths = [SHIPPED_FILE]
    if settings is not None and (settings.home / OWN_FILE).is_file():
        paths.insert(0, settings.home / OWN_FILE)
    return [_read(path) for path in paths]


@lru_cache(maxsize=16)
def _compose(text: str) -> yaml.Node | None:
    """The tree of a file's text; services and loops ask for the same one again and again."""
    return yaml.compose(text, _Loader)


def _reason(error: ValidationError) -> str:
    """The first thing that is wrong with an entry, after the key that it is wrong in."""
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


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: YAML would quietly take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> SetFile:
    try:
        root = _compose(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}; correct the file") from None
    nodes: dict[str, list[yaml.Node]] = {}
    if root is not None:
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{path}: expected a mapping from a set's name to its entry; correct the file")
        for key, value in root.value:
            nodes.setdefault(str(key.value), []).append(value)
    return SetFile(path, nodes)
