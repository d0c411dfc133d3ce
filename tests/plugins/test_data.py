"""Data in the API and on its pages: vintages, diffs, quarantine; what a person approves and releases."""

import io
import time
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import Browser, expect

from mlops_tasks.data.validation.releases import load_releases
from tests.plugins.api_server import Airflow
from tests.plugins.conftest import PATIENCE_MS, sign_in
from tests.plugins.desk import RESTATED, Day
from tests.plugins.reports import BROKEN_ROWS, EVIL, STAGING, Reports

DATA, UI = "/mlops/v1/data", "/mlops/ui/data"
FIRST_PAINT_S = 1.5
CELLS = RESTATED + 1


def get(airflow: Airflow, path: str, **asked: Any) -> Any:
    with airflow.client("viewer") as viewer:
        return viewer.get(f"{DATA}/{path}", params=asked).raise_for_status().json()


def test_vintages_and_their_diffs_are_told(airflow: Airflow, day: Day) -> None:
    """In pages; what the policy says of a diff, and each of its cells once."""
    old, new = day.vintage.data_version, day.blocked
    listed = get(airflow, "vintages", size=1)
    assert listed["total"] >= 2 and len(listed["vintages"]) == 1
    vintages = {each["data_version"]: each for each in get(airflow, "vintages")["vintages"]}
    assert vintages[old]["in_use"] and not vintages[new]["in_use"] and vintages[old]["quarantined"] == 2
    assert sum(each["rows"] for each in get(airflow, f"vintages/{old}")["years"]) == vintages[old]["rows"]
    (short,) = get(airflow, "diffs", version=new)["diffs"]
    assert (short["old"], short["new"], short["decision"], short["restated"]) == (old, new, "block", CELLS)
    shown = get(airflow, f"diffs/{old}/{new}")
    assert shown["is_waiting"] and {"earlier_end", "restated_rows"} <= {each["rule"] for each in shown["reasons"]}
    pages = [get(airflow, f"diffs/{old}/{new}/cells", page=number, size=50) for number in (1, 2)]
    kinds = [cell["kind"] for page in pages for cell in page["cells"]]
    assert pages[0]["total"] == len(kinds) and kinds.count("removed") == len(kinds) - CELLS


@pytest.mark.parametrize("path", [
    "vintages/0000000000000000", "vintages/..%2F..%2Fsecrets", "diffs/0000000000000000/0000000000000000",
    "diffs/0000000000000000/0000000000000000/cells", "quarantine/0000000000000000", "quarantine/%00", "vintages?page=0",
    "vintages?size=100000", "vintages?page=99999999999999999999", "diffs?version=..",
])  # fmt: skip
def test_what_is_not_there_is_refused(airflow: Airflow, day: Day, path: str) -> None:
    """404 or 422 with a reason, never an error of the server."""
    with airflow.client("viewer") as viewer:
        answer = viewer.get(f"{DATA}/{path}")
        pages = [viewer.get(f"{UI}{each}").status_code for each in ("/" + "0" * 16, "/x", "/diffs/x/y", "?page=0")]
    assert answer.status_code in (404, 422) and answer.json()["detail"]
    assert pages == [404, 422, 422, 422]


def test_an_approval_starts_a_sync_under_the_users_name(airflow: Airflow, day: Day) -> None:
    """Only of a vintage that is blocked, only by who may operate, and never of a file that a request names."""
    wanted = {"data_version": day.blocked, "reason": "the index changed"}
    with airflow.client("viewer") as viewer, airflow.client("admin") as admin:
        for path, asked in (("approvals", wanted), ("syncs", {}), ("releases", {})):
            assert viewer.post(f"{DATA}/{path}", json=asked).status_code == 403
        started = admin.post(f"{DATA}/approvals", json=wanted)
        assert started.status_code == 202 and started.json()["dag_id"] == "sync_market_data"
        run = admin.get(f"/api/v2/dags/sync_market_data/dagRuns/{started.json()['run_id']}").json()
        assert run["conf"] == {"approve_version": day.blocked, "approve_reason": "the index changed"}
        assert run["triggering_user_name"] == "admin"
        in_use = admin.post(f"{DATA}/approvals", json=wanted | {"data_version": day.vintage.data_version})
        assert in_use.status_code == 409
        assert admin.post(f"{DATA}/approvals", json=wanted | {"data_version": "0" * 16}).status_code == 404
        for wrong in ({"reason": " "}, {"reason": "a\0b"}, {"data_version": "../x"}, {"source": "/etc/passwd"}):
            assert admin.post(f"{DATA}/approvals", json=wanted | wrong).status_code == 422
        assert admin.post(f"{DATA}/syncs", json={"source": "/etc"}).status_code == 422
        assert admin.post(f"{DATA}/syncs", json={"source": "synthetic"}).status_code == 202
        (log,) = admin.get("/api/v2/eventLogs", params={"event": "mlops.start_sync", "limit": 1}).json()["event_logs"]
        assert log["owner"] == "admin"


def test_the_quarantine_is_told_and_released_from(airflow: Airflow, day: Day, reports: Reports) -> None:
    """Its rows in pages; a row passes its rule under the user's name, once; what is not there cannot be released."""
    shown = get(airflow, f"quarantine/{STAGING}")
    assert (shown["verdict"], shown["received"]) == ("rejected", 2400)
    assert STAGING in [each["staging"] for each in get(airflow, "quarantine")["quarantines"]]
    rows = [row for page in (1, 2, 3) for row in get(airflow, f"quarantine/{STAGING}/rows", page=page)["rows"]]
    assert sum(row["rule"] == "open_present" for row in rows) == BROKEN_ROWS
    row = next(each for each in rows if each["rule"] == "open_present" and each["instrument"] != EVIL)
    asked = {name: row[name] for name in ("rule", "instrument", "date")} | {"staging": STAGING, "reason": "it is right"}
    with airflow.client("admin") as admin:
        assert admin.post(f"{DATA}/releases", json=asked | {"staging": "0" * 16}).status_code == 409
        assert admin.post(f"{DATA}/releases", json=asked | {"rule": "none"}).status_code == 422
        assert admin.post(f"{DATA}/releases", json=asked | {"date": "1990-01-01"}).status_code == 422
        assert load_releases(airflow.settings) == ()
        made = admin.post(f"{DATA}/releases", json=asked)
        assert made.status_code == 201 and made.json()["released_by"] == "admin"
        again = admin.post(f"{DATA}/releases", json=asked | {"reason": "again"}).json()
    assert again["reason"] == "it is right" and len(load_releases(airflow.settings)) == 1
    assert get(airflow, "releases")["releases"][0]["rule"] == "open_present"


def test_pages_are_quick_and_show_texts_as_they_are(airflow: Airflow, day: Day, reports: Reports) -> None:
    """Who may only see gets no form."""
    old, new = day.vintage.data_version, day.blocked
    with airflow.client("viewer") as viewer, airflow.client("admin") as admin:
        for path in ("", f"/{new}", f"/diffs/{old}/{new}"):
            viewer.get(f"{UI}{path}").raise_for_status()
            began = time.monotonic()
            text = viewer.get(f"{UI}{path}").raise_for_status().text
            assert time.monotonic() - began < FIRST_PAINT_S
            assert "<img src=x" not in text and "data-post" not in text
            assert "data-post" in admin.get(f"{UI}{path}").text
        for file in ("summary.json", "..%2F..%2Fcurrent.json", "universe.parquet"):
            assert viewer.get(f"{UI}/diffs/{old}/{new}/files/{file}").status_code == 404


def test_a_person_reads_a_diff_downloads_it_and_approves(airflow: Airflow, day: Day, browser: Browser) -> None:
    """Within Airflow's frame, which itself allows no download; the approval asks once more, and links to its run."""
    old, new = day.vintage.data_version, day.blocked
    context = sign_in(browser, airflow)
    page = context.new_page()
    page.goto(f"{airflow.url}/plugin/data{UI}/diffs/{old}/{new}")
    frame = page.frame_locator("iframe")
    expect(frame.locator("#reasons")).to_contain_text("earlier_end", timeout=PATIENCE_MS)
    with page.expect_download() as found:
        frame.get_by_role("link", name="All cells as parquet").click()
    cells = pd.read_parquet(io.BytesIO(found.value.path().read_bytes()))
    assert (cells["class"] == "restated").sum() == CELLS and found.value.suggested_filename.endswith("changes.parquet")
    form = frame.locator("#approve form")
    form.get_by_label("Why it is right").fill("the vendor says so")
    form.get_by_role("button").click()
    expect(form.get_by_role("button")).to_have_text("Really approve?")
    form.get_by_role("button").click()
    expect(form.locator("output a")).to_contain_text("sync_market_data manual__")
    context.close()


def test_a_rows_button_fills_in_the_release(airflow: Airflow, day: Day, reports: Reports, browser: Browser) -> None:
    """Rule, instrument and day are the row's."""
    context = sign_in(browser, airflow)
    page = context.new_page()
    page.goto(f"{airflow.url}/mlops/ui/reports/quarantine/{STAGING}")
    row = page.locator("#rows tr", has_text="open_present").first
    row.get_by_role("button").click()
    for label, name in (("Rule", "rule"), ("Instrument", "instrument"), ("Day", "date")):
        expect(page.locator("#release").get_by_label(label, exact=True)).to_have_value(
            row.get_attribute(f"data-{name}") or ""
        )
    expect(page.get_by_label("Why it is right")).to_be_focused()
    context.close()
