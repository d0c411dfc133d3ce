"""`python -m mlops_tasks.stack`: up, down, status, run."""

import argparse
import logging
import os
import signal
import sys
import threading
from dataclasses import fields

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.errors import MlopsError, StackError
from mlops_tasks.private import be_private
from mlops_tasks.stack import keeper
from mlops_tasks.stack.console import Progress
from mlops_tasks.stack.credentials import read_credentials
from mlops_tasks.stack.environment import STACK_ID, full_environment
from mlops_tasks.stack.health import HEALTH_LIMIT_S, get, unhealthy, wait_for
from mlops_tasks.stack.overlay import Choice
from mlops_tasks.stack.services import service_named, services
from mlops_tasks.stack.up import addresses, run_day, start_services


def main(argv: list[str] | None = None) -> int:
    """Run one verb; 1 on a known error, reported on standard error; 130 on Ctrl-C."""
    be_private()
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        status: int = arguments.verb(load_settings(), arguments)
    except MlopsError as error:
        print(f"\n{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("\nstopped watching; the services keep running (make down ends them)", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mlops_tasks.stack", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="verb")
    up = verbs.add_parser("up", help="start every service and run the chain once")
    up.add_argument(
        "--source",
        default="",
        help="parquet or CSV file, or a folder of them; `synthetic`; empty: the last choice",
    )
    up.add_argument("--universe", default="", help="membership file: instrument, first day, last day")
    for segment in ("train", "valid", "test"):
        up.add_argument(f"--{segment}", default="", metavar="FIRST:LAST", help=f"days of the {segment} segment")
    up.add_argument("--profile", default="", help="local, or celery: PostgreSQL and workers (docs/workers.md)")
    up.add_argument("--no-chain", dest="chain", action="store_false", help="only start the services")
    up.set_defaults(verb=_up)
    verbs.add_parser(
        "attend", help="start every service and stay in the foreground until stopped; for containers"
    ).set_defaults(verb=_attend)
    verbs.add_parser("down", help="end every process of the stack of this home").set_defaults(verb=_down)
    verbs.add_parser("status", help="show each service; exit status 3 if one is unhealthy").set_defaults(verb=_status)
    run = verbs.add_parser("run", help="run a command with the stack's environment, e.g. run -- airflow dags list")
    run.add_argument("command", nargs=argparse.REMAINDER)
    run.set_defaults(verb=_run)
    execute = verbs.add_parser("exec", help="run as one service; for the keeper")
    execute.add_argument("service")
    execute.set_defaults(verb=_exec)
    return parser


def _up(settings: Settings, arguments: argparse.Namespace) -> int:
    progress = Progress()
    if os.geteuid() == 0:
        progress.say(
            "warning: this runs as root, so anybody who breaks into a service or a model's file controls the machine; "
            "better: make down, chown -R <user> this folder and MLOPS_HOME, and make up as that user"
        )
    given = vars(arguments)
    choice = Choice(**{field.name: given[field.name] for field in fields(Choice)})
    settings, credentials = start_services(settings, choice, progress)
    if arguments.chain:
        run_day(settings, credentials, progress)
    print(f"\n{addresses(settings)}\n")
    progress.say("done")
    return 0


def _attend(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 when asked to end (SIGTERM, Ctrl-C), 1 when the keeper ended by itself; no service is left either way.

    Raises
    ------
    StackError
        This runs as root: from a container root can easily reach the machine.
    """
    if os.geteuid() == 0 and not settings.stack.allow_root:
        raise StackError(
            "this container runs as root: start it with the image's own user (no `user: root`, no --user 0) or "
            "another one; if it has to be root, set MLOPS_STACK__ALLOW_ROOT=true"
        )
    progress = Progress()
    settings, _ = start_services(settings, Choice(), progress)
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    print(f"\n{addresses(settings)}\n", flush=True)
    while keeper.is_running(settings) and not asked.wait(1.0):
        pass
    with keeper.exclusive(settings):
        keeper.stop(settings)
    progress.say("every process of the stack has ended")
    return 0 if asked.is_set() else 1


def _down(settings: Settings, arguments: argparse.Namespace) -> int:
    progress = Progress()
    with keeper.exclusive(settings):
        running = keeper.is_running(settings)
        swept = keeper.stop(settings)
    if not running and not swept:
        progress.say("nothing was running")
    else:
        progress.say(
            "every process of the stack has ended" + (f"; {swept} had to be ended separately" if swept else "")
        )
    return 0


def _status(settings: Settings, arguments: argparse.Namespace) -> int:
    states = {state.name: state for state in keeper.service_states(settings)}
    wrong = unhealthy(settings, read_credentials(settings)) if states else {}
    for service in services(settings):
        state = states.get(service.name)
        said = f"{state.state:<9} pid {state.pid:<8} {state.since_s:8.0f} s" if state else "not running"
        print(f"{service.name:<24} {said}  {wrong.get(service.name, 'healthy' if state else '')}".rstrip())
    if states:
        print(f"\n{addresses(settings)}")
    return 3 if wrong or not states else 0


def _run(settings: Settings, arguments: argparse.Namespace) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise SystemExit("give a command: run -- airflow dags list")
    environment = full_environment(settings, read_credentials(settings))
    os.execvpe(command[0], command, environment)  # noqa: S606 - no shell is wanted


def _exec(settings: Settings, arguments: argparse.Namespace) -> int:
    """Replace this process by the service, so that the keeper's own environment and command line contain no secret."""
    service = service_named(arguments.service, settings)
    environment = dict(service.environment(settings, read_credentials(settings)))
    if service.after:
        wait_for(lambda: get(service.after).status == 200, HEALTH_LIMIT_S)
    environment[STACK_ID] = keeper.read_record(settings).stack_id
    os.execve(service.command[0], service.command, environment)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    sys.exit(main())
