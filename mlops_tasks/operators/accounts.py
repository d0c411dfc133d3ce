"""Accounts in Airflow's database, where the FAB auth manager keeps them.

`python -m mlops_tasks.operators.accounts`, in Airflow's environment, reads commands from standard input, one line of
JSON each, and answers each with one line of JSON. So a password is neither in arguments nor in the environment.
"""

import contextlib
import json
import secrets
import sys
from collections.abc import Iterator
from typing import Any

from mlops_tasks.errors import AccountError, MlopsError
from mlops_tasks.roles import Role, fab_role, permissions


class Accounts:
    """The accounts of one Airflow. Its roles are those of AlphaOps, and each account has one."""

    def __init__(self, security_manager: Any) -> None:
        self._manager = security_manager
        self._roles = {fab_role(role): role for role in Role}

    def sync_roles(self) -> None:
        """Give each role the permissions in the table, and no others."""
        manager = self._manager
        manager.sync_roles()
        for role in set(Role) - {Role.ADMIN}:
            found = manager.find_role(fab_role(role)) or manager.add_role(fab_role(role))
            given = {(each.action.name, each.resource.name): each for each in found.permissions}
            wanted = permissions(role)
            for key in set(given) - wanted:
                manager.remove_permission_from_role(found, given[key])
            for action, resource in sorted(wanted - set(given)):
                manager.add_permission_to_role(found, manager.create_permission(action, resource))

    def listed(self) -> list[dict[str, str]]:
        """Name and role of each account that can log in; a role that is not in the table is in brackets."""
        return [
            {"name": user.username, "role": self._role_text(user)}
            for user in sorted(self._manager.get_all_users(), key=lambda user: user.username)
            if user.active
        ]

    def add(self, name: str, role: Role, password: str) -> None:
        """Add an account, or restore one that was removed.

        Raises
        ------
        AccountError
            There is an account of this name already.
        """
        user = self._manager.find_user(username=name)
        if user is None:
            self._manager.add_user(name, name, "", f"{name}@localhost", self._found(role), password)
            return
        if user.active:
            raise AccountError(f"there is an account {name} already; choose another name, or change its role")
        self._set(user, role, password)

    def ensure(self, name: str, role: Role, password: str) -> None:
        """Make sure that there is an account with exactly this role and password."""
        user = self._manager.find_user(username=name)
        if user is None:
            self.add(name, role, password)
        elif not (user.active and self._role_text(user) == role and self._manager.check_password(name, password)):
            self._set(user, role, password)

    def remove(self, name: str) -> None:
        """Lock the account for good.

        Its row stays: a token names its account by number, and if the database gave the number to another account, the
        old token would open that one.
        """
        user = self._known(name)
        user.roles, user.active = [], False
        self._reset(user, secrets.token_urlsafe(32))

    def change_role(self, name: str, role: Role) -> None:
        """Replace the account's role."""
        user = self._known(name)
        user.roles = [self._found(role)]
        self._saved(user)

    def reset_password(self, name: str, password: str) -> None:
        """Set a new password; sessions opened with the old one end."""
        self._reset(self._known(name), password)

    def _set(self, user: Any, role: Role, password: str) -> None:
        user.roles, user.active = [self._found(role)], True
        self._reset(user, password)

    def _reset(self, user: Any, password: str) -> None:
        self._saved(user)
        if not self._manager.reset_password(user.id, password):
            raise AccountError(f"the account {user.username} was not changed; see Airflow's database and its log")

    def _saved(self, user: Any) -> None:
        if not self._manager.update_user(user):
            raise AccountError(f"the account {user.username} was not changed; see Airflow's database and its log")

    def _known(self, name: str) -> Any:
        user = self._manager.find_user(username=name)
        if user is None or not user.active:
            raise AccountError(f"there is no account {name}; `users list` shows them")
        return user

    def _found(self, role: Role) -> Any:
        return self._manager.find_role(fab_role(role))

    def _role_text(self, user: Any) -> str:
        names = [role.name for role in user.roles]
        return ", ".join(self._roles[name].value if name in self._roles else f"({name})" for name in names)


@contextlib.contextmanager
def open_accounts() -> Iterator[Accounts]:
    """The accounts of the Airflow that the environment names."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from airflow.providers_manager import ProvidersManager

    ProvidersManager().initialize_providers_configuration()
    with get_application_builder() as builder:
        yield Accounts(builder.sm)


def main() -> None:
    """Carry out the commands in order; one that fails is answered with the reason."""
    with open_accounts() as accounts:
        for line in sys.stdin:
            try:
                answer: dict[str, Any] = {"accounts": _carry_out(accounts, json.loads(line))}
            except MlopsError as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), flush=True)  # noqa: T201 - the answer


def _carry_out(accounts: Accounts, order: dict[str, Any]) -> list[dict[str, str]]:
    verb, name = order["verb"], order.get("name", "")
    if verb == "prepare":
        accounts.sync_roles()
        accounts.ensure(name, Role.ADMIN, order["password"])
    elif verb == "add":
        accounts.add(name, Role(order["role"]), order["password"])
    elif verb == "remove":
        accounts.remove(name)
    elif verb == "role":
        accounts.change_role(name, Role(order["role"]))
    elif verb == "password":
        accounts.reset_password(name, order["password"])
    return accounts.listed()


if __name__ == "__main__":
    main()
