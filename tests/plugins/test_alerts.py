"""Alerts in the API, inside a real Airflow API server: what is open, who may change it, and the stream of events."""

import json

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from mlops_tasks.state.alerts import raise_alert
from mlops_tasks.state.alerts.episodes import Key
from mlops_tasks.state.alerts.journal import events_of
from tests.plugins.api_server import Airflow

ALERTS = "/mlops/v1/alerts"
LEAK = {"kind": "leak_found", "subject": "f1 of alpha158"}


def test_an_alert_is_seen_followed_acknowledged_silenced_and_ended(airflow: Airflow) -> None:
    """Under the user's name; who may only see changes nothing. Each step comes by the stream as it is recorded."""
    raise_alert(airflow.settings, **LEAK, message="VSTD30 knows of later days")
    address = f"{airflow.url.replace('http', 'ws', 1)}{ALERTS}/stream"
    given = {"Authorization": f"Bearer {airflow.token('viewer')}"}
    with (
        airflow.client("viewer") as viewer,
        airflow.client("admin") as admin,
        connect(address, additional_headers=given, open_timeout=60) as stream,
    ):
        first = json.loads(stream.recv(timeout=60))
        (shown,) = viewer.get(ALERTS).json()["open"]
        assert (first["step"], shown["severity"], shown["acknowledged_by"]) == ("opened", "critical", "")
        assert viewer.post(f"{ALERTS}/acknowledge", json=LEAK).status_code == 403
        assert admin.post(f"{ALERTS}/acknowledge", json=LEAK).json()["by"] == "admin"
        assert admin.post(f"{ALERTS}/acknowledge", json=LEAK).status_code == 409
        assert json.loads(stream.recv(timeout=60))["step"] == "acknowledged"
        silence = {**LEAK, "hours": 1, "reason": "it is being mended"}
        assert admin.post(f"{ALERTS}/silence", json=silence).json()["by"] == "admin"
        assert admin.post(f"{ALERTS}/silence", json=silence | {"hours": -1}).status_code == 422
        assert admin.post(f"{ALERTS}/silence", json=silence | {"hours": False}).status_code == 422
        assert [row["reason"] for row in viewer.get(ALERTS).json()["silenced"]] == ["it is being mended"]
        assert admin.post(f"{ALERTS}/resolve", json=LEAK).status_code == 200
        assert json.loads(stream.recv(timeout=60))["step"] == "resolved"
        assert admin.post(f"{ALERTS}/resolve", json=LEAK).status_code == 409
        assert viewer.get(ALERTS).json()["open"] == []
        later = viewer.get(f"{ALERTS}/events", params={"after": first["id"]}).json()
        assert [event["step"] for event in later["events"]] == ["acknowledged", "resolved"]
        assert later["next_after"] == later["events"][-1]["id"]
    assert [event.by for event in events_of(airflow.settings, Key(**LEAK))] == ["", "admin", "admin"]


def test_a_stranger_follows_no_alerts(airflow: Airflow) -> None:
    """Without a token, with a wrong one, and from a foreign page with the user's cookie."""
    address = f"{airflow.url.replace('http', 'ws', 1)}{ALERTS}/stream"
    cookie = {"Cookie": f"_token={airflow.token('viewer')}", "Origin": "http://example.org"}
    for headers in ({}, {"Authorization": "Bearer x.y.z"}, cookie):
        with pytest.raises(InvalidStatus) as error:
            connect(address, additional_headers=headers, open_timeout=60)
        assert error.value.response.status_code == 403


@pytest.mark.parametrize("asked", [{"kind": "k"}, {"kind": "k" * 201, "subject": "s"}, {}])
def test_what_names_no_alert_is_refused(airflow: Airflow, asked: dict[str, str]) -> None:
    """422, and an unknown one 409."""
    with airflow.client("admin") as admin:
        assert admin.post(f"{ALERTS}/resolve", json=asked).status_code == 422
        assert admin.post(f"{ALERTS}/resolve", json={"kind": "k", "subject": "s"}).status_code == 409
