"""The table of roles, tried against a real Airflow with an account for each role."""

import dataclasses
import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from mlops_tasks.cli import main
from mlops_tasks.config import PROJECT, Settings, StackSettings
from mlops_tasks.roles import RIGHTS, Right, Role, permissions
from mlops_tasks.stack.console import Progress
from mlops_tasks.stack.credentials import read_credentials
from mlops_tasks.stack.environment import full_environment
from mlops_tasks.stack.up import migrate_databases
from mlops_tasks.stack.users import Account, Desk
from tests.commands import commands_of
from tests.operation import free_ports
from tests.plugins.api_server import Airflow, start_airflow

REFUSED = {401, 403}
API = "/mlops/v1"
CHAIN, SEARCH, SYNC = "/api/v2/dags/daily_retraining", "/api/v2/dags/tune_models", "/api/v2/dags/sync_market_data"
RUN = {"logical_date": None, "conf": {}}
PERIOD = {"from_date": "2026-01-05T00:00:00Z", "to_date": "2026-01-06T00:00:00Z"}


@dataclass(frozen=True)
class Attempt:
    """A request, and the right that it needs; whoever has the right is answered anything but a refusal."""

    right: Right
    method: str
    path: str
    body: dict[str, Any] = field(default_factory=dict)


ATTEMPTS = [
    Attempt(Right.SEE, "GET", "/api/v2/dags"),
    Attempt(Right.SEE, "GET", f"{CHAIN}/dagRuns"),
    Attempt(Right.SEE, "GET", f"{CHAIN}/dagRuns/none/taskInstances/plan_run/logs/1"),
    Attempt(Right.SEE, "GET", "/mlops/v1/models"),
    Attempt(Right.SEE, "GET", "/mlops/v1/training/runs"),
    Attempt(Right.SEE, "GET", "/mlops/ui/training"),
    Attempt(Right.SEARCH, "POST", f"{SEARCH}/dagRuns", RUN),
    Attempt(Right.SEARCH, "POST", f"{SEARCH}/dagRuns/none/clear", {"dry_run": True}),
    Attempt(Right.TRAIN, "POST", "/mlops/v1/training/runs/none/pause"),
    Attempt(Right.TRAIN, "POST", "/mlops/v1/training/runs/none/cancel"),
    Attempt(
        Right.APPROVE,
        "PATCH",
        f"{CHAIN}/dagRuns/none/taskInstances/none/-1/hitlDetails",
        {"chosen_options": ["Approve"]},
    ),
    Attempt(Right.HALT, "PATCH", f"{CHAIN}?update_mask=is_paused", {"is_paused": False}),
    Attempt(Right.OPERATE, "POST", f"{CHAIN}/dagRuns", RUN),
    Attempt(Right.OPERATE, "POST", f"{SYNC}/dagRuns", RUN),
    Attempt(Right.OPERATE, "PATCH", f"{SYNC}?update_mask=is_paused", {"is_paused": False}),
    Attempt(Right.OPERATE, "PATCH", "/api/v2/dags?dag_id_pattern=none", {"is_paused": False}),
    Attempt(Right.OPERATE, "PATCH", f"{CHAIN}/dagRuns/none", {"state": "failed"}),
    Attempt(Right.OPERATE, "POST", f"{CHAIN}/dagRuns/none/clear", {"dry_run": True}),
    Attempt(Right.OPERATE, "POST", f"{CHAIN}/clearTaskInstances", {"dry_run": True}),
    Attempt(Right.OPERATE, "PATCH", f"{CHAIN}/dagRuns/none/taskInstances/plan_run", {"new_state": "success"}),
    Attempt(Right.OPERATE, "POST", "/api/v2/backfills/dry_run", {"dag_id": "sync_market_data", **PERIOD}),
    Attempt(Right.OPERATE, "POST", "/api/v2/backfills/dry_run", {"dag_id": "daily_retraining", **PERIOD}),
    Attempt(Right.OPERATE, "POST", "/api/v2/assets/events", {"asset_id": 10**6, "extra": {}}),
    Attempt(Right.OPERATE, "POST", "/api/v2/assets/1000000/materialize"),
    Attempt(Right.POOLS, "PATCH", "/api/v2/pools/none", {"slots": 1, "name": "none"}),
    Attempt(Right.POOLS, "DELETE", "/api/v2/pools/none"),
    Attempt(Right.POOLS, "GET", "/api/v2/eventLogs"),
    Attempt(Right.ADMINISTER, "GET", "/api/v2/connections"),
    Attempt(Right.ADMINISTER, "GET", "/api/v2/connections/none"),
    Attempt(Right.ADMINISTER, "POST", "/api/v2/connections", {"connection_id": "no such id!"}),
    Attempt(Right.ADMINISTER, "DELETE", "/api/v2/connections/none"),
    Attempt(Right.ADMINISTER, "GET", "/api/v2/variables"),
    Attempt(Right.ADMINISTER, "GET", "/api/v2/variables/none"),
    Attempt(Right.ADMINISTER, "DELETE", "/api/v2/variables/none"),
    Attempt(Right.ADMINISTER, "GET", "/api/v2/plugins"),
    Attempt(Right.ADMINISTER, "DELETE", f"{CHAIN}/dagRuns/none"),
    Attempt(Right.ADMINISTER, "DELETE", "/api/v2/dags/none"),
    Attempt(Right.ADMINISTER, "GET", "/auth/fab/v1/users"),
    Attempt(Right.ADMINISTER, "GET", "/auth/fab/v1/roles"),
    Attempt(Right.ADMINISTER, "PATCH", "/auth/fab/v1/users/none", {"roles": [{"name": "Admin"}]}),
    Attempt(Right.ADMINISTER, "PATCH", "/auth/fab/v1/roles/none", {"name": "none"}),
]
BEYOND = [
    Attempt(Right.OPERATE, "PATCH", f"{CHAIN}/dagRuns/none/taskInstances/plan_run/xcomEntries/x", {"value": 1}),
    Attempt(Right.OPERATE, "POST", "/api/v2/dags/~/dagRuns", {"dag_id": "daily_retraining", **RUN}),
    Attempt(Right.OPERATE, "POST", "/api/v2/dags/~/clearDagRuns", {"dag_runs": [], "dry_run": True}),
    Attempt(Right.OPERATE, "PATCH", "/api/v2/dags/~/dagRuns/~/taskInstances", {"actions": []}),
    Attempt(Right.OPERATE, "POST", "/api/v2/dags/~/clearTaskInstances", {"dry_run": True}),
]
"""Ways around the name of a DAG; nobody below the operator gets anything done by them."""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A server whose five accounts are named as their roles; it looks at an account again after a second."""
    airflow_port, mlflow_port, scoring_port = free_ports(3)
    stack = StackSettings(airflow_port=airflow_port, mlflow_port=mlflow_port, scoring_port=scoring_port, login="fab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__FAB__CACHE_TTL", "1")
        with start_airflow(Settings(home=tmp_path_factory.mktemp("roles_home"), stack=stack)) as server:
            yield server


@pytest.fixture(scope="module")
def order(airflow: Airflow) -> Iterator[Callable[..., dict[str, Any]]]:
    """Gives orders to the process that `stack users` starts, all to the same one, beside the running server."""
    environ = full_environment(airflow.settings, read_credentials(airflow.settings))
    command = [sys.executable, "-m", "mlops_tasks.operators.accounts"]
    with (airflow.settings.home / "accounts.log").open("w") as log:
        child = subprocess.Popen(
            command, env=environ, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )

    def send(verb: str, **more: str) -> dict[str, Any]:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(json.dumps({"verb": verb, **more}) + "\n")
        child.stdin.flush()
        line = next(line for line in child.stdout if line.startswith(('{"accounts"', '{"error"')))
        answer: dict[str, Any] = json.loads(line)
        return answer

    yield send
    child.communicate()


def test_the_commands_of_the_page_about_users(
    airflow: Airflow,
    order: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """docs/users.md, one after the other: who was added logs in with the password that is shown, until removed.

    `list` starts its own process with Airflow in it, the others' orders go to the one that runs already.
    """
    start = Desk._order

    def send(desk: Desk, verb: str, name: str = "", **more: str) -> list[Account]:
        if verb == "list":
            return start(desk, verb)
        return [Account(**row) for row in order(verb, name=name, **more)["accounts"]]

    monkeypatch.setattr(Desk, "_order", send)
    monkeypatch.setenv("MLOPS_HOME", str(airflow.settings.home))
    monkeypatch.setenv("MLOPS_STACK__LOGIN", "fab")
    said = {}
    for command in commands_of("docs/users.md"):
        if command.text.startswith("alphaops users "):
            words = command.text.split()[1:]
            assert main(words) == 0
            said[words[1]] = capsys.readouterr().out
            if words[1] == "password":
                login = {"username": "ann", "password": said["password"].splitlines()[0]}
                assert httpx.post(f"{airflow.url}/auth/token", json=login, timeout=60).status_code == 201
    assert list(said) == ["add", "list", "role", "password", "remove"]
    assert said["add"].splitlines()[0] != said["password"].splitlines()[0]
    assert re.search(r"^ann +researcher$", said["list"], re.MULTILINE)


@pytest.mark.parametrize("role", list(Role))
def test_a_role_may_do_what_the_table_says_and_nothing_else(airflow: Airflow, role: Role) -> None:
    """Each request is refused exactly where its right is not the role's."""
    with airflow.client(role.value) as client:
        answers = {(attempt.right.name, attempt.method, attempt.path): _status(client, attempt) for attempt in ATTEMPTS}
    expected = {
        (attempt.right.name, attempt.method, attempt.path): attempt.right in RIGHTS[role] for attempt in ATTEMPTS
    }
    assert {request: status not in REFUSED for request, status in answers.items()} == expected
    assert all(status < 500 for status in answers.values()), answers


@pytest.mark.parametrize("role", list(Role))
def test_a_role_reaches_the_routes_whose_right_it_has(airflow: Airflow, role: Role) -> None:
    """Made from the OpenAPI document, which has every route of the API: one that names no right fails here."""
    with airflow.client(role.value) as client:
        attempts = _documented(client.get(f"{API}/openapi.json").json())
        answers = {(attempt.method, attempt.path): _status(client, attempt) for attempt in attempts}
    assert len(attempts) >= 20
    refused = {request for request, status in answers.items() if status in REFUSED}
    expected = {(each.method, each.path) for each in attempts if each.right not in RIGHTS[role]}
    assert refused == expected


def test_the_document_has_every_route(airflow: Airflow) -> None:
    """But the streams, which no OpenAPI document can describe, and the document itself."""
    with airflow.client("viewer") as viewer:
        paths = viewer.get(f"{API}/openapi.json").json()["paths"]
    documented = {(method.upper(), API + path) for path, operations in paths.items() for method in operations}
    served = {(method, path) for method, path in airflow.routes if path.startswith(API)}
    assert {each for each in served if each[0] != "APIWebSocketRoute"} - documented == {("GET", f"{API}/openapi.json")}


@pytest.mark.parametrize("role", [Role.VIEWER, Role.TRADER, Role.RESEARCHER])
def test_no_detour_around_a_dags_name(airflow: Airflow, role: Role) -> None:
    """Requests for no DAG, for several, or for what a task has told the next one."""
    with airflow.client(role.value) as client:
        answers = {attempt.path: _status(client, attempt) for attempt in BEYOND}
    assert {path: status for path, status in answers.items() if status not in {*REFUSED, 404, 422}} == {}


def test_a_person_logs_in_by_the_form_and_manages_no_account(airflow: Airflow) -> None:
    """The form gives the cookie of the pages; with a viewer's, the pages of accounts and roles open nothing."""
    with airflow.client(None) as browser:
        assert _log_in(browser, "viewer", "viewer").status_code == 302
        assert "_token" in browser.cookies
        headers = {"Origin": airflow.url}
        assert browser.get("/mlops/v1/models", headers=headers).status_code == 200
        assert browser.post("/mlops/v1/training/runs/none/pause", headers=headers).status_code == 403
        for page in ("users/list/", "users/add", "roles/list/", "roles/edit/1", "permissions/list/"):
            answer = browser.get(f"/auth/{page}")
            assert answer.status_code in {403, 404} or "/login" in answer.headers["location"], page


def test_guesses_of_a_password_are_slowed_down(airflow: Airflow) -> None:
    """After a handful the form refuses to look at another one."""
    with airflow.client(None) as stranger:
        statuses = [_log_in(stranger, "admin", f"guess {number}").status_code for number in range(8)]
    assert statuses[-1] == 429, statuses


def test_a_second_start_removes_no_account(
    airflow: Airflow, order: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `make up` does to accounts leaves those of others, with their roles and passwords."""
    assert "error" not in order("add", name="ann", role="trader", password="ann")
    before = order("list")["accounts"]
    prepared = []

    def send(desk: Desk, verb: str, name: str = "", **more: str) -> list[Account]:
        prepared.append((verb, name))
        return [Account(**row) for row in order(verb, name=name, **more)["accounts"]]

    monkeypatch.setattr(Desk, "_order", send)
    made = read_credentials(airflow.settings)
    migrate_databases(airflow.settings, dataclasses.replace(made, airflow_password="admin"), Progress())
    assert prepared == [("prepare", "admin")]
    assert order("list")["accounts"] == before
    assert {"name": "ann", "role": "trader"} in before
    assert {"name": "admin", "role": "admin"} in before
    with airflow.client("ann") as ann:
        assert ann.get("/api/v2/dags").status_code == 200
        assert ann.get("/api/v2/connections").status_code == 403


def test_a_start_takes_back_what_the_table_does_not_give(
    airflow: Airflow, order: Callable[..., dict[str, Any]]
) -> None:
    """A permission that a role was given by hand, or by an older table, is gone, and one that it lacks is back."""

    def held(role: Role) -> set[tuple[str, str]]:
        return {(action, resource) for action, resource in _rows(airflow, HELD, role.value)}

    assert _rows(airflow, GIVE, "viewer", "can_read", "Connections") == []
    assert _rows(airflow, TAKE, "trader", "can_edit", "HITL Detail") == []
    assert ("can_read", "Connections") in held(Role.VIEWER) and ("can_edit", "HITL Detail") not in held(Role.TRADER)
    order("prepare", name="admin", password="admin")
    for role in set(Role) - {Role.ADMIN}:
        assert held(role) == permissions(role)


_PERMISSION = (
    "SELECT {column} FROM ab_permission_view pv JOIN ab_permission p ON p.id = pv.permission_id "
    "JOIN ab_view_menu v ON v.id = pv.view_menu_id"
)
HELD = (
    f"{_PERMISSION.format(column='p.name, v.name')} JOIN ab_permission_view_role g ON g.permission_view_id = pv.id "
    "JOIN ab_role r ON r.id = g.role_id WHERE r.name = ?"
)
_NAMED = f"({_PERMISSION.format(column='pv.id')} WHERE p.name = ? AND v.name = ?)"
_ROLE = "(SELECT id FROM ab_role WHERE name = ?)"
GIVE = f"INSERT INTO ab_permission_view_role (role_id, permission_view_id) VALUES ({_ROLE}, {_NAMED})"
TAKE = f"DELETE FROM ab_permission_view_role WHERE role_id = {_ROLE} AND permission_view_id = {_NAMED}"


def _rows(airflow: Airflow, statement: str, *values: str) -> list[tuple[Any, ...]]:
    """What a statement finds in Airflow's database, where it does what it says."""
    with closing(sqlite3.connect(airflow.settings.home / "airflow" / "airflow.db", timeout=30)) as database, database:
        return database.execute(statement, values).fetchall()


def test_a_removed_account_is_out_whoever_comes_next(airflow: Airflow, order: Callable[..., dict[str, Any]]) -> None:
    """Its token opens nothing more, not even when the next account could have got its number."""
    order("add", name="bob", role="viewer", password="bob")
    with airflow.client("bob") as bob:
        assert bob.get("/api/v2/dags").status_code == 200
        order("remove", name="bob")
        order("add", name="eve", role="admin", password="eve")
        time.sleep(1.1)
        assert bob.get("/api/v2/dags").status_code in REFUSED
    assert "bob" not in {account["name"] for account in order("list")["accounts"]}
    assert _token_status(airflow, "bob", "bob") == 401
    assert "error" not in order("add", name="bob", role="viewer", password="new")
    assert (_token_status(airflow, "bob", "bob"), _token_status(airflow, "bob", "new")) == (401, 201)


def test_a_role_that_is_taken_away_is_gone(airflow: Airflow, order: Callable[..., dict[str, Any]]) -> None:
    """With the token from before, too."""
    order("add", name="joe", role="admin", password="joe")
    with airflow.client("joe") as joe:
        assert joe.get("/api/v2/connections").status_code == 200
        order("role", name="joe", role="researcher")
        time.sleep(1.1)
        assert joe.get("/api/v2/connections").status_code == 403


def test_an_order_that_cannot_be_says_why(order: Callable[..., dict[str, Any]]) -> None:
    """No second account of a name, and none changed that is not there."""
    assert "viewer already" in order("add", name="viewer", role="admin", password="x")["error"]
    assert "no account nobody" in order("role", name="nobody", role="admin")["error"]


def test_the_documented_table_is_the_one_in_force() -> None:
    """Row by row and role by role."""
    lines = (PROJECT / "docs" / "users.md").read_text().splitlines()
    start = lines.index(_row("what", (role.value for role in Role))) + 2
    expected = [_row(right.value, ("yes" if right in RIGHTS[role] else "" for role in Role)) for right in Right]
    assert lines[start : start + len(expected)] == expected
    assert lines[start + len(expected)] == ""


def _row(first: str, cells: Iterable[str]) -> str:
    return " ".join(f"| {cell}".rstrip() for cell in (first, *cells)) + " |"


def _documented(document: dict[str, Any]) -> list[Attempt]:
    """A request to each operation of an OpenAPI document. What it names does not exist, and its body lacks all fields,
    so that whoever has the right is told that, and nothing happens."""
    return [
        Attempt(Right[operation["x-right"].upper()], method.upper(), API + _named(path, operation), {"none": None})
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]


def _named(path: str, operation: dict[str, Any]) -> str:
    """The path with a name for each parameter that its schema allows."""
    schemas = {each["name"]: each["schema"] for each in operation.get("parameters", []) if each["in"] == "path"}
    names = {
        name: schema["enum"][0] if "enum" in schema else "1" if schema.get("type") == "integer" else "none"
        for name, schema in schemas.items()
    }
    return path.format(**names)


def _status(client: httpx.Client, attempt: Attempt) -> int:
    return client.request(attempt.method, attempt.path, json=attempt.body or None).status_code


def _token_status(airflow: Airflow, name: str, password: str) -> int:
    return httpx.post(f"{airflow.url}/auth/token", json={"username": name, "password": password}).status_code


def _log_in(browser: httpx.Client, name: str, password: str) -> httpx.Response:
    page = browser.get("/auth/login/").text
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
    form = {"username": name, "password": password, "csrf_token": token.group(1) if token else ""}
    return browser.post("/auth/login/", data=form, headers={"Referer": str(browser.base_url)})
