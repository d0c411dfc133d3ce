"""The API inside a real Airflow API server: who may ask, what is answered, what is refused."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mlops_tasks.modeling.model_zoo.description import memory_estimate
from mlops_tasks.modeling.model_zoo.zoo import OWN_FILE, model_zoo
from mlops_tasks.state.training_runs import training_commands
from mlops_tasks.training.events import read_events, run_progress
from tests.plugins.api_server import Airflow
from tests.plugins.runs import Runs

API = "/mlops/v1"


def test_no_route_answers_a_stranger(airflow: Airflow, runs: Runs) -> None:
    """Whatever the route, its method and its path, which exists: 401 or 403 without a token, and with a wrong one."""
    run_id = runs.finished().run_id
    plain = [(method, path) for method, path in airflow.routes if method != "APIWebSocketRoute"]
    assert len(plain) >= 10
    names = {"name": "linear", "run_id": run_id, "command": "pause", "kind": "drift", "file": "report.json"}
    names |= {"training_key": "0123456789abcdef", "version": "1"}
    with airflow.client(None) as stranger:
        for headers in ({}, {"Authorization": "Bearer x.y.z"}, {"Cookie": "_token=x.y.z"}):
            for method, path in plain:
                answer = stranger.request(method, path.format(**names), headers=headers)
                assert answer.status_code in (401, 403), (method, path, headers)


def test_a_viewer_sees_and_commands_nothing(airflow: Airflow, runs: Runs) -> None:
    """The rights on runs of daily_retraining are those on trainings; nothing of a refused command is recorded."""
    run_id = runs.open().run_id
    with airflow.client("viewer") as viewer:
        assert viewer.get(f"{API}/training/runs/{run_id}").status_code == 200
        assert viewer.post(f"{API}/training/runs/{run_id}/cancel").status_code == 403
        assert 'id="commands"' not in viewer.get(f"/mlops/ui/training/{run_id}").text
    assert training_commands(airflow.settings, run_id) == []


def test_a_write_is_in_the_audit_log(airflow: Airflow, runs: Runs) -> None:
    """With its author, path and body, whatever comes of it; what only reads, or is refused to the user, is not."""
    run_id = runs.open().run_id
    with airflow.client("viewer") as viewer, airflow.client("admin") as admin:
        viewer.post(f"{API}/training/runs/{run_id}/cancel")
        admin.get(f"{API}/training/runs/{run_id}")
        silence = {"kind": "audit\0", "subject": "s" * 5000, "hours": "none", "reason": "x"}
        assert admin.post(f"{API}/alerts/silence", json=silence).status_code == 422
        assert admin.post(f"{API}/training/runs/{run_id}/pause").status_code == 202
        logged = admin.get("/api/v2/eventLogs", params={"order_by": "-event_log_id", "limit": 2}).json()["event_logs"]
    paused, refused = (each | json.loads(each["extra"]) for each in logged)
    assert (paused["owner"], paused["event"], paused["method"]) == ("admin", "mlops.command", "POST")
    assert paused["path"].endswith(f"{API}/training/runs/{run_id}/pause")
    assert refused["event"] == "mlops.silence_alert" and refused["body"].startswith('{"kind":"audit')
    assert len(refused["body"]) == 2000


def test_a_refusal_is_a_problem_in_the_standard_form(airflow: Airflow) -> None:
    """RFC 9457: for what is not there, not allowed, not valid, and not a route at all."""
    asked = {"training/runs/none": 404, "training/runs?limit=0": 422, "none": 404}
    with airflow.client("viewer") as viewer, airflow.client(None) as stranger:
        answers = {status: viewer.get(f"{API}/{path}") for path, status in asked.items()}
        answers |= {401: stranger.get(f"{API}/models"), 403: viewer.post(f"{API}/alerts/resolve", json={})}
    for status, answer in answers.items():
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
        assert answer.json().keys() == {"type", "title", "status", "detail"} and answer.json()["status"] == status


def test_a_command_is_recorded_under_the_users_name(airflow: Airflow, runs: Runs) -> None:
    """Pause, resume and cancel, in the order in which they were asked; no other command is known."""
    run_id = runs.open().run_id
    with airflow.client("admin") as admin:
        for command in ("pause", "resume", "cancel"):
            answer = admin.post(f"{API}/training/runs/{run_id}/{command}")
            assert (answer.status_code, answer.json()["asked_by"]) == (202, "admin")
        assert admin.post(f"{API}/training/runs/{run_id}/delete").status_code == 422
    rows = training_commands(airflow.settings, run_id)
    assert [(row.command, row.asked_by) for row in rows] == [(name, "admin") for name in ("pause", "resume", "cancel")]


def test_a_foreign_page_commands_nothing_with_the_users_cookie(airflow: Airflow, runs: Runs) -> None:
    """The cookie counts with this server's own Origin alone; MLflow's page on another port is a foreign one."""
    run_id = runs.open().run_id
    cookie = {"Cookie": f"_token={airflow.token('admin')}"}
    origins = {airflow.url: 202, f"http://127.0.0.1:{airflow.settings.stack.mlflow_port}": 403, "null": 403, "": 403}
    with airflow.client(None) as browser:
        for origin, status in origins.items():
            headers = {**cookie, **({"Origin": origin} if origin else {})}
            assert browser.post(f"{API}/training/runs/{run_id}/pause", headers=headers).status_code == status, origin
    assert len(training_commands(airflow.settings, run_id)) == 1


def test_models_are_those_of_the_zoo(airflow: Airflow) -> None:
    """In its order, with the texts of the files; each one's defaults and nothing unknown fit its schema."""
    zoo = model_zoo(airflow.settings)
    with airflow.client("viewer") as viewer:
        listed = viewer.get(f"{API}/models").json()["models"]
        details = {name: viewer.get(f"{API}/models/{name}").json() for name in zoo}
    assert [(model["name"], model["description"], model["recommended_for"]) for model in listed] == [
        (name, entry.description, list(entry.recommended_for)) for name, entry in zoo.items()
    ]
    for name, entry in zoo.items():
        validator = Draft202012Validator(details[name]["json_schema"])
        assert details[name]["defaults"] == entry.defaults()
        assert validator.is_valid(entry.defaults())
        assert not validator.is_valid({**entry.defaults(), "no_such": 1})
        advanced = [each for each, schema in entry.hyperparameters.items() if schema.get("advanced")]
        assert details[name]["advanced"] == advanced
        assert details[name]["memory"] is None


def test_a_models_memory_is_its_familys_own_estimate(airflow: Airflow) -> None:
    """Asked in a process of its own, since families are heavy; nonsense is refused before."""
    with airflow.client("viewer") as viewer:
        asked = viewer.get(f"{API}/models/lightgbm", params={"rows": 500_000, "features": 158}).json()["memory"]
        assert viewer.get(f"{API}/models/lightgbm", params={"rows": 0, "features": 158}).status_code == 422
    expected = memory_estimate(airflow.settings, "lightgbm", 500_000, 158)
    assert asked == {"rows": 500_000, "features": 158, "bytes": expected}


def test_a_wrong_entry_of_the_users_own_is_named_with_its_remedy(airflow: Airflow) -> None:
    """It spoils no other model, and the page shows it, escaped."""
    path = airflow.settings.home / OWN_FILE
    path.write_text("mine: {family: <b>none</b>}\n")
    try:
        with airflow.client("viewer") as viewer:
            (wrong,) = viewer.get(f"{API}/models").json()["wrong"]
            assert (wrong["name"], str(path) in wrong["error"]) == ("mine", True)
            assert viewer.get(f"{API}/models/mine").status_code == 409
            page = viewer.get("/mlops/ui/zoo").text
    finally:
        path.unlink()
    assert '<section class="card wrong">' in page
    assert "<b>none" not in page


@pytest.mark.parametrize("path", ["models/none", "training/runs/none", "training/runs/none/events"])
def test_what_is_not_there_is_a_404_that_says_so(airflow: Airflow, path: str) -> None:
    """With the name in the answer."""
    with airflow.client("admin") as admin:
        answer = admin.get(f"{API}/{path}")
    assert answer.status_code == 404
    assert "'none'" in answer.json()["detail"]


def test_a_command_to_no_run_or_to_one_that_has_ended_is_refused(airflow: Airflow, runs: Runs) -> None:
    """404 and 409, with the reason."""
    with airflow.client("admin") as admin:
        assert admin.post(f"{API}/training/runs/none/pause").status_code == 404
        answer = admin.post(f"{API}/training/runs/{runs.finished().run_id}/pause")
    assert answer.status_code == 409
    assert "has ended (finished)" in answer.json()["detail"]


def test_runs_are_listed_the_newest_first_as_their_events_show_them(airflow: Airflow, runs: Runs) -> None:
    """The same progress as the library's own."""
    ended, opened = runs.finished("linear"), runs.open("gru")
    opened.iterate(1, 10)
    with airflow.client("viewer") as viewer:
        listed = viewer.get(f"{API}/training/runs", params={"limit": 2}).json()["runs"]
        shown = viewer.get(f"{API}/training/runs/{opened.run_id}").json()
    assert [run["run_id"] for run in listed] == [opened.run_id, ended.run_id]
    assert [run["state"] for run in listed] == ["running", "finished"]
    assert shown == listed[0]
    expected = run_progress(airflow.settings, opened.run_id).to_json()
    assert {**shown, "at": None} == {**expected, "at": None}


def test_events_from_any_sequence_number_are_those_of_the_database(airflow: Airflow, runs: Runs) -> None:
    """In order, without a gap; in pages of any size they are the same, and the last page says that it is the last."""
    run_id = runs.finished().run_id
    rows = [(row.sequence, row.kind, dict(row.payload)) for row in read_events(airflow.settings, run_id)]
    with airflow.client("viewer") as viewer:

        def page(**query: int) -> dict[str, Any]:
            found: dict[str, Any] = viewer.get(f"{API}/training/runs/{run_id}/events", params=query).json()
            return found

        for after in range(len(rows) + 2):
            events = page(after=after)["events"]
            assert [(each["sequence"], each["kind"], each["payload"]) for each in events] == rows[after:]
        pages = [page(limit=7)]
        while not pages[-1]["ended"]:
            pages.append(page(after=pages[-1]["next_after"], limit=7))
    assert [each["sequence"] for part in pages for each in part["events"]] == [row[0] for row in rows]


def test_no_question_and_no_answer_is_without_end(airflow: Airflow, runs: Runs) -> None:
    """A page has so many rows, a form's text so many characters; nothing is kept on the way, or taken for a page."""
    pages = {"training/runs": 200, f"training/runs/{runs.finished().run_id}/events": 10_000, "alerts/events": 1000}
    with airflow.client("viewer") as viewer:
        for path, most in pages.items():
            answers = [viewer.get(f"{API}/{path}", params={"limit": limit}) for limit in (most, most + 1, 0)]
            assert [answer.status_code for answer in answers] == [200, 422, 422], path
            assert answers[0].headers["Cache-Control"] == "no-store"
            assert answers[0].headers["X-Content-Type-Options"] == "nosniff"
        for field in ("hyperparameters", "stopping"):
            answers = [viewer.post(f"{API}/overrides", json={field: " " * length}) for length in (100_000, 100_001)]
            assert [answer.status_code for answer in answers] == [200, 422], field


def test_the_openapi_document_types_every_answer(airflow: Airflow) -> None:
    """Each route's answer is a named model, and the document says where it is served."""
    with airflow.client("viewer") as viewer:
        document = viewer.get(f"{API}/openapi.json").json()
    assert document["servers"] == [{"url": API}]
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) == 23
    for operation in operations:
        (good,) = [answer for code, answer in operation["responses"].items() if code.startswith("2")]
        assert good["content"]["application/json"]["schema"]["$ref"].startswith("#/components/schemas/")


TYPED = {
    "hyperparameters": "lightgbm.num_leaves=31\nlightgbm.learning_rate=0.05\nlightgbm.num_boost_round=50\n"
    "linear.estimator=ridge",
    "stopping": "lightgbm.patience=30",
}
"""Basic and advanced hyper-parameters of several models."""
WRONG = {
    "unknown model": ("hyperparameters", "lihtbm.num_leaves=31", "unknown model 'lihtbm'; did you mean lightgbm"),
    "unknown key": ("hyperparameters", "lightgbm.num_leafs=31", "did you mean num_leaves?"),
    "wrong type": ("hyperparameters", "lightgbm.num_leaves=many", "expected an integer from 2 to 4096, got 'many'"),
    "out of range": ("hyperparameters", "linear.alpha=0\nlightgbm.num_leaves=1", "lightgbm.num_leaves: expected"),
    "no word of the list": ("hyperparameters", "linear.estimator=elastic", "expected one of"),
    "no line": ("hyperparameters", "num_leaves 31", "line 1: expected model.name=value"),
    "stopping out of range": ("stopping", "lightgbm.patience=0", "lightgbm.patience: "),
}


def test_overrides_are_read_as_they_will_be(airflow: Airflow) -> None:
    """Numbers as numbers, by model."""
    with airflow.client("viewer") as viewer:
        answer = viewer.post(f"{API}/overrides", json=TYPED)
    assert answer.status_code == 200, answer.text
    lightgbm = {"num_leaves": 31, "learning_rate": 0.05, "num_boost_round": 50}
    assert answer.json() == {
        "hyperparameters": {"lightgbm": lightgbm, "linear": {"estimator": "ridge"}},
        "stopping": {"lightgbm": {"patience": 30}},
    }


@pytest.mark.parametrize("case", WRONG)
def test_wrong_overrides_are_refused_in_a_line(airflow: Airflow, case: str) -> None:
    """It begins with the field, and names what is wrong and the remedy; no schema is shown."""
    field, text, said = WRONG[case]
    with airflow.client("viewer") as viewer:
        answer = viewer.post(f"{API}/overrides", json={field: text})
    assert answer.status_code == 422, answer.text
    detail = answer.json()["detail"]
    assert detail.startswith(field) and said in detail
    assert len(detail) < 300


@pytest.mark.parametrize(
    "conf",
    [
        {"hyperparameters": {"lightgbm": {"num_leaves": 31}}},
        {"models": ["lihtbm"]},
        {"models": []},
        {"horizon": 0},
        {"topk": "5"},
        {"owner": "ann and bob"},
        {"priority": 101},
        {"priority": -101},
    ],
)
def test_airflow_itself_refuses_what_is_of_another_kind(airflow: Airflow, conf: dict[str, Any]) -> None:
    """When the form is sent, with the name of the field, in an answer that a page can show; no run is made."""
    runs_path = "/api/v2/dags/daily_retraining/dagRuns"
    with airflow.client("admin") as admin:
        before = admin.get(runs_path).json()["total_entries"]
        answer = admin.post(runs_path, json={"logical_date": None, "conf": conf})
        assert answer.status_code == 400, answer.text
        assert next(iter(conf)) in answer.text
        assert len(answer.text) < 2000
        assert admin.get(runs_path).json()["total_entries"] == before


def test_airflow_takes_a_form_as_it_was_sent(airflow: Airflow) -> None:
    """The texts are in the run, line by line."""
    conf = {"models": ["lightgbm", "linear"], **TYPED}
    with airflow.client("admin") as admin:
        answer = admin.post("/api/v2/dags/daily_retraining/dagRuns", json={"logical_date": None, "conf": conf})
    assert answer.status_code == 200, answer.text
    assert answer.json()["conf"] == conf
