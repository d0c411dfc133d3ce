"""People look at MLflow with an account that changes nothing: the server as `make up` starts it, every route it has."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from mlops_tasks.authorities import trusted_authorities
from mlops_tasks.config import PROJECT, Settings, StackSettings
from mlops_tasks.errors import RegistryError
from mlops_tasks.registry.lifecycle import ModelLifecycleManager
from mlops_tasks.registry.models import load_version, set_alias
from mlops_tasks.registry.runs import log_run
from mlops_tasks.stack.credentials import ADMIN, MLFLOW_READER, Credentials, ensure_credentials
from mlops_tasks.stack.mlflow_reader import ensure_reader
from mlops_tasks.stack.services import MLFLOW, SCORING, service_named
from tests.operation import free_ports
from tests.registry.trainings import Spec, make_training

API = "/api/2.0/mlflow"
AJAX = "/ajax-api/2.0/mlflow"


def routes() -> list[tuple[str, str]]:
    """Method and path of everything that the server answers, with something in place of each parameter."""
    from mlflow.server import app
    from mlflow.server.auth import routes as auth_routes
    from mlflow.server.fastapi_app import create_fastapi_app

    found = {(method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods or ()}
    for route in create_fastapi_app(app).routes:
        found |= {(method, route.path) for method in getattr(route, "methods", None) or ()}
    paths = {path for path in vars(auth_routes).values() if isinstance(path, str) and path.startswith("/")}
    found |= {(method, path) for path in paths for method in ("GET", "POST", "PATCH", "DELETE")}
    shown = {(method, re.sub(r"<[^>]+>|\{[^}]+\}", "1", path)) for method, path in found}
    return sorted((m, p) for m, p in shown if m != "OPTIONS" and not p.startswith(("/static", "/health", "/favicon")))


PUBLIC = re.compile(r".*/server-info|/(docs|redoc|openapi\.json).*")
"""Answered to anybody, or not there."""
LOOKS = re.compile(
    r"/graphql|/|/version|/get-artifact|/model-versions/get-artifact|.*/mlflow-artifacts/artifacts.*|.*/mlflow/"
    r"(experiments|runs|artifacts|metrics|logged-models|registered-models|model-versions|datasets|traces|unified-traces"
    r"|get-(online-)?trace-(artifact|details)|scorers|label-schemas|users/current|ui-telemetry|server-info)(/.*)?"
)
CHANGES = re.compile(
    r".*/(create[^/]*|delete[^/]*|update[^/]*|set[^/]*|log[^/]*|restore|rename|upload[^/]*|finalize|transition[^/]*|"
    r"register|link[^/]*|add[^/]*|remove[^/]*|invoke|grant|revoke|assign|unassign|presigned.*|mpu.*)"
)


def test_no_route_that_changes_counts_as_a_look() -> None:
    """Of all routes of this MLflow only reads are let through, also those that other versions may add."""
    from mlops_tasks.registry.mlflow_access import is_look

    let = [(method, path) for method, path in routes() if is_look(method, path)]
    assert len(let) > 60
    for method, path in let:
        assert method in ("GET", "HEAD", "POST") and LOOKS.fullmatch(path), (method, path)
        assert method != "POST" or re.search(r"search|get-latest-versions|batchGetInfos|graphql", path), path
        assert method != "POST" or not CHANGES.fullmatch(path), path
    for path in ("/users/list", "/users/get", "/users/permissions/list", "/roles/list", "/gateway/secrets/list"):
        assert not is_look("GET", f"/ajax-api/3.0/mlflow{path}") and not is_look("GET", f"{API}{path}")
    for method in ("PUT", "PATCH", "DELETE", "POST"):
        assert not is_look(method, "/api/2.0/mlflow-artifacts/artifacts/0/a/model.pkl")
    assert not is_look("POST", "/ajax-api/3.0/mlflow/assistant/message")
    assert not is_look("GET", "/ajax-api/3.0/mlflow/assistant/config")


@dataclass(frozen=True)
class Server:
    """A running MLflow with both accounts."""

    settings: Settings
    credentials: Credentials
    url: str

    def client(self, user: str, password: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, auth=(user, password), timeout=60, verify=trusted_authorities())

    @property
    def reader(self) -> httpx.Client:
        return self.client(MLFLOW_READER, self.credentials.mlflow_reader_password)

    @property
    def writer(self) -> httpx.Client:
        return self.client(ADMIN, self.credentials.mlflow_password)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service as the stack describes it: command, environment and configuration; with a model in it."""
    airflow, mlflow, scoring = free_ports(3)
    home = tmp_path_factory.mktemp("home")
    ports = StackSettings(airflow_port=airflow, mlflow_port=mlflow, scoring_port=scoring)
    settings = Settings(home=home, stack=ports)
    (home / "mlflow").mkdir()
    credentials, service = ensure_credentials(settings), service_named(MLFLOW, settings)
    environment = {**service.environment(settings, credentials), "PYTHONPATH": str(PROJECT)}
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            service.command, env=environment, cwd=PROJECT, stdout=log, stderr=log, start_new_session=True
        )
    made = Server(settings, credentials, f"http://127.0.0.1:{mlflow}")
    try:
        _wait_until_healthy(made.url, home / "server.log")
        with made.writer as writer:
            _fill(writer)
        ensure_reader(settings, credentials)
        yield made
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _fill(writer: httpx.Client) -> None:
    """A run with a file, and a version that is the champion."""
    run = writer.post(f"{API}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]
    source = f"{run['artifact_uri']}/m"
    stored = writer.put(f"/api/2.0/mlflow-artifacts/artifacts/0/{run['run_id']}/artifacts/m/model.json", content=b"{}")
    assert stored.status_code == 200
    for path, body in (
        ("registered-models/create", {"name": "alphaops"}),
        ("model-versions/create", {"name": "alphaops", "source": source, "run_id": run["run_id"]}),
        ("registered-models/alias", {"name": "alphaops", "alias": "champion", "version": "1"}),
    ):
        answer = writer.post(f"{API}/{path}", json=body)
        assert answer.status_code == 200, answer.text


def _wait_until_healthy(url: str, log: Path) -> None:
    until = time.monotonic() + 180
    while True:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)


def content(server: Server) -> list[object]:
    """What somebody with a right to look sees: runs, versions, aliases, tags, experiments, files, users."""
    with server.writer as writer:
        asked = [
            writer.post(f"{API}/runs/search", json={"experiment_ids": ["0"]}),
            writer.get(f"{API}/registered-models/search"),
            writer.get(f"{API}/model-versions/search"),
            writer.get(f"{API}/experiments/search", params={"max_results": 100}),
            writer.get("/api/2.0/mlflow-artifacts/artifacts", params={"path": "0"}),
            writer.get(f"{API}/users/list"),
        ]
        assert {answer.status_code for answer in asked} == {200}
        return [answer.json() for answer in asked]


def test_the_reader_sees_runs_versions_and_files(server: Server) -> None:
    """What a person opens MLflow for works, by REST, by the pages' own routes and by GraphQL."""
    with server.reader as reader:
        assert reader.get("/").status_code == 200
        for api in (API, AJAX):
            assert len(reader.post(f"{api}/runs/search", json={"experiment_ids": ["0"]}).json()["runs"]) == 1
            found = reader.get(f"{api}/registered-models/get", params={"name": "alphaops"}).json()
            assert found["registered_model"]["aliases"] == [{"alias": "champion", "version": "1"}]
        run_id = reader.post(f"{API}/runs/search", json={"experiment_ids": ["0"]}).json()["runs"][0]["info"]["run_id"]
        file = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/m/model.json"
        assert reader.get(file).text == "{}"
        query = {"query": f'{{ mlflowGetRun(input: {{runId: "{run_id}"}}) {{ run {{ info {{ runId }} }} }} }}'}
        assert reader.post("/graphql", json=query).json()["data"]["mlflowGetRun"]["run"]["info"]["runId"] == run_id


def test_the_readers_login_is_enough_to_load_a_model(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the scoring service does, whose environment has no other; to log one it is not."""
    settings = server.settings.model_copy(update={"mlflow_tracking_uri": server.url})
    make_training(settings, Spec(model="linear"))
    scoring = service_named(SCORING, settings).environment(settings, server.credentials)
    login = {
        "MLFLOW_TRACKING_USERNAME": scoring["MLFLOW_TRACKING_USERNAME"],
        "MLFLOW_TRACKING_PASSWORD": scoring["MLFLOW_TRACKING_PASSWORD"],
    }
    writer = {"MLFLOW_TRACKING_USERNAME": ADMIN, "MLFLOW_TRACKING_PASSWORD": server.credentials.mlflow_password}
    for name, value in login.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RegistryError, match="403"):
        log_run(settings, Spec().key)
    for name, value in writer.items():
        monkeypatch.setenv(name, value)
    version = ModelLifecycleManager(settings).challenge(Spec().key, log_run(settings, Spec().key))
    for name, value in login.items():
        monkeypatch.setenv(name, value)
    assert load_version(settings, version).training_key == Spec().key
    with pytest.raises(RegistryError, match="403"):
        set_alias(settings, "champion", version)


def test_no_route_of_the_server_lets_the_reader_change_anything(server: Server) -> None:
    """Every route by every method: what is no look is refused, and afterwards all is as it was."""
    from mlops_tasks.registry.mlflow_access import is_look

    before = content(server)
    body = {
        **{"name": "alphaops", "version": "1", "alias": "champion", "key": "digest", "value": "f" * 64},
        **{"experiment_id": "0", "username": MLFLOW_READER, "password": "another password", "is_admin": True},
        **{"source": "mlflow-artifacts:/0/m", "permission": "MANAGE"},
    }
    let = []
    with server.reader as reader:
        for method, path in routes():
            if is_look(method, path) or PUBLIC.fullmatch(path):
                continue
            answer = reader.request(method, path, json=body)
            if answer.status_code not in (403, 404, 405):
                let.append((method, path, answer.status_code))
        for path in ("artifacts/0/m/model.json", "mpu/create/0/m", "presigned/0/m"):
            assert reader.put(f"/api/2.0/mlflow-artifacts/{path}", content=b"x").status_code in (403, 405)
        upload = reader.post(f"{AJAX}/upload-artifact", params={"run_uuid": "1", "path": "a"}, content=b"x")
        assert upload.status_code == 403
    assert let == []
    assert content(server) == before


def test_the_reader_sees_nothing_of_other_accounts_or_of_the_machine(server: Server) -> None:
    """Users, roles and passwords are nobody's but the writer's; no artifact path leads out of the artifacts."""
    with server.reader as reader:
        for path in ("users/list", f"users/get?username={ADMIN}", f"users/permissions/list?username={ADMIN}"):
            for api in (API, AJAX, "/api/3.0/mlflow", "/ajax-api/3.0/mlflow"):
                assert reader.get(f"{api}/{path}").status_code in (403, 404)
        mine = reader.get(f"{API}/users/current").json()["user"]
        assert (mine["username"], mine["is_admin"]) == (MLFLOW_READER, False)
        for outside in ("../auth.db", "..%2fauth.db", "%2e%2e/auth.db", "..%252fauth.db", "/etc/passwd"):
            for path in (f"/api/2.0/mlflow-artifacts/artifacts/{outside}", f"/get-artifact?path={outside}&run_uuid=1"):
                answer = reader.get(path)
                assert answer.status_code >= 400, (path, answer.text[:100])
        mutation = {"query": 'mutation { createRun(input: {experimentId: "0"}) { run { info { runId } } } }'}
        assert "errors" in reader.post("/graphql", json=mutation).json()


def test_nobody_enters_without_a_password(server: Server) -> None:
    """No account, a wrong password, another's password: 401 everywhere."""
    for auth in (None, (MLFLOW_READER, "wrong"), (MLFLOW_READER, server.credentials.mlflow_password), ("x", "y")):
        with httpx.Client(base_url=server.url, auth=auth) as client:
            assert client.get(f"{API}/registered-models/search").status_code == 401
            assert client.put("/api/2.0/mlflow-artifacts/artifacts/0/m/a", content=b"x").status_code == 401


def test_an_account_that_somebody_made_looks_too_and_making_the_readers_again_mends_it(server: Server) -> None:
    """The reader's account is the same at each start: its password, and no rights of an admin."""
    with server.writer as writer:
        login = {"username": "alice", "password": "password of alice"}
        assert writer.post(f"{API}/users/create", json=login).status_code == 200
        with server.client("alice", "password of alice") as alice:
            assert alice.get(f"{API}/registered-models/search").status_code == 200
            assert alice.post(f"{API}/experiments/create", json={"name": "mine"}).status_code == 403
        for change in (
            ("update-admin", {"username": MLFLOW_READER, "is_admin": True}),
            ("update-password", {"username": MLFLOW_READER, "password": "something else!"}),
        ):
            assert writer.patch(f"{API}/users/{change[0]}", json=change[1]).status_code == 200
    for _ in range(2):
        ensure_reader(server.settings, server.credentials)
    with server.reader as reader:
        assert reader.get(f"{API}/users/current").json()["user"]["is_admin"] is False
        assert reader.post(f"{API}/experiments/create", json={"name": "mine"}).status_code == 403
    with server.client("alice", "password of alice") as alice:
        assert alice.get(f"{API}/users/current").status_code == 200
