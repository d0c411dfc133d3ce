"""What is registered of experiments and what they have shown, in the API of a real Airflow API server."""

from typing import Any

import pytest

from tests.experiments.designs import VALUES
from tests.plugins.api_server import Airflow
from tests.plugins.serving import CHAMPION, EXPERIMENT, airflow

__all__ = ["airflow"]

ROUTE = "/mlops/v1/experiments"


def test_results_have_their_intervals_at_each_look(airflow: Airflow) -> None:
    """Of the primary metric and the guards; an experiment that was never analysed has none yet."""
    with airflow.client("viewer") as viewer:
        found = viewer.get(f"{ROUTE}/{EXPERIMENT}/results").json()
        nothing = viewer.get(f"{ROUTE}/execution/results").json()
        assert viewer.get(f"{ROUTE}/none/results").status_code == 404
    assert (found["advice"], found["days"], found["planned_days"]) == ("wait", 45, 60)
    primary, guard = found["findings"]
    assert (primary["metric"], primary["guard"], guard["guard"]) == ("cost_bps", False, True)
    interval = primary["interval"]
    assert interval["lower"] < interval["effect"] < interval["upper"] and "treatment minus control" in primary["said"]
    looks = [each for each in found["looks"] if each["metric"] == "cost_bps"]
    assert [each["day"] for each in looks] == [30, 35, 40, 45]
    assert looks[-1]["effect"] == interval["effect"]
    assert sum(found["ratio"]["counts"]) > 0 and found["report"] == EXPERIMENT
    assert (nothing["at"], nothing["findings"], nothing["looks"]) == (None, [], [])


def test_an_experiment_is_registered_ramped_and_overridden_under_a_name(airflow: Airflow) -> None:
    """By who may command; a design that makes no sense, a taken name and a wide range are refused with the field."""
    design = {**VALUES, "name": "by-api", "layer": "api_accounts"}
    with airflow.client("viewer") as viewer, airflow.client("admin") as admin:
        layer = {"name": "api_accounts", "unit": "account", "held_out": "0.2"}
        assert viewer.post("/mlops/v1/layers", json=layer).status_code == 403
        assert admin.post("/mlops/v1/layers", json=layer).json()["held_out"] == 0.2
        assert "api_accounts" in {each["name"] for each in viewer.get("/mlops/v1/layers").json()["layers"]}
        assert viewer.post(ROUTE, json=design).status_code == 403
        made = admin.post(ROUTE, json=design)
        assert (made.status_code, made.json()["state"], made.json()["by"]) == (201, "draft", "admin")
        again = admin.post(ROUTE, json=design)
        assert again.status_code == 422 and "already" in again.json()["detail"]
        ramped = admin.post(f"{ROUTE}/by-api/ramp", json={"exposure": 0.5, "reason": "slowly"})
        assert ramped.status_code == 422 and "exposure" in ramped.json()["detail"]
        chosen = {"arms": {"account-1": "treatment"}, "reason": "asked for"}
        assert viewer.post(f"{ROUTE}/by-api/overrides", json=chosen).status_code == 403
        assert admin.post(f"{ROUTE}/by-api/overrides", json=chosen).json()["by"] == "admin"
        assert admin.post(f"{ROUTE}/by-api/moves", json={"to": "running", "reason": "go"}).json()["state"] == "running"
        shown = viewer.get(f"{ROUTE}/by-api").json()
        assert (shown["state"], shown["design"]["arms"]) == ("running", {"control": "0.5", "treatment": "0.5"})
        assert viewer.get(f"{ROUTE}/by-api/refused").json() == {"refused": []}


def test_versions_of_a_design_are_those_of_the_index(airflow: Airflow) -> None:
    """MLflow, which does not run here, is not asked."""
    design = {**VALUES, "name": "models-by-api", "layer": "desk_accounts", "share": "0.000001", "planned_days": 120}
    with airflow.client("admin") as admin:
        wrong = admin.post(ROUTE, json={**design, "models": {"control": CHAMPION, "treatment": 99}})
        assert wrong.status_code == 422 and "version 99, which is not registered" in wrong.json()["detail"]
        assert wrong.json()["detail"].count(",") < 20, "a message lists the first versions only"


def test_an_analysis_by_hand_is_a_run(airflow: Airflow) -> None:
    """Under the user's name."""
    with airflow.client("viewer") as viewer, airflow.client("admin") as admin:
        assert viewer.post(f"{ROUTE}/analyses").status_code == 403
        answer = admin.post(f"{ROUTE}/analyses")
        assert (answer.status_code, answer.json()["dag_id"]) == (202, "analyze_ab_test")


@pytest.mark.parametrize(
    "change",
    [
        {"hypothesis": "short"},
        {"hypothesis": "it costs less\0"},
        {"owner": "\0"},
        {"arms": {"control": "0.5", "treatment": "1E-1000000"}},
        {"arms": {"control": "0.5"}},
        {"arms": {"control": "0.5", "a\0": "0.5"}},
        {"models": {"control": 10**30, "treatment": 1}},
        {"planned_days": 10**9},
        {"share": "0.3333333"},
        {"primary": {"name": "cost_bps", "smallest_effect": 0}},
        {"more": 1},
        {"switchback": {"block": 5, "washout": 10**9}},
    ],
)
def test_a_design_that_makes_no_sense_is_refused(airflow: Airflow, change: dict[str, Any]) -> None:
    """422, with the place."""
    with airflow.client("admin") as admin:
        answer = admin.post(ROUTE, json={**VALUES, "name": "wrong", "layer": "desk_accounts", **change})
    assert answer.status_code == 422 and answer.json()["detail"], answer.text
