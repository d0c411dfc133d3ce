"""The arguments of `make up`, stored in `<home>/settings.yaml`, so that scheduled runs use the same source."""

import os
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mlops_tasks.config import SYNTHETIC, Settings, load_settings, read_settings_file
from mlops_tasks.entry_files import read_yaml_text
from mlops_tasks.errors import ConfigError, SourceNotFoundError
from mlops_tasks.files import write_text

_HEADER = (
    "# Written by `make up` from SOURCE, UNIVERSE, TRAIN, VALID, TEST and PROFILE; other keys may be added by hand.\n"
)


@dataclass(frozen=True)
class Choice:
    """The arguments of one `make up`; an empty one keeps the last choice."""

    source: str = ""
    universe: str = ""
    train: str = ""
    valid: str = ""
    test: str = ""
    profile: str = ""


def resolve(choice: Choice, folder: Path, named: Container[str] = ()) -> Choice:
    """`choice` with absolute paths, relative ones resolved in `folder`; a name of `data.sources` (`named`) is kept.

    Raises
    ------
    SourceNotFoundError
        The source or the membership file does not exist.
    """
    source, universe = choice.source, choice.universe
    if source and source != SYNTHETIC and source not in named:
        source = str(_existing(source, folder, "SOURCE"))
    if universe:
        universe = str(_existing(universe, folder, "UNIVERSE"))
    return replace(choice, source=source, universe=universe)


def apply(choice: Choice, settings: Settings, environ: Mapping[str, str] = os.environ) -> Settings:
    """Check `choice`, write it to `<home>/settings.yaml` in one step and return the resulting settings.

    A new source drops the universe and the segments of the old one, which belong to other bars.

    Raises
    ------
    ConfigError
        A date range is invalid, or the segments overlap; nothing is written.
    """
    path = settings.home / "settings.yaml"
    before = read_yaml_text(path) if path.exists() else None
    content = overlay_of({} if before is None else read_settings_file(path), choice)
    text = _HEADER + yaml.safe_dump(content, sort_keys=True, allow_unicode=True) if content else ""
    if content and text != before:
        write_text(path, text)
    try:
        return load_settings({**environ, "MLOPS_HOME": str(settings.home)})
    except ConfigError:
        if content and text != before:
            _restore(path, before)
        raise


def overlay_of(content: Mapping[str, Any], choice: Choice) -> dict[str, Any]:
    """The overlay `content` changed by `choice`; pure."""
    changed = {section: dict(values) if isinstance(values, Mapping) else values for section, values in content.items()}
    if choice.source:
        changed.setdefault("data", {}).update(source=choice.source, universe=choice.universe or None)
        for segment in ("train", "valid", "test"):
            changed.get("training", {}).pop(segment, None)
    elif choice.universe:
        changed.setdefault("data", {})["universe"] = choice.universe
    given = {"train": choice.train, "valid": choice.valid, "test": choice.test}
    if any(given.values()):
        changed.setdefault("training", {}).update({name: text for name, text in given.items() if text})
    if choice.profile:
        changed.setdefault("stack", {})["profile"] = choice.profile
    return {section: values for section, values in changed.items() if values != {}}


def _existing(path: str, folder: Path, name: str) -> Path:
    absolute = (folder / Path(path).expanduser()).resolve()
    if not absolute.exists():
        raise SourceNotFoundError(
            f"{name}={path}: there is no {absolute}; give a parquet or CSV file or a folder of them, "
            "absolute or relative to the current folder, or a name of data.sources in settings.yaml"
        )
    return absolute


def _restore(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
    else:
        write_text(path, text)
