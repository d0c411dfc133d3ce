"""Experiments in the API, inside a real Airflow API server."""

from decimal import Decimal

import pytest

from mlops_tasks.experiments.lifecycle import create_experiment, create_layer, experiments
from mlops_tasks.states import UnitKind
from tests.experiments.designs import design
from tests.plugins.api_server import Airflow

ROUTE = "/mlops/v1/experiments"


def test_an_experiment_is_run_by_the_api(airflow: Airflow) -> None:
    """Who may command starts it and sends events, under their name; who may see reads arms and sums."""
    if "orders" not in experiments(airflow.settings):
        create_layer(airflow.settings, "accounts", UnitKind.ACCOUNT, Decimal(0))
        create_experiment(airflow.settings, design())
    with airflow.client("viewer") as viewer, airflow.client("admin") as admin:
        wanted = {"to": "running", "reason": "go"}
        assert viewer.post(f"{ROUTE}/orders/moves", json=wanted).status_code == 403
        started = admin.post(f"{ROUTE}/orders/moves", json=wanted).json()
        assert (started["state"], started["by"], started["shares"]["control"]) == ("running", "admin", 0.5)
        (found,) = viewer.post(f"{ROUTE}/orders/assignments", json={"units": ["a"]}).json()["assignments"]
        event = {"event_id": "1", "unit": "a", "metric": "cost_bps", "value": 2.5, "at": started["at"]}
        batch = {"events": [event, {**event, "metric": "x"}, event]}
        assert viewer.post(f"{ROUTE}/orders/events", json=batch).status_code == 403
        told = admin.post(f"{ROUTE}/orders/events", json=batch).json()
        assert (told["new"], told["repeated"], told["refused"]) == (1, 1, 1)
        assert told["faults"] == ["event 2: no metric 'x'; known: cost_bps, errors"]
        (row,) = viewer.get(f"{ROUTE}/orders/sums").json()["sums"]
        assert (row["arm"], row["n"], row["mean"], row["variance"]) == (found["arm"], 1, 2.5, None)
        assert viewer.get(f"{ROUTE}/other/sums").status_code == 404
        refused = admin.post(f"{ROUTE}/orders/moves", json={"to": "decided", "reason": "now"})
        assert refused.status_code == 422 and "can become paused, stopped" in refused.json()["detail"]
        assert [each["state"] for each in viewer.get(f"{ROUTE}/orders/history").json()["experiments"]] == [
            "draft",
            "running",
        ]
        assert "orders" in {each["name"] for each in viewer.get(ROUTE).json()["experiments"]}


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("orders/events", {"events": [[1]]}),
        ("orders/assignments", {"units": ["a\0b"]}),
        ("orders/assignments", {"units": [""]}),
        ("orders/moves", {"to": "away", "reason": "x"}),
        ("orders/moves", {"to": "paused", "reason": "x", "winner": "control"}),
        ("or ders/moves", {"to": "running", "reason": "x"}),
    ],
)
def test_wrong_requests_are_refused(airflow: Airflow, route: str, body: dict[str, object]) -> None:
    """422, with the place."""
    with airflow.client("admin") as admin:
        answer = admin.post(f"{ROUTE}/{route}", json=body)
    assert answer.status_code == 422 and answer.json()["detail"]
