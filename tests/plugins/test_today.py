"""The page *Today* and its route: how the operation stands on one screen, each part linked to its page and task."""

import re
import time

import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import create_engine, text

from mlops_tasks.state.alerts import raise_alert
from mlops_tasks.state.alerts.episodes import Key
from mlops_tasks.state.alerts.handling import resolve
from tests.overview import desk
from tests.plugins.api_server import Airflow
from tests.plugins.conftest import PATIENCE_MS, sign_in
from tests.plugins.desk import CHAMPION, Day

UI, OVERVIEW = "/mlops/ui", "/mlops/v1/overview"
FIRST_PAINT_S = 1.5
ONE_SCREEN = 900
"""Height of a usual browser's page, in pixels."""
MANY = 8
"""Alerts, more than the page shows."""


def test_the_route_says_how_the_operation_stands(airflow: Airflow, day: Day) -> None:
    """To everybody who may see: every part, what is wrong, and what waits."""
    with airflow.client("viewer") as viewer:
        told = viewer.get(OVERVIEW).raise_for_status().json()
    assert told["bars"]["data_version"] == day.vintage.data_version and told["bars"]["last_date"] == str(desk.LAST)
    assert (told["scores"]["version"], told["champion"]["version"], told["champion"]["previous"]) == (72, 72, 71)
    assert told["gate"]["sentence"].startswith("version 72 stays the champion, training k73 (linear) is not promoted")
    assert (told["drift"]["beyond"], told["is_healthy"]) == (3, False)
    assert {each["part"] for each in told["concerns"]} == {"drift", "alerts"}
    assert [each["name"] for each in told["waiting"]] == [day.blocked, "desk_costs"]
    assert "desk_orders" in [each["name"] for each in told["work"]]
    with airflow.client(None) as stranger:
        assert stranger.get(OVERVIEW).status_code == 401
        assert stranger.get(f"{UI}/today").status_code == 401


def test_each_part_leads_to_its_page_and_to_its_task(airflow: Airflow, day: Day) -> None:
    """Within 1.5 s; texts of sources and of the gate are shown as they are."""
    with airflow.client("viewer") as viewer:
        viewer.get(f"{UI}/today").raise_for_status()
        began = time.monotonic()
        page = viewer.get(f"{UI}/today").raise_for_status().text
        assert time.monotonic() - began < FIRST_PAINT_S
    for part, link in {
        "bars": f"/data/{day.vintage.data_version}",
        "scores": "/monitoring",
        "champion": f"/models/{CHAMPION}",
        "drift": f"/reports/drift/{desk.LAST}-v{CHAMPION}-0a1b2c3d",
        "alerts": "/monitoring/alerts",
        "work": "/experiments/desk_orders",
        "waiting": f"/data/{day.blocked}",
    }.items():
        section = re.search(rf'<section class="card" id="{part}">.*?</section>', page, re.DOTALL)
        assert section is not None and f'href="{UI}{link}"' in section.group(), part
    for task in ("publish_vintage", "score_newest_date", "deploy_model", "gate_challenger", "check_drift"):
        assert f'/tasks/{task}"' in page, task
    assert "onerror" in page and "<img" not in page


def test_a_part_leads_to_the_very_run_that_made_it(airflow: Airflow, day: Day) -> None:
    """The task's page in the run that was at work when the scores came; a question that a task asks is shown first."""
    database = create_engine(f"sqlite:///{airflow.settings.home / 'airflow' / 'airflow.db'}")
    with airflow.client("admin") as admin:
        scored = admin.get(OVERVIEW).json()["scores"]["at"]
        started = admin.post("/api/v2/dags/daily_retraining/dagRuns", json={"logical_date": None}).raise_for_status()
    run_id = started.json()["dag_run_id"]
    with database.begin() as connection:
        for task, begin, end in (("score_newest_date", -5, 5), ("deploy_model", 60, 70)):
            connection.execute(
                text(
                    "update task_instance set start_date = datetime(:at, :begin), end_date = datetime(:at, :end) "
                    "where run_id = :run and task_id = :task"
                ),
                {"at": scored, "begin": f"{begin} seconds", "end": f"{end} seconds", "run": run_id, "task": task},
            )
    with airflow.client("viewer") as viewer:
        page = viewer.get(f"{UI}/today").text
    assert re.search(r"/dags/daily_retraining/runs/manual__[^/]+/tasks/score_newest_date", page)
    assert '/dags/daily_retraining/tasks/deploy_model"' in page


@pytest.mark.parametrize("width", [1280, 390])
def test_today_is_one_screen_inside_airflow(airflow: Airflow, day: Day, browser: Browser, width: int) -> None:
    """First in Airflow's own navigation; on a wide screen nothing but the page's end needs scrolling, however much is
    open."""
    for number in range(MANY):
        raise_alert(airflow.settings, kind="desk_full", subject=str(number), message="a long message " * 20)
    context = sign_in(browser, airflow, width)
    page = context.new_page()
    page.goto(f"{airflow.url}/plugin/today{UI}/today")
    frame = page.frame_locator("iframe")
    expect(frame.locator("#health")).to_contain_text("Worth a look", timeout=PATIENCE_MS)
    expect(frame.locator("#champion")).to_contain_text(f"Version {CHAMPION}")
    expect(frame.locator("nav.pages a").first).to_have_text("Today")
    expect(frame.locator("nav.pages a").first).to_have_attribute("aria-current", "page")
    with context.expect_page() as opened:
        frame.locator("#gate").get_by_role("link", name="Task that made it").click()
    assert "/dags/daily_retraining/" in opened.value.url and "gate_challenger" in opened.value.url
    if width == 1280:
        assert frame.locator("main").evaluate("each => each.scrollHeight") < ONE_SCREEN
    context.close()
    for number in range(MANY):
        resolve(airflow.settings, Key("desk_full", str(number)), by="admin")
