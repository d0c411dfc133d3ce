"""The command line's `monitor`: all that the DAG monitor_champion does, by hand."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mlops_tasks.cli.answers import tell
from mlops_tasks.config import load_settings

if TYPE_CHECKING:
    from mlops_tasks.stage_results import MaturePerformance, Monitored


def add_monitor_verb(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verb `monitor`; `shared` has the options that all verbs take."""
    text = "judge champion and candidates, lead rollouts, evaluate alert rules; monitor_champion does this all the time"
    verb = verbs.add_parser("monitor", parents=[shared], help=text)
    verb.set_defaults(verb_function=_monitor)


def _monitor(arguments: argparse.Namespace) -> int:
    from mlops_tasks.monitoring.monitor import monitor

    found = monitor(load_settings())
    return tell(arguments, found, lambda: _told(found))


def _told(found: "Monitored") -> Iterator[str]:
    yield found["rolled_back"] or "the champion stays"
    if found["probation"] is not None:
        yield f"probation: {found['probation']}"
    yield from (f"look: {each}" for each in found["looks"])
    yield from found["steps"]
    yield from (f"under way: {each}" for each in found["under_way"])
    yield from map(_performance, found["performance"])
    if found["retraining"] is not None:
        yield f"retraining {found['retraining']}, which monitor_champion starts: {found['retraining_reason']}"
    yield from (f"open alert: {each}" for each in found["alerts"])


def _performance(found: "MaturePerformance") -> str:
    mean, lower, upper = found["rank_ic_mean"], found["rank_ic_lower"], found["rank_ic_upper"]
    told = "not known" if mean is None else f"{mean:+.4f}"
    told += "" if lower is None or upper is None else f" ({lower:+.4f} to {upper:+.4f})"
    days = f"{found['mature_days']} mature days up to {found['last_mature_day']}"
    return f"version {found['model_version']}, {found['arm']}: rank IC {told} on {days}"
