"""Alerts in the API, inside a real Airflow API server: what is open, who may change it, and the stream of events."""

import pytest

from mlops_tasks.state.alerts import raise_alert
from mlops_tasks.state.alerts.episodes import Key
from mlops_tasks.state.alerts.journal import events_of, newest_events
from tests.plugins.api_server import Airflow
from tests.plugins.streams import open_stream

ALERTS = "/mlops/v1/alerts"
LEAK = {"kind": "leak_found", "subject": "f1 of alpha158"}


def test_an_alert_is_seen_followed_acknowledged_silenced_and_ended(airflow: Airflow) -> None:
    """Under the user's name; who may only see changes nothing. Each step comes by the stream as it is recorded."""
    before = max((event.id for event in newest_events(airflow.settings, 1)), default=0)
    raise_alert(airflow.settings, **LEAK, message="VSTD30 knows of later days")
    with airflow.client("viewer") as viewer, airflow.client("admin") as admin, open_stream(airflow) as stream:
        first = stream.subscribe("alerts", before).take("alerts", 1)[0]
        (shown,) = viewer.get(ALERTS).json()["open"]
        assert (first["step"], shown["severity"], shown["acknowledged_by"]) == ("opened", "critical", "")
        assert viewer.post(f"{ALERTS}/acknowledge", json=LEAK).status_code == 403
        assert admin.post(f"{ALERTS}/acknowledge", json=LEAK).json()["by"] == "admin"
        assert admin.post(f"{ALERTS}/acknowledge", json=LEAK).status_code == 409
        assert stream.take("alerts", 1)[0]["step"] == "acknowledged"
        silence = {**LEAK, "hours": 1, "reason": "it is being mended"}
        assert admin.post(f"{ALERTS}/silence", json=silence).json()["by"] == "admin"
        assert admin.post(f"{ALERTS}/silence", json=silence | {"hours": -1}).status_code == 422
        assert admin.post(f"{ALERTS}/silence", json=silence | {"hours": False}).status_code == 422
        assert [row["reason"] for row in viewer.get(ALERTS).json()["silenced"]] == ["it is being mended"]
        assert admin.post(f"{ALERTS}/resolve", json=LEAK).status_code == 200
        assert stream.take("alerts", 1)[0]["step"] == "resolved"
        assert admin.post(f"{ALERTS}/resolve", json=LEAK).status_code == 409
        assert viewer.get(ALERTS).json()["open"] == []
        later = viewer.get(f"{ALERTS}/events", params={"after": first["id"]}).json()
        assert [event["step"] for event in later["events"]] == ["acknowledged", "resolved"]
        assert later["next_after"] == later["events"][-1]["id"]
    assert [event.by for event in events_of(airflow.settings, Key(**LEAK))] == ["", "admin", "admin"]


@pytest.mark.parametrize("asked", [{"kind": "k"}, {"kind": "k" * 201, "subject": "s"}, {}])
def test_what_names_no_alert_is_refused(airflow: Airflow, asked: dict[str, str]) -> None:
    """422, and an unknown one 409."""
    with airflow.client("admin") as admin:
        assert admin.post(f"{ALERTS}/resolve", json=asked).status_code == 422
        assert admin.post(f"{ALERTS}/resolve", json={"kind": "k", "subject": "s"}).status_code == 409
