"""One registered version in the API, and several side by side, inside a real Airflow API server."""

import pytest

from tests.plugins.api_server import Airflow
from tests.plugins.serving import BEFORE, CHAMPION, FIRST, WITHDRAWN, airflow, key_of

__all__ = ["airflow"]

ROUTE = "/mlops/v1/versions"


def test_a_version_is_told_with_all_that_is_known_of_it(airflow: Airflow) -> None:
    """State, who lets it serve, what the gate said; what it was made of; what moves it; its replays."""
    with airflow.client("viewer") as viewer:
        found = viewer.get(f"{ROUTE}/{CHAMPION}").json()
        withdrawn = viewer.get(f"{ROUTE}/{WITHDRAWN}").json()
        lineage = viewer.get(f"{ROUTE}/{CHAMPION}/lineage").json()
        explained = viewer.get(f"{ROUTE}/{CHAMPION}/explanations").json()["explanations"]
        replays = viewer.get(f"{ROUTE}/{CHAMPION}/replays", params={"size": 1}).json()
        nothing = viewer.get(f"{ROUTE}/{FIRST}/lineage").json()
    assert (found["state"], found["training_key"]) == ("champion", key_of(CHAMPION))
    assert (found["approval"]["basis"], found["approval"]["by"]) == ("gate", "superiority")
    assert found["revocation"] is None and found["gate"][0]["decision"] == "promote"
    assert (withdrawn["state"], withdrawn["approval"], withdrawn["revocation"]["by"]) == ("rejected", None, "ann")
    assert (lineage["origin"]["code"], lineage["seed"], lineage["feature_set"]) == ("3ec27c8a", 7, "alpha158")
    assert lineage["files"] == [{"name": "/data/bars.csv", "sha256": "ab" * 32, "rows": 1000}]
    assert (nothing["origin"], nothing["model"]) == (None, None)
    assert [(each["day"], each["files"]) for each in explained] == [("2026-02-27", ["influence.png", "report.json"])]
    assert (replays["total"], [each["verdict"] for each in replays["replays"]]) == (2, ["different"])


def test_versions_are_compared_side_by_side(airflow: Airflow) -> None:
    """Each metric in the order of the versions; 422 for one version, or the same twice."""
    with airflow.client("viewer") as viewer:
        found = viewer.get(f"{ROUTE}/compare", params={"version": [CHAMPION, BEFORE]}).json()
        assert viewer.get(f"{ROUTE}/compare", params={"version": [CHAMPION]}).status_code == 422
        assert viewer.get(f"{ROUTE}/compare", params={"version": [CHAMPION, CHAMPION]}).status_code == 422
        assert viewer.get(f"{ROUTE}/compare", params={"version": [CHAMPION, 99]}).status_code == 404
        assert viewer.get(f"{ROUTE}/compare", params={"version": [CHAMPION, 10**20]}).status_code == 422
    assert [each["version"] for each in found["versions"]] == [CHAMPION, BEFORE]
    rows = {each["name"]: each["values"] for each in found["metrics"]}
    assert rows["test_ic_mean"] == [each["metrics"]["test_ic_mean"] for each in found["versions"]]


@pytest.mark.parametrize(
    ("path", "body", "dag", "conf"),
    [
        ("replays", {"anyway": True}, "replay_models", {"version": BEFORE, "anyway": True}),
        ("approve", {"reason": "ok"}, "operate_models", {"action": "approve", "version": BEFORE, "reason": "ok"}),
        ("withdraw", {"reason": "no"}, "operate_models", {"action": "withdraw", "version": BEFORE, "reason": "no"}),
    ],
)
def test_orders_about_a_version_start_runs(
    airflow: Airflow, path: str, body: dict[str, object], dag: str, conf: dict[str, object]
) -> None:
    """202 under the user's name; 403 for who may only see; 404 for a version that there is not; 422 without a field."""
    with airflow.client("viewer") as viewer, airflow.client("admin") as admin:
        assert viewer.post(f"{ROUTE}/{BEFORE}/{path}", json=body).status_code == 403
        answer = admin.post(f"{ROUTE}/{BEFORE}/{path}", json=body)
        assert answer.status_code == 202, answer.text
        run = admin.get(f"/api/v2/dags/{dag}/dagRuns/{answer.json()['run_id']}").json()
        assert admin.post(f"{ROUTE}/99/{path}", json=body).status_code == 404
        assert admin.post(f"{ROUTE}/{BEFORE}/{path}", json={next(iter(body)): "\0"}).status_code == 422
    assert (run["conf"], run["triggering_user_name"]) == (conf, "admin")
