"""Monitoring in the API and on its pages: performance, the drift map, answers, alerts with their rules and history."""

import time
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from mlops_tasks.state.alerts import raise_alert
from mlops_tasks.state.alerts.episodes import Key
from mlops_tasks.state.alerts.journal import events_of, silences
from tests.overview import desk
from tests.plugins.api_server import Airflow
from tests.plugins.conftest import PATIENCE_MS, sign_in
from tests.plugins.desk import CHAMPION, Day
from tests.plugins.reports import EVIL

API, UI = "/mlops/v1", "/mlops/ui/monitoring"
FIRST_PAINT_S = 1.5


def get(airflow: Airflow, path: str, **asked: Any) -> Any:
    with airflow.client("viewer") as viewer:
        return viewer.get(f"{API}/{path}", params=asked).raise_for_status().json()


def test_performance_drift_and_answers_are_told(airflow: Airflow, day: Day) -> None:
    """What was computed last, the champion's map, each report, and answers about the newest day."""
    (served,) = get(airflow, "monitoring/performance")["performance"]["served"]
    assert (served["model_version"], served["rank_ic_mean"], len(served["days"])) == (CHAMPION, 0.045, 10)
    shown = get(airflow, "monitoring/drift/map", columns=2)["map"]
    assert (shown["version"], shown["total"], len(shown["days"])) == (CHAMPION, 4, 4)
    assert [(each["name"], each["exceedance"][-1]) for each in shown["columns"]] == [("VSUMD60", 3.5), (EVIL, 0.9)]
    listed = get(airflow, "monitoring/drift", version=CHAMPION, size=1)
    assert listed["total"] == 4 and listed["reports"][0]["report"] == f"{desk.LAST}-v{CHAMPION}-0a1b2c3d"
    counted = get(airflow, "monitoring/predictions")
    assert counted["date"] == str(desk.LAST)
    assert [(each["answers"], each["p50_ms"]) for each in counted["counts"]] == [(4, 2.0)]
    assert get(airflow, "monitoring/predictions", day="1990-01-01") == {"date": "1990-01-01", "counts": []}
    assert [each["value"] for each in get(airflow, "monitoring/series")["drift_columns"]][-4:] == [0, 1, 2, 3]
    assert get(airflow, "monitoring/drift/map", version=2**31 - 1)["map"]["days"] == []


@pytest.mark.parametrize("path", [
    "monitoring/drift?version=0", "monitoring/drift?version=99999999999999999999", "monitoring/drift/map?days=1000",
    "monitoring/predictions?day=never", "alerts/history?page=0", "alerts/history?kind=%00",
    f"alerts/history?kind={'k' * 201}",
])  # fmt: skip
def test_what_is_asked_wrongly_is_refused(airflow: Airflow, path: str) -> None:
    """422, with the place."""
    with airflow.client("viewer") as viewer:
        answer = viewer.get(f"{API}/{path}")
    assert answer.status_code == 422 and answer.json()["detail"].startswith("query.")


def test_rules_and_history_of_alerts_are_told(airflow: Airflow, day: Day) -> None:
    """Every rule with its condition in words; the newest step first, all or of one kind."""
    rules = {each["name"]: each for each in get(airflow, "alerts/rules")["rules"]}
    assert (rules["scores_overdue"]["type"], rules["scores_overdue"]["signal"]) == ("absence", "scores")
    assert rules["scores_overdue"]["condition"] == "after_close_min: 720"
    assert rules["leak_found"]["type"] == "told" and rules["leak_found"]["condition"] == ""
    raise_alert(airflow.settings, kind="desk_kind", subject="s", message="one")
    raise_alert(airflow.settings, kind="desk_kind", subject="s", message="two")
    history = get(airflow, "alerts/history", kind="desk_kind")
    assert [(each["step"], each["message"]) for each in history["events"]] == [("updated", "two"), ("opened", "one")]
    assert (history["total"], get(airflow, "alerts/history", size=1)["events"]) == (2, history["events"][:1])


def test_pages_are_quick_and_show_texts_as_they_are(airflow: Airflow, day: Day) -> None:
    """Who may only see gets no form."""
    with airflow.client("viewer") as viewer, airflow.client("admin") as admin:
        for path in ("", "/alerts", "/alerts?kind=vintage_blocked"):
            viewer.get(f"{UI}{path}").raise_for_status()
            began = time.monotonic()
            text = viewer.get(f"{UI}{path}").raise_for_status().text
            assert time.monotonic() - began < FIRST_PAINT_S
            assert "<img src=x" not in text and "onerror" in text and "data-post" not in text
        assert "data-post" in admin.get(f"{UI}/alerts").text
        for wrong in ("?version=0", "/alerts?page=0", "/alerts?kind=%00"):
            assert viewer.get(f"{UI}{wrong}").status_code == 422


def test_wrong_rules_hide_no_alert(airflow: Airflow, day: Day) -> None:
    """The page names the file and the key, and shows what is open; the route answers 503 with the same."""
    own = airflow.settings.home / "alerts.yaml"
    own.write_text("mine: {type: threshold, signal: scores, abve: 3}\n")
    try:
        with airflow.client("viewer") as viewer:
            page = viewer.get(f"{UI}/alerts").raise_for_status().text
            assert "abve" in page and "vintage_blocked" in page
            assert viewer.get(f"{API}/alerts/rules").status_code == 503
    finally:
        own.unlink()


@pytest.fixture(scope="module")
def monitor(browser: Browser, airflow: Airflow, day: Day) -> Page:
    """A page of the admin's."""
    return sign_in(browser, airflow).new_page()


def test_the_page_draws_what_it_has(airflow: Airflow, day: Day, monitor: Page) -> None:
    """Plots, the map with its colours, and the answers, once they are counted."""
    errors: list[str] = []
    monitor.on("pageerror", lambda error: errors.append(str(error)))
    monitor.goto(f"{airflow.url}{UI}")
    for plot in ("rank_ic", "drift_columns"):
        expect(monitor.locator(f"#{plot} canvas")).to_be_visible(timeout=PATIENCE_MS)
    expect(monitor.locator("#drift_columns figcaption")).to_contain_text("newest 3")
    expect(monitor.locator("#scored_instruments")).to_contain_text("Instruments scored by the champion")
    cells = monitor.locator(".map tbody tr").first.locator("td.at")
    expect(cells.last).to_have_class("at far")
    expect(monitor.locator("#predictions tbody tr")).to_contain_text(f"version {CHAMPION}")
    assert errors == [] and "taken" not in monitor.title()


def test_a_person_acknowledges_silences_and_ends_an_alert(airflow: Airflow, day: Day, monitor: Page) -> None:
    """On the page of alerts, under the user's name."""
    key = Key("desk_page", "the subject")
    raise_alert(airflow.settings, kind=key.kind, subject=key.subject, message="look here")
    monitor.goto(f"{airflow.url}{UI}/alerts")
    alert = monitor.locator("article", has_text="desk_page")
    alert.get_by_role("button", name="I take care of it").click()
    expect(alert).to_contain_text("admin takes care of it", timeout=PATIENCE_MS)
    alert.locator("summary").click()
    alert.get_by_label("Why").fill("the page is being mended")
    alert.get_by_role("button", name="Silence").click()
    silence = monitor.locator("#silences li", has_text="the page is being mended")
    expect(silence).to_be_visible(timeout=PATIENCE_MS)
    monitor.wait_for_load_state("load")
    silence.get_by_role("button", name="End it").click()
    expect(silence).to_have_count(0, timeout=PATIENCE_MS)
    assert key not in silences(airflow.settings)
    over = alert.get_by_role("button", name="It is over")
    over.click()
    alert.get_by_role("button", name="Really over?").click()
    expect(alert).to_have_count(0, timeout=PATIENCE_MS)
    assert [event.by for event in events_of(airflow.settings, key)] == ["", "admin", "admin"]
