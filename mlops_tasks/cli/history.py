"""The command line for the history of models: `alphaops live` and `alphaops history`."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlops_tasks.cli.answers import tell
from mlops_tasks.cli.given import day, moment, version_number
from mlops_tasks.config import Settings, load_settings

if TYPE_CHECKING:
    from mlops_tasks.state.model_history import Tenure

TIME = "%Y-%m-%d %H:%M:%S UTC"


def add_history_verbs(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verbs `live` and `history`; `shared` has the options that all verbs take."""
    live = verbs.add_parser("live", parents=[shared], help="which version was champion on a day, or at a time")
    when = live.add_mutually_exclusive_group()
    when.add_argument("--day", type=day, help="a day in UTC: all champions of the day, with their times")
    when.add_argument("--at", type=moment, help="a time, in UTC if it has no zone; default: now")
    live.set_defaults(verb_function=_live)

    said = "the states that a version has been in, with who, when and why"
    history = verbs.add_parser("history", parents=[shared], help=said)
    history.add_argument("version", type=version_number, nargs="?", help="default: every transition of every model")
    history.set_defaults(verb_function=_history)


def _live(arguments: argparse.Namespace) -> int:
    from mlops_tasks.state.model_history import live_at, live_on

    settings = load_settings()
    if arguments.day is not None:
        found, when = live_on(settings, arguments.day), f"on {arguments.day} (UTC)"
    else:
        at = arguments.at or datetime.now(UTC)
        tenure = live_at(settings, at)
        found, when = [] if tenure is None else [tenure], f"at {at:{TIME}}"
    lines = [_line(each) for each in found] or [f"no version was champion {when}"]
    return tell(arguments, [_tenure(each) for each in found], lines)


def _line(tenure: "Tenure") -> str:
    until = "" if tenure.until is None else f" until {tenure.until:{TIME}}"
    return f"version {tenure.version} (training {tenure.training_key}), champion since {tenure.since:{TIME}}{until}"


def _tenure(tenure: "Tenure") -> dict[str, Any]:
    return {
        "version": tenure.version,
        "training_key": tenure.training_key,
        "since": tenure.since.isoformat(),
        "until": None if tenure.until is None else tenure.until.isoformat(),
    }


def _history(arguments: argparse.Namespace) -> int:
    settings = load_settings()
    rows = _all(settings) if arguments.version is None else _of_version(settings, arguments.version)
    return tell(arguments, rows, lambda: _lines(rows))


def _of_version(settings: Settings, version: int) -> list[dict[str, Any]]:
    from mlops_tasks.state.model_history import history_of

    return [
        {
            "at": each.at.isoformat(),
            "version": version,
            "before": None if each.before is None else each.before.value,
            "after": each.after.value,
            "by": each.by,
            "reason": each.reason,
        }
        for each in history_of(settings, version)
    ]


def _all(settings: Settings) -> list[dict[str, Any]]:
    from mlops_tasks.state.model_history import transitions

    return [
        {
            "at": row.at.isoformat(),
            "sequence": row.sequence,
            "training_key": row.training_key,
            "version": row.model_version,
            "before": row.before,
            "after": row.after,
            "replaced_version": row.replaced_version,
            "replaced_after": row.replaced_after or None,
            "by": row.by,
            "reason": row.reason,
        }
        for row in transitions(settings)
    ]


def _lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        yield "no model has a history yet"
    for row in rows:
        name = f"training {row['training_key']}" if row["version"] is None else f"version {row['version']}"
        replaced = row.get("replaced_version")
        also = "" if replaced is None else f" in place of version {replaced}, now {row['replaced_after']}"
        move = f"{row['before']} > {row['after']}" if row["before"] else row["after"]
        reason = f": {row['reason']}" if row["reason"] else ""
        yield f"{datetime.fromisoformat(row['at']):{TIME}}  {name}: {move}{also}, by {row['by']}{reason}"
