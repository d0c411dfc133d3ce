"""The command line for training runs: `alphaops training ...`."""

import argparse
import getpass
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mlops_tasks.cli.answers import print_json, tell
from mlops_tasks.config import load_settings

if TYPE_CHECKING:
    from mlops_tasks.state.tables import TrainingEvent
    from mlops_tasks.training.events import RunProgress

_BAR = 24
"""Width of the progress bar, in characters."""
_CLEAR = "\r\x1b[K"
"""The control sequence that clears a line of a terminal."""


def add_training_verb(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verb `training` with its own verbs; `shared` has the options that all of them take."""
    training = verbs.add_parser("training", help="list, watch, queue, pause, resume and cancel training runs")
    own = training.add_subparsers(required=True, metavar="action", dest="action")

    listed = own.add_parser("list", parents=[shared], help="the latest runs, newest first")
    listed.add_argument("--limit", type=int, default=20)
    listed.set_defaults(verb_function=_list)

    shown = own.add_parser("show", parents=[shared], help="the events of a run")
    shown.add_argument("run")
    shown.add_argument("--after", type=int, default=0, help="only events with larger sequence numbers")
    shown.set_defaults(verb_function=_show)

    watched = own.add_parser("watch", parents=[shared], help="follow a run until it ends")
    watched.add_argument("run")
    watched.add_argument("--after", type=int, default=0, help="only events with larger sequence numbers")
    watched.set_defaults(verb_function=_watch)

    queue = own.add_parser("queue", parents=[shared], help="what runs and what waits on this machine, and who is next")
    queue.set_defaults(verb_function=_queue)

    for command, meaning in (
        ("pause", "write a checkpoint and wait"),
        ("resume", "resume after a pause"),
        ("cancel", "end it; its newest checkpoint is kept for the next attempt"),
    ):
        asked = own.add_parser(command, parents=[shared], help=meaning)
        asked.add_argument("run")
        asked.set_defaults(verb_function=_command)


def _list(arguments: argparse.Namespace) -> int:
    from mlops_tasks.training.events import runs
    from mlops_tasks.training.supervision import end_lost_runs

    settings = load_settings()
    end_lost_runs(settings)
    found = runs(settings, arguments.limit)
    said = render_runs(found) if found else "no training run yet"
    return tell(arguments, [run.to_json() for run in found], said)


def _show(arguments: argparse.Namespace) -> int:
    from mlops_tasks.state.training_runs import training_events
    from mlops_tasks.training.events import run_progress
    from mlops_tasks.training.supervision import end_lost_runs

    settings = load_settings()
    end_lost_runs(settings)
    progress = run_progress(settings, arguments.run)
    events = training_events(settings, arguments.run, arguments.after)
    info = {**progress.to_json(), "events": [event_json(event) for event in events]}
    return tell(arguments, info, [render_run(progress), *map(render_event, events)])


def _watch(arguments: argparse.Namespace) -> int:
    from mlops_tasks.training.events import follow
    from mlops_tasks.training.supervision import end_lost_runs

    settings = load_settings()
    end_lost_runs(settings)
    kind = ""
    live = sys.stdout.isatty() and not arguments.json
    for event in follow(settings, arguments.run, arguments.after):
        kind = event.kind
        if arguments.json:
            print_json(event_json(event))
        elif live and kind in ("iteration", "resources", "checkpoint"):
            if kind == "iteration":
                print(f"{_CLEAR}{render_progress(event.payload)[: _width()]}", end="", flush=True)
        else:
            print(f"{_CLEAR if live else ''}{render_event(event)}", flush=True)
    return 0 if kind == "finished" else 1


def _queue(arguments: argparse.Namespace) -> int:
    from mlops_tasks.machine.admission import queue_info

    info = queue_info(load_settings())
    return tell(arguments, info, lambda: render_queue(info))


def _command(arguments: argparse.Namespace) -> int:
    from mlops_tasks.training.control import command_run
    from mlops_tasks.training.supervision import end_lost_runs

    settings = load_settings()
    end_lost_runs(settings)
    asked_by = getpass.getuser()
    command_run(settings, arguments.run, arguments.action, asked_by)
    answer = {"run_id": arguments.run, "command": arguments.action, "asked_by": asked_by}
    said = f"{arguments.run}: {arguments.action} requested; `training watch {arguments.run}` shows what follows"
    return tell(arguments, answer, said)


def event_json(event: "TrainingEvent") -> dict[str, Any]:
    """An event as plain JSON."""
    return {
        "run_id": event.run_id,
        "sequence": event.sequence,
        "kind": event.kind,
        "terminal": event.terminal,
        "at": event.at.isoformat(),
        "payload": dict(event.payload),
    }


def render_runs(runs: Sequence["RunProgress"]) -> str:
    """Runs as a table with a heading: time (UTC), owner, best iteration and state."""
    head = (f"{'started (UTC)':<17}", f"{'owner':<10}", f"{'best iteration':<32}", f"{'run':<36} {'state':<9}")
    lines = [f"{run.at:%Y-%m-%d %H:%M}  {run.owner:<10} {_best(run):<32} {render_run(run)}".rstrip() for run in runs]
    return "\n".join([" ".join(head).rstrip(), *lines])


def _best(run: "RunProgress") -> str:
    """The best iteration so far, with its metric."""
    if run.best is None:
        return "-"
    value = run.best["value"]
    return f"{run.best['metric']} {'-' if value is None else format(value, '.5g')} at {run.best['iteration']}"


def render_run(run: "RunProgress") -> str:
    """A run in one line."""
    about = [f"{run.run_id:<36} {run.state:<9}"]
    if run.state in ("running", "paused"):
        about.append(f"{run.stage}: {render_progress(run.to_json())}" if run.iteration else run.stage)
    elif run.state == "finished":
        about.append(f"training {run.ending['training_key']} in {run.ending['seconds']:.1f} s")
        about += ["(found already trained)"] if run.ending["reused"] else []
    elif run.ending:
        about.append(run.ending.get("reason") or f"by {run.ending.get('asked_by')}")
    return " ".join(about)


def render_queue(info: Mapping[str, Any]) -> str:
    """`queue_info` as lines of text: capacity, what runs, what waits, and each owner's share."""
    capacity = info["capacity"]
    lines = [f"for trainings: {capacity['memory_mb']:,.0f} MB, {capacity['slots']} slots"]
    for each in info["running"]:
        lines.append(f"running {_holding(each)}, for {timedelta(seconds=round(each['seconds']))}")
    for each in info["waiting"]:
        lines.append(f"{each['position']:>7} {_holding(each)}, priority {each['priority']}: {each['reason']}")
    for owner, each in info["owners"].items():
        lines.append(
            f"owner {owner}: weight {each['weight']:g}, entitled to {each['entitled']:.0%}, holds {each['share']:.0%}, "
            f"{each['level_s']:+,.0f} s ahead"
        )
    return "\n".join(lines if info["owners"] else [*lines, "nothing runs or waits"])


def _holding(request: Mapping[str, Any]) -> str:
    held = f"{request['memory_mb']:,.0f} MB, {request['slots']} slots"
    return f"{request['request_id']:<36} {request['owner']:<10} {held}"


def render_event(event: "TrainingEvent") -> str:
    """An event in one line."""
    payload = event.payload
    said = render_progress(payload) if event.kind == "iteration" else _words(payload)
    return f"{event.sequence:>6} {event.at:%H:%M:%S} {event.kind:<11} {said}".rstrip()


def render_progress(payload: Mapping[str, Any]) -> str:
    """An iteration as a bar, with its metrics and the time left."""
    done, total = payload["iteration"], payload["total"]
    filled = round(_BAR * done / total) if total else 0
    bar = f"[{'#' * filled}{'.' * (_BAR - filled)}] " if total else ""
    return f"{bar}{done}{f'/{total}' if total else ''} {_metrics(payload['metrics'])}{_left(payload)}"


def _left(payload: Mapping[str, Any]) -> str:
    """The time left, until early stopping and at most."""
    most, stop = payload.get("eta_s"), payload.get("eta_stop_s")
    said = [] if stop is None or stop == most else [f"{_clock(stop)} left unless validation improves"]
    said += [] if most is None else [f"{_clock(most)} left at most"]
    return "".join(f", {each}" for each in said)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _metrics(metrics: Mapping[str, float | None]) -> str:
    return " ".join(f"{name} {'-' if value is None else format(value, '.5g')}" for name, value in metrics.items())


def _words(payload: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in payload.items() if value is not None)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(_plain, value))
    return str(value)


def _width() -> int:
    return shutil.get_terminal_size().columns - 1
