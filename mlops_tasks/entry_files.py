"""Files of named entries in YAML, read one entry at a time: a wrong one spoils no other."""

import os
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from mlops_tasks.errors import ConfigError, excerpt

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
"""What PyYAML's words quote from the file."""


@dataclass(frozen=True)
class EntryFile:
    """A YAML mapping from names to entries.

    Attributes
    ----------
    nodes
        Name to the entry's YAML, not looked at yet; more than one where a name is there twice.
    """

    path: Path
    nodes: Mapping[str, list[yaml.Node]]

    def content(self, name: str) -> Any:
        """An entry as plain values.

        Raises
        ------
        ConfigError
            The name, or a key within the entry, is there twice, or the entry holds what is no plain value.
        """
        if len(self.nodes[name]) > 1:
            raise ConfigError(f"{self.path}: {name} is there {len(self.nodes[name])} times; give each its own name")
        try:
            return _Loader("").construct_document(self.nodes[name][0])
        except (yaml.YAMLError, ValueError) as error:  # a ValueError: a date that is none
            raise ConfigError(f"{self.path}: {name}: {yaml_fault(error)}; correct the entry") from None


def read_entry_file(path: Path, what: str) -> EntryFile:
    """Read a file.

    Parameters
    ----------
    what
        Whose names they are, for the error: `set`, `model`.

    Raises
    ------
    ConfigError
        The file is no YAML mapping.
    """
    return parse_entries(path, read_yaml_text(path), what)


def read_yaml_text(path: Path) -> str:
    """A file's text; ConfigError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {yaml_fault(error)}; correct the file") from None


def yaml_fault(error: Exception) -> str:
    """What is wrong with a YAML file and where; the lines themselves, which PyYAML would quote, stay unsaid."""
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno is not None else "it cannot be read"
    if isinstance(error, UnicodeDecodeError):
        line = error.object.count(b"\n", 0, error.start) + 1
        return f"line {line} is not UTF-8, so it was saved in another encoding; save it as UTF-8"
    if isinstance(error, yaml.reader.ReaderError):
        return f"character {error.position + 1} is one that YAML does not allow; save it as plain text"
    if not isinstance(error, yaml.MarkedYAMLError):
        return "a value is none of its kind"
    mark, problem = error.problem_mark or error.context_mark, error.problem or "no YAML"
    where = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
    tab = "; indent with blanks, not with tabs" if "'\\t'" in problem else ""
    return f"{_QUOTED.sub('...', problem)}{where}{tab}"


def parse_entries(path: Path, text: str, what: str) -> EntryFile:
    """The entries of a file's text; the rest as `read_entry_file`."""
    try:
        root = _compose(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {yaml_fault(error)}; correct the file") from None
    nodes: dict[str, list[yaml.Node]] = {}
    if root is not None:
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{path}: expected a mapping from a {what}'s name to its entry; correct the file")
        for key, value in root.value:
            nodes.setdefault(str(key.value), []).append(value)
    return EntryFile(path, nodes)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: YAML would quietly take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                problem = f"{excerpt(str(key.value))[1:-1]} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


@lru_cache(maxsize=16)
def _compose(text: str) -> yaml.Node | None:
    """The tree of a file's text; services and loops ask for the same one again and again."""
    return yaml.compose(text, _Loader)
