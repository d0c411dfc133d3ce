"""User accounts in Airflow: `alphaops users add|list|remove|role|password`."""

import json
import re
import secrets
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.errors import AccountError
from mlops_tasks.roles import Role
from mlops_tasks.stack.credentials import ADMIN, Credentials
from mlops_tasks.stack.environment import full_environment

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,31}")
_LIMIT_S = 300


@dataclass(frozen=True)
class Account:
    """An account that can log in."""

    name: str
    role: str


@dataclass(frozen=True)
class Desk:
    """The accounts of one home.

    Every method raises `AccountError` if there is only one account by design, for an invalid name, and for the stack's
    own account `admin`, which no command changes.
    """

    settings: Settings
    credentials: Credentials

    def prepare(self) -> None:
        """Create the roles of the table, and the stack's own admin with its password; other accounts are unchanged."""
        self._order("prepare", ADMIN, password=self.credentials.airflow_password)

    def listed(self) -> list[Account]:
        """Every account."""
        return self._order("list")

    def add(self, name: str, role: Role) -> str:
        """Create an account; returns its password, which is not stored."""
        password = _new_password()
        self._order("add", _checked(name), role=role.value, password=password)
        return password

    def remove(self, name: str) -> None:
        """Lock an account permanently; its tokens and sessions end within half a minute."""
        self._order("remove", _checked(name))

    def change_role(self, name: str, role: Role) -> None:
        """Change the role of an account; takes effect within half a minute."""
        self._order("role", _checked(name), role=role.value)

    def reset_password(self, name: str) -> str:
        """Set and return a new password, which is not stored."""
        password = _new_password()
        self._order("password", _checked(name), password=password)
        return password

    def _order(self, verb: str, name: str = "", **more: str) -> list[Account]:
        if self.settings.stack.login == "simple":
            raise AccountError(
                "stack.login is simple: there is one account, admin; for several people write `stack: {login: fab}` "
                f"into {self.settings.home / 'settings.yaml'} and run `make up` (docs/users.md)"
            )
        done = subprocess.run(
            [sys.executable, "-m", "mlops_tasks.operators.accounts"],
            input=json.dumps({"verb": verb, "name": name, **more}),
            env=full_environment(self.settings, self.credentials),
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        answer = _answer(done)
        if "error" in answer:
            raise AccountError(answer["error"])
        return [Account(**row) for row in answer["accounts"]]


def _answer(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        tail = "\n".join(done.stderr.splitlines()[-5:])
        raise AccountError(f"Airflow's accounts could not be opened; is `make up` done?\n{tail}") from None
    return found


def _checked(name: str) -> str:
    if name == ADMIN:
        raise AccountError(f"{ADMIN} is the stack's own account; delete secrets/airflow_password for a new password")
    if not _NAME.fullmatch(name):
        raise AccountError(f"{name!r} is not an account name: use a-z first, then a-z, 0-9, dot, _ and -; at most 32")
    return name


def _new_password() -> str:
    return secrets.token_urlsafe(18)
