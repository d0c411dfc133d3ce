"""The model zoo: what can be trained, read from YAML and checked.

Entries are in include/config/models.yaml, and your own in `<home>/models.yaml`. A wrong entry does not affect the
others: it cannot be trained, and whatever names it gets its error. Every function here takes settings for the home
folder; without them it knows only the shipped entries.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from mlops_tasks.config import PROJECT, ModelSettings, Section, Settings
from mlops_tasks.entry_files import EntryFile, parse_entries, read_yaml_text
from mlops_tasks.errors import ConfigError, hint
from mlops_tasks.modeling.model_zoo.families import CLASS_OF, FAMILIES
from mlops_tasks.modeling.model_zoo.schema import check_schema, check_value
from mlops_tasks.modeling.overfitting import OverfittingConfig
from mlops_tasks.modeling.stopping import StoppingConfig

SHIPPED_FILE = PROJECT / "include" / "config" / "models.yaml"
OWN_FILE = "models.yaml"
"""In the home folder."""

_NAME = re.compile(r"[A-Za-z][\w-]*")
"""A model's name becomes part of run ids and file names."""
_RESERVED = ("auto",)
"""Words that forms take in place of a model's name."""
_NESTED: Mapping[str, type[Section]] = {"stopping": StoppingConfig, "overfitting": OverfittingConfig}
_CLASS_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class ModelEntry(Section):
    """One model of the zoo."""

    family: str
    """A key of `FAMILIES`."""
    class_path: str | None = None
    """`module:Class` of the network, estimator or Qlib model, where the family takes one."""
    description: str
    recommended_for: tuple[str, ...]
    """Scenarios in which it is a good choice."""
    feature_processors: tuple[Literal["robust_zscore_fill_zero"], ...] = ()
    label_processor: Literal["CSZScoreNorm", "CSRankNorm"]
    stopping: StoppingConfig = StoppingConfig()
    checkpoint_every: int = Field(100, ge=1, strict=True)
    """Iterations between two checkpoints."""
    hyperparameters: Mapping[str, Mapping[str, Any]]
    """JSON Schema of each: type, default, minimum, maximum, enum, description; `advanced` (hidden at first), and
    `search` (`log`, `linear` or `categorical`: a search varies it, from `low` to `high`)."""

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of an object of hyper-parameters."""
        return {"type": "object", "properties": dict(self.hyperparameters), "additionalProperties": False}

    def defaults(self) -> dict[str, Any]:
        """Every hyper-parameter's default."""
        return {name: schema["default"] for name, schema in self.hyperparameters.items()}

    def resolve(self, model: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults and overrides, checked, each in the type that its schema names.

        Raises
        ------
        ConfigError
            A key is unknown, or a value is of the wrong type or out of range. The error names the path, what is allowed
            and the remedy.
        """
        path = f"hyperparameters.{model}"
        if not isinstance(overrides, Mapping):
            raise ConfigError(f"{path}: expected a mapping of {', '.join(self.hyperparameters)}, got {overrides!r}")
        for name in overrides:
            if name not in self.hyperparameters:
                raise ConfigError(f"{path}.{name}: unknown; {hint(str(name), self.hyperparameters)}")
        given = {**self.defaults(), **overrides}
        return {name: check_value(f"{path}.{name}", self.hyperparameters[name], given[name]) for name in given}

    def resolve_stopping(self, model: str, overrides: Mapping[str, Any]) -> StoppingConfig:
        """The stopping rule, with overrides of the entry's own values.

        Raises
        ------
        ConfigError
            As `resolve`, with a path `stopping.<model>.<key>`.
        """
        path = f"stopping.{model}"
        if not isinstance(overrides, Mapping):
            raise ConfigError(f"{path}: expected a mapping of {', '.join(StoppingConfig.model_fields)}")
        try:
            return StoppingConfig.model_validate({**self.stopping.model_dump(exclude_unset=True), **overrides})
        except ValidationError as error:
            raise ConfigError(f"{path}{_reason(error, StoppingConfig)}") from None


@dataclass(frozen=True)
class Zoo:
    """The entries of files, and what is wrong with others."""

    entries: Mapping[str, ModelEntry]
    errors: Mapping[str, str]
    own: frozenset[str] = frozenset()
    """Names that are only in the user's own file."""
    clashes: Mapping[str, str] = field(default_factory=dict)
    """Errors of entries in the user's own file that have a shipped model's name; the name means the shipped one."""


def model_zoo(settings: Settings | None = None) -> Mapping[str, ModelEntry]:
    """All models that can be trained, by name.

    Raises
    ------
    ConfigError
        A file is not a YAML mapping.
    """
    return read_zoo(settings).entries


def zoo_entry(name: str, settings: Settings | None = None) -> ModelEntry:
    """One entry.

    Raises
    ------
    ConfigError
        There is none with this name, or it is wrong. The error names the file, the entry, the key and the remedy.
    """
    zoo, wrong = model_zoo(settings), read_zoo(settings).errors
    if name in wrong:
        raise ConfigError(wrong[name])
    if name not in zoo:
        where = "include/config/models.yaml" + (f" and {settings.home / OWN_FILE}" if settings is not None else "")
        raise ConfigError(f"unknown model {name!r}; {hint(name, zoo)}; entries are in {where}")
    return zoo[name]


def read_zoo(settings: Settings | None = None) -> Zoo:
    """The shipped entries, then the user's own.

    Raises
    ------
    ConfigError
        A file is not a YAML mapping.
    """
    shipped = _read(SHIPPED_FILE, read_yaml_text(SHIPPED_FILE))
    path = settings.home / OWN_FILE if settings is not None else None
    if path is None or not path.is_file():
        return shipped
    own = _read(path, read_yaml_text(path))
    names = frozenset([*own.entries, *own.errors])
    clashes = {
        name: f"{path}: {name} is the name of a shipped model; give yours another name"
        for name in names & frozenset([*shipped.entries, *shipped.errors])
    }
    added = {name: entry for name, entry in own.entries.items() if name not in clashes}
    wrong = {name: error for name, error in own.errors.items() if name not in clashes}
    return Zoo({**shipped.entries, **added}, {**shipped.errors, **wrong}, names - frozenset(clashes), clashes)


def check_family(path: str, family: str, class_path: str | None) -> None:
    """Check that a family is known, and that there is a class path exactly if it takes one.

    Raises
    ------
    ConfigError
        It is not so. The error names the key below `path` and the remedy.
    """
    if family not in FAMILIES:
        raise ConfigError(f"{path}.family: unknown family {family!r}; {hint(family, FAMILIES)}")
    wanted = CLASS_OF.get(family)
    if wanted is None and class_path is not None:
        raise ConfigError(f"{path}.class_path: family {family} has its own class; remove the key")
    if wanted is not None and (class_path is None or not _CLASS_PATH.fullmatch(class_path)):
        raise ConfigError(f"{path}.class_path: family {family} needs module:Class of a {wanted}, got {class_path!r}")


def check_unpickling(models: ModelSettings, family: str, whose: str) -> None:
    """Check that the settings let a family's files run code.

    Raises
    ------
    ConfigError
        They do not. The error names the setting.
    """
    if family not in models.unpickling_families:
        known = ",".join(dict.fromkeys([*models.unpickling_families, family]))
        raise ConfigError(
            f"{whose}: files of family {family} run code when they are loaded, and models.unpickling_families does not "
            f"name it; use a model without pickles, or set it (MLOPS_MODELS__UNPICKLING_FAMILIES={known})"
        )


@lru_cache(maxsize=16)
def _read(path: Path, text: str) -> Zoo:
    file = parse_entries(path, text, "model")
    entries, errors = {}, {}
    for name in file.nodes:
        try:
            entries[name] = _entry(file, name)
        except ConfigError as error:
            errors[name] = str(error)
    return Zoo(entries, errors)


def _entry(file: EntryFile, name: str) -> ModelEntry:
    """An entry, checked except for what depends on its class."""
    path = f"{file.path}: {name}"
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise ConfigError(
            f"{path}: not a valid model name; use letters, digits, _ and -, but not {', '.join(_RESERVED)}"
        )
    try:
        entry = ModelEntry.model_validate(file.content(name))
    except ValidationError as error:
        raise ConfigError(f"{path}{_reason(error, ModelEntry)}") from None
    check_family(path, entry.family, entry.class_path)
    for parameter, schema in entry.hyperparameters.items():
        check_schema(f"{path}.hyperparameters.{parameter}", schema)
    if entry.family in ("sklearn", "qlib") and "window" in entry.hyperparameters:
        raise ConfigError(
            f"{path}.hyperparameters.window: family {entry.family} sees the row's own day only; remove it, or write a "
            "torch.nn.Module and use family network"
        )
    return entry


def _reason(error: ValidationError, model: type[Section]) -> str:
    """The first error, after the key that it is about."""
    first = error.errors()[0]
    place = "".join(f".{part}" for part in first["loc"])
    if not place:
        return f": expected a mapping of {', '.join(model.model_fields)}, got {first['input']!r}; correct it"
    if first["type"] == "extra_forbidden":
        *outer, key = map(str, first["loc"])
        known = _NESTED[outer[-1]] if outer else model
        return f"{place}: unknown key; {hint(key, known.model_fields)}"
    if first["type"] == "missing":
        return f"{place}: is missing; give it"
    return f"{place}: {first['msg']}, got {first['input']!r}; correct it"
