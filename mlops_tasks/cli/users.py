"""The command line for user accounts in Airflow: `alphaops users ...`."""

import argparse
from typing import Any

from mlops_tasks.cli.answers import tell
from mlops_tasks.config import load_settings
from mlops_tasks.roles import Role

_ACTIONS = {
    "add": "add an account and show its password, once",
    "remove": "lock an account permanently",
    "role": "change the role of an account",
    "password": "give an account a new password and show it, once",
}


def add_users_verb(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Add the verb `users` with its own verbs; `shared` has the options that all of them take."""
    users = verbs.add_parser("users", help="user accounts in Airflow (docs/users.md)")
    own = users.add_subparsers(required=True, metavar="action", dest="action")
    own.add_parser("list", parents=[shared], help="name and role of each account")
    for action, text in _ACTIONS.items():
        parser = own.add_parser(action, parents=[shared], help=text)
        parser.add_argument("name")
        if action in {"add", "role"}:
            parser.add_argument("role", choices=[role.value for role in Role])
    users.set_defaults(verb_function=_users)


def _users(arguments: argparse.Namespace) -> int:
    from mlops_tasks.stack.credentials import read_credentials
    from mlops_tasks.stack.users import Desk

    settings = load_settings()
    desk = Desk(settings, read_credentials(settings))
    action, name = arguments.action, getattr(arguments, "name", None)
    if action == "list":
        accounts = desk.listed()
        lines = [f"{account.name:<32} {account.role}" for account in accounts]
        rows = [{"name": account.name, "role": account.role} for account in accounts]
        return tell(arguments, rows, "\n".join(lines))
    answer = {"action": action, "name": name}
    if action == "remove":
        desk.remove(arguments.name)
        said = f"{name} is locked out"
    elif action == "role":
        desk.change_role(arguments.name, Role(arguments.role))
        said = f"{name} now has the role {arguments.role}"
    else:
        new = action == "add"
        password = desk.add(arguments.name, Role(arguments.role)) if new else desk.reset_password(arguments.name)
        answer["password"] = password
        said = f"{password}\nthe password of {name}, shown only once"
    return tell(arguments, answer, said)
