"""The command line for the performance of served scores: `alphaops performance`."""

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlops_tasks.cli.answers import tell
from mlops_tasks.config import load_settings

if TYPE_CHECKING:
    from mlops_tasks.monitoring.performance import Performance


def add_performance_verb(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verb `performance`; `shared` has the options that all verbs take."""
    text = "how served scores have turned out, by version and arm, and which days are mature (docs/performance.md)"
    verb = verbs.add_parser("performance", parents=[shared], help=text)
    verb.add_argument("--data-version", help="the vintage whose prices count; default: the one in use")
    verb.set_defaults(verb_function=_performance)


def _performance(arguments: argparse.Namespace) -> int:
    from mlops_tasks.data.vintages import current_vintage, load_vintage
    from mlops_tasks.monitoring.performance import performance

    settings, wanted = load_settings(), arguments.data_version
    vintage = current_vintage(settings) if wanted is None else load_vintage(settings, wanted)
    found = performance(settings, vintage)
    info = {"data_version": vintage.data_version, "performance": [each.to_json() for each in found]}
    return tell(arguments, info, lambda: _told(found))


def _told(found: "Sequence[Performance]") -> Iterator[str]:
    if not found:
        yield "the log has no answer about a newest day"
    for each in found:
        yield f"version {each.model_version}, {each.arm}: {len(each.daily)} mature days, {_pending(each)}"
        if len(each.daily):
            yield (
                f"  rank IC {_number(each.rank_ic_mean)}{_interval(each)}, IC {_number(each.ic_mean)}, "
                f"hit rate {_number(each.hit_rate)}, best tenth {_number(each.top_return)} over all, "
                f"{_number(each.slope)} of label per unit of score"
            )


def _pending(each: "Performance") -> str:
    if not each.pending_days:
        return "none pending"
    return f"{len(each.pending_days)} pending ({each.pending_days[0]} to {each.pending_days[-1]})"


def _interval(each: "Performance") -> str:
    if each.rank_ic_lower is None or each.rank_ic_upper is None:
        return ""
    return f" ({each.rank_ic_lower:+.4f} to {each.rank_ic_upper:+.4f})"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
