"""The command line for replays: `alphaops replay`."""

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlops_tasks.cli.answers import tell
from mlops_tasks.config import load_settings
from mlops_tasks.dag_run import acting
from mlops_tasks.errors import ConfigError

if TYPE_CHECKING:
    from mlops_tasks.state.tables import ModelReplay

REPRODUCED, NOT_KNOWN, DIFFERENT = 0, 1, 3
"""Exit statuses: equal or within the tolerance; refused, unfinished or failed; different. 2: a wrong command line."""


def add_replay_verb(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verb `replay`; `shared` has the options that all verbs take."""
    text = (
        "train a registered version again from its record, and compare the scores; without a version, list the replays"
    )
    epilog = "exit status: 0 equal or within the tolerance, 3 different, 1 refused or not finished; docs/replay.md"
    verb = verbs.add_parser("replay", parents=[shared], help=text, epilog=epilog)
    verb.add_argument("version", type=int, nargs="?", help="registered version of the model")
    said = "go on where libraries, engines or hardware are not those that it was trained with; the report names them"
    verb.add_argument("--anyway", action="store_true", help=said)
    verb.set_defaults(verb_function=_replay)


def _replay(arguments: argparse.Namespace) -> int:
    from mlops_tasks.registry.replay.run import ReplayOrder, replay
    from mlops_tasks.registry.replay.turns import Pace
    from mlops_tasks.states import ReplayVerdict

    if arguments.version is None:
        return _list(arguments)
    settings = load_settings()
    pace = Pace(settings.training.time_limit_s + settings.training.wait_limit_s, gives_way=False)
    report = replay(settings, ReplayOrder(arguments.version, acting(), pace, arguments.anyway))
    statuses = {
        ReplayVerdict.EQUAL: REPRODUCED,
        ReplayVerdict.WITHIN_TOLERANCE: REPRODUCED,
        ReplayVerdict.DIFFERENT: DIFFERENT,
    }
    return tell(arguments, report.to_json, report.lines, statuses.get(report.verdict, NOT_KNOWN))


def _list(arguments: argparse.Namespace) -> int:
    from mlops_tasks.state.replays import replays

    if arguments.anyway:
        raise ConfigError("--anyway: give the version to replay, too")
    found = replays(load_settings())
    return tell(arguments, [row.report for row in found], lambda: _lines(found))


def _lines(rows: "Sequence[ModelReplay]") -> Iterator[str]:
    if not rows:
        yield "no version was replayed yet"
    for row in rows:
        reason = f": {row.reason}" if row.reason else ""
        verdict = row.verdict.replace("_", " ")
        yield f"{row.at:%Y-%m-%d %H:%M:%S UTC}  version {row.model_version}: {verdict}, by {row.by}{reason}"
