"""Deployments in the API, in a real Airflow API server: who serves, what would happen, orders that start DAG runs."""

import pytest

from tests.plugins.api_server import Airflow
from tests.plugins.serving import BEFORE, CANDIDATE, CHAMPION, FIRST, PLAIN, WAITING, WITHDRAWN, airflow

__all__ = ["airflow"]

ROUTE = "/mlops/v1/deployments"


def test_who_serves_is_told_with_share_traffic_and_what_is_under_way(airflow: Airflow) -> None:
    """From the state database: neither the scoring service nor MLflow runs here."""
    with airflow.client("viewer") as viewer:
        found = viewer.get(ROUTE).json()
        assert viewer.get(f"{ROUTE}/service").json() == {"answers": False}
    assert found["champion"]["version"] == CHAMPION and found["champion"]["until"] is None
    assert [(each["arm"], each["version"], each["share"]) for each in found["slots"]] == [
        ("champion", CHAMPION, 0.95),
        ("canary", CANDIDATE, 0.05),
    ]
    holding, waiting = found["rollouts"]
    assert (holding["version"], holding["state"], holding["shares"]) == (
        CANDIDATE,
        "holding",
        [0.01, 0.05, 0.25, 0.5, 1],
    )
    assert holding["said"].startswith(f"canary of version {CANDIDATE}, holding until ")
    assert (waiting["version"], waiting["state"], waiting["holds_until"]) == (WAITING, "waiting", None)
    traffic = {(each["version"], each["arm"]): each for each in found["traffic"]}
    assert traffic[CHAMPION, "champion"]["answers"] == 300 and traffic[CANDIDATE, "canary"]["answers"] == 20
    assert traffic[CHAMPION, "champion"]["p99_ms"] == pytest.approx(10, abs=0.1)
    assert (found["last"]["version"], found["last"]["state"]) == (CHAMPION, "serving")


def test_what_was_done_is_told_in_pages(airflow: Airflow) -> None:
    """Steps of deployments, and rollouts with their steps, the newest first."""
    with airflow.client("viewer") as viewer:
        first = viewer.get(f"{ROUTE}/history", params={"size": 2}).json()
        second = viewer.get(f"{ROUTE}/history", params={"size": 2, "page": 2}).json()
        rollouts = viewer.get(f"{ROUTE}/rollouts").json()
        past = viewer.get(f"{ROUTE}/rollouts", params={"page": 1000}).json()
    steps = [(each["version"], each["state"], each["previous"]) for each in first["steps"] + second["steps"]]
    assert steps[:2] == [(CHAMPION, "serving", BEFORE), (CHAMPION, "started", BEFORE)]
    assert first["total"] == second["total"] >= 6
    known = {each["version"]: each for each in rollouts["rollouts"]}
    assert [each["state"] for each in known[CANDIDATE]["steps"]] == ["waiting", "holding", "holding"]
    assert [each["share"] for each in known[CANDIDATE]["steps"]] == [0, 0.01, 0.05]
    assert known[PLAIN]["state"] == "rejected" and "300 requests" in known[PLAIN]["steps"][-1]["reason"]
    assert known[CANDIDATE]["asked_by"] == "ann, approved by bob"
    assert past == {"total": rollouts["total"], "rollouts": []}


def test_a_plan_says_what_would_happen_and_changes_nothing(airflow: Airflow) -> None:
    """By the settings' strategy unless another one is named; a version that may not serve has its objection."""
    with airflow.client("viewer") as viewer:
        before = viewer.get(f"{ROUTE}/history").json()
        wanted = viewer.get(f"{ROUTE}/plan", params={"version": FIRST}).json()
        canary = viewer.get(f"{ROUTE}/plan", params={"version": FIRST, "strategy": "canary"}).json()
        refused = viewer.get(f"{ROUTE}/plan", params={"version": WITHDRAWN}).json()
        assert viewer.get(f"{ROUTE}/plan", params={"version": 99}).status_code == 404
        assert viewer.get(f"{ROUTE}/history").json() == before
    assert (wanted["strategy"], wanted["objections"]) == ("blue_green", [])
    assert f"until the rollout of version {CANDIDATE} is decided" in wanted["steps"][0]
    assert canary["shares"] == [0.01, 0.05, 0.25, 0.5, 1] and "1% of the clients for 24 hours" in canary["steps"]
    assert refused["steps"] == [] and refused["objections"][0].startswith("it may not serve")


ORDERS = [
    ("", {"version": FIRST, "strategy": "canary"}, "deploy_model", {"version": FIRST, "strategy": "canary"}),
    ("/rollback", {"reason": "bad fills"}, "operate_models", {"action": "rollback", "reason": "bad fills"}),
    (
        "/abort",
        {"reason": "not today", "version": CANDIDATE},
        "operate_models",
        {"action": "abort", "reason": "not today", "version": CANDIDATE},
    ),
    ("/step", {}, "operate_models", {"action": "advance"}),
]


@pytest.mark.parametrize(("route", "body", "dag", "conf"), ORDERS)
def test_an_order_starts_a_run_under_the_users_name(
    airflow: Airflow, route: str, body: dict[str, object], dag: str, conf: dict[str, object]
) -> None:
    """202 with the run's id; a viewer is refused, and nothing is changed by the API server itself."""
    with airflow.client("viewer") as viewer, airflow.client("admin") as admin:
        assert viewer.post(ROUTE + route, json=body).status_code == 403
        answer = admin.post(ROUTE + route, json=body)
        assert answer.status_code == 202, answer.text
        started = answer.json()
        run = admin.get(f"/api/v2/dags/{dag}/dagRuns/{started['run_id']}").json()
        assert viewer.get(ROUTE).json()["champion"]["version"] == CHAMPION
    assert (started["dag_id"], run["conf"], run["triggering_user_name"]) == (dag, conf, "admin")


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/rollback", {}),
        ("/rollback", {"reason": "   "}),
        ("/rollback", {"reason": "a\0b"}),
        ("/rollback", {"reason": "x" * 2001}),
        ("/rollback", {"reason": "x", "version": 2**31}),
        ("/rollback", {"reason": "x", "version": 0}),
        ("/abort", {"reason": "x", "version": "many"}),
        ("", {"version": FIRST, "strategy": "big_bang"}),
        ("", {"version": 10**30}),
        ("", {}),
    ],
)
def test_wrong_orders_are_refused(airflow: Airflow, route: str, body: dict[str, object]) -> None:
    """422, with the field's name, before any run is made."""
    with airflow.client("admin") as admin:
        answer = admin.post(ROUTE + route, json=body)
    assert answer.status_code == 422 and answer.json()["detail"].startswith("body.")


def test_an_unknown_version_is_not_deployed(airflow: Airflow) -> None:
    """404."""
    with airflow.client("admin") as admin:
        assert admin.post(ROUTE, json={"version": 99}).status_code == 404
