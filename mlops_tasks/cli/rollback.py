"""The verb `rollback`, which asks for a reason and for confirmation."""

import argparse
import getpass
import sys
from typing import Any

from mlops_tasks.cli.answers import tell
from mlops_tasks.config import load_settings
from mlops_tasks.errors import ConfigError


def add_rollback_verb(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verb `rollback`; `shared` has the options that all verbs take."""
    rollback = verbs.add_parser("rollback", parents=[shared], help="put the champion's predecessor back into service")
    rollback.add_argument("--version", type=int, help="put this version into service instead")
    rollback.add_argument("--reason", help="why; kept with your name (asked for at a terminal)")
    rollback.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    rollback.set_defaults(verb_function=_rollback)


def _rollback(arguments: argparse.Namespace) -> int:
    from mlops_tasks.serving.deployment import roll_back

    given = arguments.reason
    reason = (_ask("Why is the champion taken out of service? ", "--reason") if given is None else given).strip()
    if not reason:
        raise ConfigError("--reason is empty: say why the champion is taken out of service; the history records it")
    if not arguments.yes and not _confirmed(arguments.version):
        print("nothing was changed")
        return 1
    result = roll_back(load_settings(), arguments.version, f"{getpass.getuser()}: {reason}")
    rejected = result["rejected_version"]
    said = f"version {result['version']} serves" + (
        f"; version {rejected} will not be promoted again" if rejected else ""
    )
    return tell(arguments, result, said)


def _confirmed(version: int | None) -> bool:
    """Say what the rollback does and ask a person to confirm it. ConfigError if there is no terminal to ask at."""
    target = "The champion before it" if version is None else f"Version {version}"
    said = f"{target} takes the champion's place in service, and the champion will not be promoted again. Go on? [y/N] "
    return _ask(said, "--yes").strip().lower() in ("y", "yes")


def _ask(question: str, option: str) -> str:
    if not sys.stdin.isatty():
        raise ConfigError(f"{option} is missing, and there is no terminal to ask at; give the option")
    return input(question)
