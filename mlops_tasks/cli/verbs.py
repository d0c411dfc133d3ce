"""All verbs of the command line; those of data, services and stages are implemented here."""

import argparse
import logging
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from mlops_tasks.cli.alerts import add_alerts_verb
from mlops_tasks.cli.answers import print_json, tell
from mlops_tasks.cli.experiments import add_experiments_verb
from mlops_tasks.cli.explain import add_explain_verb
from mlops_tasks.cli.features import add_features_verb
from mlops_tasks.cli.history import add_history_verbs
from mlops_tasks.cli.json_input import stage_arguments
from mlops_tasks.cli.keys import add_keys_verb
from mlops_tasks.cli.models import add_models_verb, add_serving_verbs
from mlops_tasks.cli.monitor import add_monitor_verb
from mlops_tasks.cli.performance import add_performance_verb
from mlops_tasks.cli.predictions import add_predictions_verb
from mlops_tasks.cli.replay import add_replay_verb
from mlops_tasks.cli.rollback import add_rollback_verb
from mlops_tasks.cli.trace import add_lineage_verbs
from mlops_tasks.cli.training import add_training_verb
from mlops_tasks.cli.tuning import add_tune_verb
from mlops_tasks.cli.users import add_users_verb
from mlops_tasks.config import load_settings
from mlops_tasks.errors import MlopsError
from mlops_tasks.files import full_disk_named, write_json
from mlops_tasks.process import give_way, hold_leash, stage_function
from mlops_tasks.stage_output import RecordFormatter, StageFailure

OK, FAILED = 0, 1
WITHOUT_SERVICES = (
    "run",
    "compile",
    "doctor",
    "features",
    "vintages",
    "diff",
    "quarantine",
    "training",
    "alerts",
    "predictions",
    "keys",
    "live",
    "history",
)
"""Verbs that need neither MLflow nor a login; a stage receives the secrets that it names."""
TALKATIVE = ("alembic", "great_expectations")
"""Libraries whose hundreds of lines would bury a stage's own in the task's log."""


_ADDED = (
    add_features_verb,
    add_tune_verb,
    add_training_verb,
    add_models_verb,
    add_serving_verbs,
    add_history_verbs,
    add_lineage_verbs,
    add_users_verb,
    add_alerts_verb,
    add_predictions_verb,
    add_performance_verb,
    add_monitor_verb,
    add_explain_verb,
    add_replay_verb,
    add_experiments_verb,
    add_keys_verb,
)
"""Add the verbs of other modules."""


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return the exit status of the process (1: a known error, reported in one line)."""
    arguments = _parser().parse_args(argv)
    level = logging.INFO if arguments.verb == "run" else logging.WARNING
    handler = logging.StreamHandler(sys.stdout)
    if arguments.verb == "run" and arguments.leash:  # the parent process reads the log records
        handler.setFormatter(RecordFormatter())
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or not record.name.startswith(TALKATIVE))
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=[handler])
    try:
        if arguments.verb not in WITHOUT_SERVICES:
            _reach_services()
        status: int = arguments.verb_function(arguments)
    except MlopsError as error:
        logging.getLogger(__name__).debug("", exc_info=True)
        print(f"{type(error).__name__}: {error}", flush=True)
        return FAILED
    return status


def _reach_services() -> None:
    settings = load_settings()
    if (settings.run_dir / "stack.json").is_file():  # else there was never a stack, and nothing is imported for it
        from mlops_tasks.stack.reach import reach_services

        reach_services(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alphaops", description="The command line: what a person or a script does without a DAG."
    )
    verbs = parser.add_subparsers(required=True, metavar="verb", dest="verb")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="for machines")

    status = verbs.add_parser("status", parents=[shared], help="vintage, candidates, gate, deployment, scores, drift")
    status.set_defaults(verb_function=_status)

    score = verbs.add_parser("score", parents=[shared], help="ask the scoring service; best instruments first")
    score.add_argument("instruments", nargs="*", help="none: all")
    score.add_argument("--date", type=date.fromisoformat, help="default: the newest")
    score.set_defaults(verb_function=_score)

    add_rollback_verb(verbs, shared)

    quarantine = verbs.add_parser("quarantine", parents=[shared], help="the rows in quarantine, with their reasons")
    quarantine.set_defaults(verb_function=_quarantine)

    _add_release_verb(verbs, shared)

    vintages = verbs.add_parser("vintages", parents=[shared], help="list the data versions")
    vintages.set_defaults(verb_function=_vintages)

    diff = verbs.add_parser(
        "diff", parents=[shared], help="the differences between two data versions, files or folders"
    )
    diff.add_argument("old", help="data version, or source of bars")
    diff.add_argument("new", help="data version, or source of bars")
    diff.set_defaults(verb_function=_diff)

    approve = verbs.add_parser("approve", parents=[shared], help="approve a vintage that the policy blocks")
    approve.add_argument("data_version")
    approve.add_argument("--reason", required=True, help="why its changes are right; kept with your name")
    approve.set_defaults(verb_function=_approve)

    checkout = verbs.add_parser("checkout", parents=[shared], help="restore a data version from DVC")
    checkout.add_argument("data_version")
    checkout.set_defaults(verb_function=_checkout)

    for add in _ADDED:
        add(verbs, shared)

    doctor = verbs.add_parser("doctor", parents=[shared], help="check this machine and the running services")
    doctor.add_argument("--source", metavar="PATH", help="propose the settings for a file or a folder of bars")
    doctor.set_defaults(verb_function=_doctor)

    compile_verb = verbs.add_parser("compile", help="compile the kernels for this processor; `make env` does this last")
    compile_verb.set_defaults(verb_function=_compile)

    run = verbs.add_parser("run", help="run one stage of the chain; the DAGs' tasks start this")
    run.add_argument("stage")
    run.add_argument("--arguments", default="{}", help="keyword arguments as a JSON object")
    run.add_argument("--result", type=Path, help="write the result here instead of printing it")
    leash = "for a parent process, with --result: end when standard input closes, and log in JSON"
    run.add_argument("--leash", action="store_true", help=leash)
    run.set_defaults(verb_function=_run)
    return parser


def _add_release_verb(verbs: Any, shared: argparse.ArgumentParser) -> None:
    release = verbs.add_parser(
        "release", parents=[shared], help="release a row, an instrument or a session from a rule"
    )
    release.add_argument("--rule", required=True)
    release.add_argument("--instrument", help="for a rule about rows or instruments")
    release.add_argument("--calendar", help="for a rule about sessions; not needed if there is only one calendar")
    release.add_argument(
        "--date",
        type=date.fromisoformat,
        help="date of the row or session; for an instrument, of its newest evidence",
    )
    release.add_argument(
        "--row", type=int, help="row number in the source, if several rows have the same instrument and date"
    )
    release.add_argument("--reason", required=True, help="why it is right; kept with your name")
    release.set_defaults(verb_function=_release)


def _status(arguments: argparse.Namespace) -> int:
    from mlops_tasks.status import render_status, status_info

    settings = load_settings()
    return tell(arguments, lambda: status_info(settings), lambda: render_status(settings))


def _score(arguments: argparse.Namespace) -> int:
    from mlops_tasks.serving.client import ScoringClient

    with ScoringClient(load_settings()) as client:
        answer = client.score(arguments.instruments or None, arguments.date)
    ranked = sorted(answer["scores"], key=lambda row: -row["score"])
    lines = [f"{answer['date']}, model version {answer['model_version']}"]
    lines += [f"{row['instrument']:<16}{row['score']:+.6f}" for row in ranked]
    lines += [f"{name:<16}no bar on that day" for name in answer["missing"]]
    return tell(arguments, answer, lines)


def _quarantine(arguments: argparse.Namespace) -> int:
    from mlops_tasks.data.validation.quarantine import quarantine_info, render_quarantine

    info = quarantine_info(load_settings())
    return tell(arguments, info, lambda: render_quarantine(info))


def _release(arguments: argparse.Namespace) -> int:
    from mlops_tasks.data.validation.quarantine import release

    made = release(
        load_settings(),
        rule=arguments.rule,
        instrument=arguments.instrument,
        calendar=arguments.calendar,
        day=arguments.date,
        source_row=arguments.row,
        reason=arguments.reason,
    )
    said = f"{made.instrument} {made.date} passes rule {made.rule} from the next sync on: {made.reason}"
    return tell(arguments, asdict(made), said)


def _vintages(arguments: argparse.Namespace) -> int:
    from mlops_tasks.data.inspection import list_vintages, render_vintages

    found = list_vintages(load_settings())
    return tell(arguments, found, lambda: render_vintages(found))


def _diff(arguments: argparse.Namespace) -> int:
    from mlops_tasks.data.inspection import difference, render_difference

    settings = load_settings()
    found = difference(settings, arguments.old, arguments.new)
    return tell(arguments, found.summary, lambda: render_difference(settings, found))


def _approve(arguments: argparse.Namespace) -> int:
    from mlops_tasks.data.revisions.approvals import approve

    approval = approve(load_settings(), arguments.data_version, arguments.reason)
    said = f"{approval.new} may follow {approval.old}; run sync_market_data again to bring it into use"
    return tell(arguments, asdict(approval), said)


def _checkout(arguments: argparse.Namespace) -> int:
    from mlops_tasks.data.snapshots import checkout_vintage

    vintage = checkout_vintage(load_settings(), arguments.data_version)
    found = {"data_version": vintage.data_version, "path": str(vintage.path), "rows": vintage.rows}
    return tell(arguments, found, f"{vintage.path}: {vintage.rows:,} bars")


def _doctor(arguments: argparse.Namespace) -> int:
    if arguments.source:
        return _propose(arguments)
    from mlops_tasks.stack.doctor import check

    findings = check(load_settings())
    lines = [
        f"{finding.state:<8} {finding.name}: {finding.detail}" + (f"; {finding.remedy}" if finding.remedy else "")
        for finding in findings
    ]
    status = FAILED if any(finding.state == "error" for finding in findings) else OK
    return tell(arguments, [finding.info() for finding in findings], lines, status)


def _propose(arguments: argparse.Namespace) -> int:
    from mlops_tasks.data.sources.proposal import propose

    found = propose(load_settings(), arguments.source)
    content = asdict(found) | {"settings": found.snippet()}
    return tell(arguments, content, found.render, FAILED if found.failed or not found.read["instruments"] else OK)


def _compile(arguments: argparse.Namespace) -> int:
    from mlops_tasks.kernels import compile_kernels

    compile_kernels(lambda line: print(line, flush=True))
    return OK


def _run(arguments: argparse.Namespace) -> int:
    if not arguments.leash:
        _run_stage(arguments)
        return OK
    hold_leash()
    give_way(arguments.stage)
    try:
        _run_stage(arguments)
    except Exception as error:
        if not isinstance(error, MlopsError):
            logging.getLogger(__name__).exception("%s failed", arguments.stage)
        StageFailure.of(error).write(arguments.result)
        return FAILED
    return OK


def _run_stage(arguments: argparse.Namespace) -> None:
    log, started = logging.getLogger(__name__), time.monotonic()
    with full_disk_named(load_settings().home):
        function = stage_function(arguments.stage)
        log.info("%s begins", arguments.stage)
        result = function(**stage_arguments(function, arguments.stage, arguments.arguments))
    log.info("%s finished in %.1f s", arguments.stage, time.monotonic() - started)
    if arguments.result:
        write_json(arguments.result, result)
    else:
        print_json(result)
