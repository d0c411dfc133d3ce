"""The command line for explanations: `alphaops explain`."""

import argparse
from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING, Any

from mlops_tasks.cli.answers import tell
from mlops_tasks.config import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from mlops_tasks.config import Settings
    from mlops_tasks.explain.day_list import DayChanges, DayReasons, ModelPart, Part
    from mlops_tasks.explain.explanation import AdditivityGap, Explanation
    from mlops_tasks.registry.explained import ExplainedDay


def add_explain_verb(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verb `explain`; `shared` has the options that all verbs take."""
    text = "why a version scores the names of a day as it does, and what has changed since the day before"
    verb = verbs.add_parser("explain", parents=[shared], help=f"{text} (docs/explanations.md)")
    verb.add_argument("version", type=int, help="registered version of the model")
    verb.add_argument("--date", type=date.fromisoformat, help="default: the newest")
    verb.add_argument(
        "--instrument", action="append", help="only this one; may be repeated. Default: the highest scores"
    )
    verb.add_argument("--names", type=int, default=10, help="how many of the highest scores; default: 10")
    verb.add_argument("--parts", type=int, default=5, help="how many contributions of each name; default: 5")
    verb.add_argument(
        "--replaced", type=int, help="the version that scored the day before, if another; default: the same one"
    )
    verb.add_argument(
        "--report",
        action="store_true",
        help="make the version's report (HTML, plots, tables) for the newest day too, and log it to MLflow",
    )
    verb.set_defaults(verb_function=_explain)


def _explain(arguments: argparse.Namespace) -> int:
    from mlops_tasks.explain.day_list import day_changes, day_reasons
    from mlops_tasks.registry.explained import ExplainedDay

    settings = load_settings()
    chosen = arguments.instrument or arguments.names
    found = ExplainedDay.of(settings, arguments.version, arguments.date, chosen, arguments.replaced)
    reasons = day_reasons(found.explanation, found.day, chosen, arguments.parts)
    changes = None
    if len(found.explanation.days) > 1:
        changes = day_changes(found.explanation, found.day, chosen, arguments.parts, found.replaced)
    groups = _groups(found)
    report = _report(settings, arguments) if arguments.report else None
    return tell(
        arguments,
        lambda: {**_info(found, reasons, changes, groups), "report": report and str(report)},
        lambda: [*_told(found, reasons, changes, groups), *([f"report {report}"] if report else [])],
    )


def _report(settings: "Settings", arguments: argparse.Namespace) -> "Path":
    from mlops_tasks.registry.explanation_report import PAGE, publish_explanation

    return publish_explanation(settings, arguments.version, replaced=arguments.replaced) / PAGE


def _groups(found: "ExplainedDay") -> dict[str, float]:
    """Shares of the groups of features on the day."""
    shares = found.explanation.on(found.day).grouped(found.grouping.group_of).importance().table["share"]
    return {str(group): float(share) for group, share in shares.items()}


def _info(
    found: "ExplainedDay", reasons: "DayReasons", changes: "DayChanges | None", groups: dict[str, float]
) -> dict[str, Any]:
    from mlops_tasks.explain.day_list import day_json

    return {
        "version": found.version,
        "data_version": found.data_version,
        "method": str(found.explanation.method),
        "sampling_error": found.explanation.error_share,
        "groups": groups,
        **day_json(reasons, changes),
    }


def _told(
    found: "ExplainedDay", reasons: "DayReasons", changes: "DayChanges | None", groups: dict[str, float]
) -> Iterator[str]:
    explanation = found.explanation
    yield f"version {found.version}, {found.day.date()}, data {found.data_version}: {_method(explanation, reasons.gap)}"
    if len(groups) > 1:
        yield "share of the scores: " + ", ".join(f"{name} {share:.0%}" for name, share in groups.items())
    yield f"score = base {reasons.base:+.4g} + contributions"
    for each in reasons.names:
        yield f"{each.rank:4d} {each.instrument} {each.score:+.4g}: {_parts(each.parts, each.rest)}"
    if changes is None:
        return
    yield f"since {changes.before.date()}"
    for change in changes.names:
        if change.score_before is None:
            yield f"{change.rank:4d} {change.instrument} had no score"
            continue
        moved = f"{change.score - change.score_before:+.4g}, rank {change.rank_before} to {change.rank}"
        yield f"{change.rank:4d} {change.instrument} {moved}: {_parts(change.parts, change.rest)}{_model(change.model)}"


def _method(explanation: "Explanation", gap: "AdditivityGap") -> str:
    told = f"{explanation.method}, largest gap {gap.largest:.2g} ({gap.share:.2g} of the scores' spread)"
    error = explanation.error_share
    return told if error is None else f"{told}, sampling error {error:.0%} of the contributions"


def _model(model: "ModelPart | None") -> str:
    return "" if model is None else f"; by the other model: base {model.base:+.3g}, {_parts(model.parts, model.rest)}"


def _parts(parts: "tuple[Part, ...]", rest: float) -> str:
    return ", ".join([*(f"{part.feature} {part.contribution:+.3g}" for part in parts), f"all others {rest:+.3g}"])
