"""The command line for the log of the scoring service's answers: `alphaops predictions ...`."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

from mlops_tasks.cli.answers import tell
from mlops_tasks.config import load_settings
from mlops_tasks.errors import ConfigError

if TYPE_CHECKING:
    from mlops_tasks.state.predictions import Answered, PredictionCount, PredictionFilter

SHOWN = 20


def add_predictions_verb(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verb `predictions` with its own verbs; `shared` has the options that all of them take."""
    predictions = verbs.add_parser("predictions", help="the log of the scoring service's answers (docs/scoring.md)")
    own = predictions.add_subparsers(required=True, metavar="action", dest="action")

    listed = own.add_parser("list", parents=[shared], help="the last answers, newest first")
    _add_filter(listed)
    listed.add_argument("--instrument", help="only answers that contain its score, with that score")
    listed.add_argument("--limit", type=int, default=SHOWN, help=f"number of answers ({SHOWN})")
    listed.set_defaults(verb_function=_list)

    counts = own.add_parser("counts", parents=[shared], help="the number of answers by day, version, slot, arm and key")
    _add_filter(counts)
    counts.set_defaults(verb_function=_counts)


def _add_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--date", type=date.fromisoformat, help="the day that was scored")
    parser.add_argument("--version", type=int, help="of the model")


def _filter(arguments: argparse.Namespace) -> "PredictionFilter":
    from mlops_tasks.state.predictions import PredictionFilter

    return PredictionFilter(arguments.date, arguments.version, getattr(arguments, "instrument", None))


def _list(arguments: argparse.Namespace) -> int:
    from mlops_tasks.state.predictions import predictions

    if arguments.limit < 1:
        raise ConfigError(f"--limit {arguments.limit}: ask for at least one answer")
    found = predictions(load_settings(), _filter(arguments), arguments.limit)
    return tell(arguments, lambda: [_row(each) for each in found], lambda: _listed(found))


def _row(answered: "Answered") -> dict[str, Any]:
    row = answered.prediction
    columns = ("request_id", "key_name", "model_version", "slot", "arm", "data_version", "instruments", "missing")
    return {
        "at": row.at.isoformat(timespec="milliseconds"),
        "date": None if row.date is None else row.date.isoformat(),
        "latency_ms": row.latency_ms,
        "score": answered.score,
        **{name: getattr(row, name) for name in columns},
    }


def _listed(found: "Sequence[Answered]") -> Iterator[str]:
    if not found:
        yield "the log has no such answer"
    for each in found:
        row = each.prediction
        what = "given features" if row.date is None else str(row.date)
        score = "" if each.score is None else f", score {each.score:.6g}"
        yield (
            f"{row.at:%Y-%m-%d %H:%M:%S} UTC {row.request_id} {row.key_name}: {what}, version {row.model_version} "
            f"({row.slot}, {row.arm}), {row.instruments} scores in {row.latency_ms:.1f} ms{score}"
        )


def _counts(arguments: argparse.Namespace) -> int:
    from mlops_tasks.state.predictions import lost_predictions, prediction_counts

    settings = load_settings()
    found, lost = prediction_counts(settings, _filter(arguments)), lost_predictions(settings)
    rows = [asdict(each) | {"date": None if each.date is None else each.date.isoformat()} for each in found]
    return tell(arguments, {"counts": rows, "lost": lost}, lambda: _counted(found, lost))


def _counted(found: "Sequence[PredictionCount]", lost: int) -> Iterator[str]:
    if not found:
        yield "the log has no such answer"
    for each in found:
        what = "given features" if each.date is None else str(each.date)
        yield (
            f"{what:<15}version {each.model_version} {each.slot:<6}{each.arm:<10}{each.key_name:<16}"
            f"{each.answers:>8} answers {each.scores:>10} scores  p50 {each.p50_ms:.1f} ms, p99 {each.p99_ms:.1f} ms"
        )
    if lost:
        yield (
            f"missing between others of the same process: {lost}; these answers were sent but not logged "
            "(see the alert predictions_lost)"
        )
