"""The command line for explanations: `alphaops explain`."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

from mlops_tasks.cli.answers import tell
from mlops_tasks.config import load_settings

if TYPE_CHECKING:
    from mlops_tasks.explain.day_list import DayChanges, DayReasons, Part
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
    verb.set_defaults(verb_function=_explain)


def _explain(arguments: argparse.Namespace) -> int:
    from mlops_tasks.explain.day_list import day_changes, day_reasons
    from mlops_tasks.registry.explained import ExplainedDay

    found = ExplainedDay.of(load_settings(), arguments.version, arguments.date)
    chosen = arguments.instrument or arguments.names
    reasons = day_reasons(found.explanation, found.day, chosen, arguments.parts)
    changes = None
    if len(found.explanation.days) > 1:
        changes = day_changes(found.explanation, found.day, chosen, arguments.parts)
    groups = _groups(found.explanation.on(found.day))
    return tell(
        arguments, lambda: _info(found, reasons, changes, groups), lambda: _told(found, reasons, changes, groups)
    )


def _groups(explanation: "Explanation") -> dict[str, float] | None:
    """Shares of Alpha158's groups; None where the model has other features."""
    from mlops_tasks.explain.factor_groups import alpha158_groups

    group_of = alpha158_groups()
    if not set(explanation.contributions.columns) <= set(group_of):
        return None
    shares = explanation.grouped(group_of).importance().table["share"]
    return {str(group): float(share) for group, share in shares.items()}


def _info(
    found: "ExplainedDay", reasons: "DayReasons", changes: "DayChanges | None", groups: dict[str, float] | None
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "version": found.version,
        "data_version": found.data_version,
        "date": str(found.day.date()),
        "method": str(found.explanation.method),
        "base": reasons.base,
        "gap": {**asdict(reasons.gap), "share": reasons.gap.share},
        "groups": groups,
        "names": [asdict(each) for each in reasons.names],
        "changes": None,
    }
    if changes is not None:
        told["changes"] = {
            "since": str(changes.before.date()),
            "gap_before": asdict(changes.gaps[0]),
            "names": [asdict(each) for each in changes.names],
        }
    return told


def _told(
    found: "ExplainedDay", reasons: "DayReasons", changes: "DayChanges | None", groups: dict[str, float] | None
) -> Iterator[str]:
    explanation = found.explanation
    yield f"version {found.version}, {found.day.date()}, data {found.data_version}: {_method(explanation, reasons.gap)}"
    if groups is not None:
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
        yield f"{change.rank:4d} {change.instrument} {moved}: {_parts(change.parts, change.rest)}"


def _method(explanation: "Explanation", gap: "AdditivityGap") -> str:
    return f"{explanation.method}, largest gap {gap.largest:.2g} ({gap.share:.2g} of the scores' spread)"


def _parts(parts: "tuple[Part, ...]", rest: float) -> str:
    return ", ".join([*(f"{part.feature} {part.contribution:+.3g}" for part in parts), f"all others {rest:+.3g}"])
