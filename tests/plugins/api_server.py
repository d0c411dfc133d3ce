"""A real Airflow API server on a fresh home: database, DAGs and server in one process, which ends with its input.

`python -m tests.plugins.api_server`, in the environment that `start_airflow` makes. With `stack.login` fab its
arguments are the accounts, one for each role.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from mlops_tasks.authorities import trusted_authorities
from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.roles import Role
from mlops_tasks.stack.credentials import airflow_users_file, ensure_credentials
from mlops_tasks.stack.environment import airflow_url, full_environment

USERS = {"admin": "ADMIN", "viewer": "VIEWER"}
"""Each one's password is its name."""
START_S, PATIENCE_S = 400, 240
"""Seconds that its start and an answer may take where other tests use all cores."""
ROUTES = "routes.json"


@dataclass(frozen=True)
class Airflow:
    """A running server."""

    url: str
    settings: Settings
    pid: int

    @property
    def routes(self) -> list[tuple[str, str]]:
        """Method and path of every route of the plugin; of a WebSocket `APIWebSocketRoute` and its path."""
        return [(method, path) for method, path in json.loads((self.settings.home / ROUTES).read_text())]

    def client(self, user: str | None) -> httpx.Client:
        """A client with a user's bearer token; without a user it is a stranger."""
        headers = {"Authorization": f"Bearer {self.token(user)}"} if user else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S, verify=trusted_authorities())

    def token(self, user: str) -> str:
        """A new token of a user."""
        with self.client(None) as client:
            answer = client.post("/auth/token", json={"username": user, "password": user})
        token: str = answer.raise_for_status().json()["access_token"]
        return token


@contextmanager
def start_airflow(settings: Settings) -> Iterator[Airflow]:
    """A server with `USERS`, or one account for each role where `stack.login` is fab, ended when the block ends."""
    credentials = ensure_credentials(settings)
    airflow_users_file(settings).write_text(json.dumps({user: user for user in USERS}))
    environ = {
        **full_environment(settings, credentials),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in USERS.items()),
    }
    log = settings.home / "api_server.log"
    with log.open("w") as file:
        roles = list(Role) if settings.stack.login == "fab" else []
        command = [sys.executable, "-m", "tests.plugins.api_server", *roles]
        server = subprocess.Popen(
            command, env=environ, cwd=PROJECT, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            _wait_until_well(airflow_url(settings), server, log)
            yield Airflow(airflow_url(settings), settings, server.pid)
        finally:
            server.kill()
            server.communicate()


def _wait_until_well(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{url}/api/v2/version", timeout=5, verify=trusted_authorities()).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"the API server did not start: {log.read_text()[-4000:]}")


def main() -> None:
    """What the command line does in three processes, which would import Airflow three times."""
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    from airflow.cli.cli_parser import get_parser

    (Path(os.environ["MLOPS_HOME"]) / ROUTES).write_text(json.dumps(_routes()))
    _run_command(get_parser(), "db", "migrate")
    if sys.argv[1:]:
        _make_accounts([Role(name) for name in sys.argv[1:]])
    _run_command(get_parser(), "dags", "reserialize")
    _run_command(get_parser(), "api-server", "--apps", "core")


def _run_command(parser: argparse.ArgumentParser, *words: str) -> None:
    arguments = parser.parse_args(words)
    arguments.func(arguments)


def _make_accounts(roles: list[Role]) -> None:
    """As `make up` does, in this process; each account's name and password are its role's name."""
    from mlops_tasks.operators.accounts import open_accounts

    with open_accounts() as accounts:
        accounts.sync_roles()
        for role in roles:
            accounts.ensure(role.value, role, role.value)


def _routes() -> list[list[str]]:
    """Method and path of every route that the plugin's apps have, WebSockets and mounted folders too."""
    from mlops_plugin import MlopsPlugin

    found = []
    for mounted in MlopsPlugin.fastapi_apps:
        for route in mounted["app"].app.routes:
            methods = getattr(route, "methods", None) or [type(route).__name__]
            found += [[method, mounted["url_prefix"] + route.path] for method in methods]
    return found


if __name__ == "__main__":
    main()
