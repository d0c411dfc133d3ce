"""The command line for experiments: `alphaops experiments ...`."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_tasks.cli.answers import tell
from mlops_tasks.config import load_settings
from mlops_tasks.states import ExperimentState, UnitKind

if TYPE_CHECKING:
    from mlops_tasks.experiments.lifecycle import Experiment

TIME = "%Y-%m-%d %H:%M UTC"

_MOVES = {
    "start": (ExperimentState.RUNNING, "begin to assign units and to measure, or go on after a pause"),
    "pause": (ExperimentState.PAUSED, "assign nobody and measure nothing for a time"),
    "stop": (ExperimentState.STOPPED, "end it; late events of its time still count"),
}


def add_experiments_verb(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verb `experiments` with its own verbs; `shared` has the options that all of them take."""
    experiments = verbs.add_parser("experiments", help="A/B experiments: register, run, assign units, measure")
    own = experiments.add_subparsers(required=True, metavar="action", dest="action")

    said = "register a population of units that experiments share, or enlarge its holdout"
    layer = _action(own, shared, "layer", _layer, said)
    layer.add_argument("name")
    layer.add_argument("--unit", required=True, choices=[*UnitKind])
    layer.add_argument("--held-out", type=_share, default=Decimal(0), help="share that takes part in no experiment")

    create = _action(own, shared, "create", _create, "register an experiment from a YAML file, as a draft")
    create.add_argument("file", type=Path)

    _action(own, shared, "list", _list, "all experiments as they stand")
    for name, (_, said) in _MOVES.items():
        _change(own, shared, name, _move, said)
    decide = _change(own, shared, "decide", _decide, "name the winner of a stopped experiment, or say that it has none")
    which = decide.add_mutually_exclusive_group(required=True)
    which.add_argument("--winner", metavar="ARM")
    which.add_argument("--no-winner", action="store_true")
    said = "have the gate judge the winner of a decided experiment, once; its arms are models"
    _of_one(own, shared, "judge", _judge, said)
    ramp = _change(own, shared, "ramp", _ramp, "expose a larger share of an experiment's units; nobody moves")
    ramp.add_argument("exposure", type=_share)
    override = _change(own, shared, "override", _override, "choose a unit's arm by hand; it is left out of analyses")
    override.add_argument("unit")
    override.add_argument("arm")

    _of_one(own, shared, "history", _history, "the steps of an experiment, with who, when and why")
    assign = _of_one(own, shared, "assign", _assign, "the arms of units in a running experiment")
    assign.add_argument("units", nargs="+", metavar="unit")
    record = _of_one(own, shared, "record", _record, "store metric events, one JSON object a line")
    record.add_argument("file", help="-: standard input")
    _of_one(own, shared, "refused", _refused, "the newest metric events that were refused, with reasons")
    analyze = _of_one(own, shared, "analyze", _analyze, "effect of each arm so far, and what to do")
    analyze.add_argument("--plots", type=Path, metavar="FOLDER", help="write its plots there, as PNG")
    _of_one(own, shared, "sums", _sums, "number, mean and variance of each metric's events by arm and day")


def _action(
    own: Any, shared: argparse.ArgumentParser, name: str, function: Callable[[argparse.Namespace], int], said: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = own.add_parser(name, parents=[shared], help=said)
    parser.set_defaults(verb_function=function)
    return parser


def _of_one(
    own: Any, shared: argparse.ArgumentParser, name: str, function: Callable[[argparse.Namespace], int], said: str
) -> argparse.ArgumentParser:
    parser = _action(own, shared, name, function, said)
    parser.add_argument("name", help="the experiment")
    return parser


def _change(
    own: Any, shared: argparse.ArgumentParser, name: str, function: Callable[[argparse.Namespace], int], said: str
) -> argparse.ArgumentParser:
    parser = _of_one(own, shared, name, function, said)
    parser.add_argument("--reason", required=True, help="why; kept with your name")
    return parser


def _share(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; give a share such as 0.25") from None


def _layer(arguments: argparse.Namespace) -> int:
    from mlops_tasks.experiments.lifecycle import create_layer

    made = create_layer(load_settings(), arguments.name, UnitKind(arguments.unit), arguments.held_out)
    info = {"name": made.name, "unit": made.unit, "held_out": str(made.held_out)}
    return tell(arguments, info, f"layer {made.name} of {made.unit} units, {made.held_out:%} held out")


def _create(arguments: argparse.Namespace) -> int:
    from mlops_tasks.experiments.design import ExperimentDesign
    from mlops_tasks.experiments.lifecycle import create_experiment

    return _tell(arguments, create_experiment(load_settings(), ExperimentDesign.from_yaml(arguments.file)))


def _move(arguments: argparse.Namespace) -> int:
    from mlops_tasks.experiments.lifecycle import move_experiment

    to, _ = _MOVES[arguments.action]
    return _tell(arguments, move_experiment(load_settings(), arguments.name, to, arguments.reason))


def _decide(arguments: argparse.Namespace) -> int:
    from mlops_tasks.experiments.lifecycle import decide_experiment, move_experiment

    settings, name, reason = load_settings(), arguments.name, arguments.reason
    if arguments.winner is None:
        return _tell(arguments, move_experiment(settings, name, ExperimentState.DECIDED, reason))
    return _tell(arguments, decide_experiment(settings, name, arguments.winner, reason))


def _judge(arguments: argparse.Namespace) -> int:
    from mlops_tasks.experiments.winners import judge_winner

    verdict = judge_winner(load_settings(), arguments.name)
    return tell(arguments, verdict.to_json(), verdict.text)


def _ramp(arguments: argparse.Namespace) -> int:
    from mlops_tasks.experiments.lifecycle import ramp_experiment

    return _tell(arguments, ramp_experiment(load_settings(), arguments.name, arguments.exposure, arguments.reason))


def _override(arguments: argparse.Namespace) -> int:
    from mlops_tasks.experiments.lifecycle import override_units

    chosen = {arguments.unit: arguments.arm}
    return _tell(arguments, override_units(load_settings(), arguments.name, chosen, arguments.reason))


def _list(arguments: argparse.Namespace) -> int:
    from mlops_tasks.experiments.lifecycle import experiments

    found = list(experiments(load_settings()).values())
    lines = list(map(_line, found)) or ["no experiment is registered: alphaops experiments create FILE"]
    return tell(arguments, list(map(_info, found)), lines)


def _history(arguments: argparse.Namespace) -> int:
    from mlops_tasks.experiments.lifecycle import history_of

    steps = history_of(load_settings(), arguments.name)
    return tell(arguments, list(map(_info, steps)), map(_line, steps))


def _assign(arguments: argparse.Namespace) -> int:
    from mlops_tasks.experiments.lifecycle import running_traffic

    found = running_traffic(load_settings()).assign(arguments.name, arguments.units)
    rows = [
        {"unit": unit, "arm": found.arm_of(row), "reason": found.reason_of(row)}
        for row, unit in enumerate(arguments.units)
    ]
    return tell(arguments, rows, (f"{row['unit']}  {row['arm'] or '-'}  {row['reason']}" for row in rows))


def _record(arguments: argparse.Namespace) -> int:
    from mlops_tasks.experiments.metric_events import ingest_events

    with ExitStack() as stack:
        lines = sys.stdin if arguments.file == "-" else stack.enter_context(Path(arguments.file).open(encoding="utf-8"))
        told = ingest_events(load_settings(), arguments.name, (line for line in lines if line.strip()))
    said = [f"{told.new} new, {told.repeated} known already, {told.refused} refused", *told.faults]
    if told.refused > len(told.faults):
        said.append(f"and {told.refused - len(told.faults)} more: alphaops experiments refused {arguments.name}")
    return tell(arguments, vars(told), said, 1 if told.refused else 0)


def _refused(arguments: argparse.Namespace) -> int:
    from mlops_tasks.state.metric_events import refused_events

    rows = [
        {"received_at": row.received_at.isoformat(), "reason": row.reason, "event": row.event}
        for row in refused_events(load_settings(), arguments.name)
    ]
    lines = [f"{row['received_at']}  {row['reason']}  {row['event']}" for row in rows] or ["no event was refused"]
    return tell(arguments, rows, lines)


def _sums(arguments: argparse.Namespace) -> int:
    from mlops_tasks.experiments.metric_events import daily_moments

    rows = [each._asdict() for each in daily_moments(load_settings(), arguments.name)]
    line = "{metric}  {arm}  {day}  n {n}  mean {mean:.6g}  variance {variance:.6g}"
    lines = [line.format(**row) for row in rows]
    return tell(arguments, rows, lines or ["no event has been counted yet"])


def _analyze(arguments: argparse.Namespace) -> int:
    from mlops_tasks.experiments.daily_analysis import analyse_experiment

    settings = load_settings()
    found, lines = analyse_experiment(settings, arguments.name), []
    if arguments.plots is not None:
        from mlops_tasks.experiments.ab_test_report import AbTestReport
        from mlops_tasks.experiments.lifecycle import experiments

        report = AbTestReport(settings, experiments(settings)[arguments.name], found)
        lines = list(map(str, report.write_plots(arguments.plots)))
    return tell(arguments, found.to_json(), [*found.lines(), *lines])


def _tell(arguments: argparse.Namespace, experiment: "Experiment") -> int:
    return tell(arguments, _info(experiment), _line(experiment))


def _line(experiment: "Experiment") -> str:
    return " ".join(_words(experiment))


def _words(experiment: "Experiment") -> Iterator[str]:
    design, enrolment = experiment.design, experiment.enrolment
    yield f"{design.name}: {experiment.state} since {experiment.at:{TIME}} by {experiment.by} ({experiment.reason});"
    if experiment.state == ExperimentState.DECIDED:
        yield f"winner: {experiment.winner or 'none'};"
        if design.models and experiment.winner not in (None, design.control) and experiment.look is not None:
            judge = f"not yet, analyze_ab_test hands it over, or: alphaops experiments judge {design.name}"
            yield f"the gate: {experiment.look.verdict or judge};"
    shares = ", ".join(f"{arm} {share:.4%}" for arm, share in enrolment.allocation.shares.items())
    if enrolment.schedule is not None:
        yield f"{enrolment.schedule.said()};"
    yield f"{shares} of {enrolment.exposure:%} of positions {enrolment.first} to {enrolment.end - 1} in {design.layer}"


def _info(experiment: "Experiment") -> Mapping[str, Any]:
    traffic = experiment.enrolment.to_json()
    return {
        "name": experiment.design.name,
        "state": experiment.state,
        "winner": experiment.winner,
        "by": experiment.by,
        "reason": experiment.reason,
        "at": experiment.at.isoformat(),
        "design": experiment.design.to_json(),
        "look": None if experiment.look is None else experiment.look.to_json(),
        "traffic": {name: traffic[name] for name in ("layer", "first", "end", "exposure", "overrides", "schedule")},
    }
