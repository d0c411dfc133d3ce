"""What no honest client sends, and stores that are not as they should be: each is answered soon, and in words."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from mlops_tasks.reports import LAYOUTS, ReportKind
from mlops_tasks.state.alerts import raise_alert
from mlops_tasks.state.alerts.episodes import Key
from mlops_tasks.state.alerts.handling import resolve
from mlops_tasks.state.database import sqlite_file
from mlops_tasks.state.training_runs import training_commands
from tests.plugins.api_server import Airflow
from tests.plugins.reports import Reports
from tests.plugins.runs import Runs

API, UI = "/mlops/v1", "/mlops/ui"
JSON = {"Content-Type": "application/json"}
LONE = r"\ud800"
"""Half of a character, which JSON can write and no database or answer can."""


def _line(text: str) -> str:
    """A form with one line in its field."""
    return f'{{"hyperparameters": "{text}"}}'


BODIES = {
    "overrides": [
        *(_line("mlp.layers=" + "[" * depth) for depth in (600, 50_000)),
        _line("linear.alpha=" + "9" * 4000),
        _line(LONE),
        _line(rf"linear.estimator=\"\{LONE}\""),
        _line(rf"linear.\{LONE}=1"),
        "[" * 100_000,
    ],
    "alerts/acknowledge": ['{"kind": "a\\u0000", "subject": ""}', '{"kind": "a", "subject": "\\u0000"}'],
    "alerts/silence": [
        '{"kind": "a\\u0000", "hours": 1, "reason": "x"}',
        '{"kind": "a", "subject": "\\u0000", "hours": 1, "reason": "x"}',
        '{"kind": "a", "hours": 1, "reason": "x\\u0000"}',
        '{"kind": "a", "hours": NaN, "reason": "x"}',
    ],
    "experiments": [f'{{"name": "x", "arms": {{"{LONE}": 1}}}}', f'{{"{LONE}": 1}}'],
    "training/runs": [f'{{"models": ["linear"], "{LONE}": 1}}', '{"models": [".."]}'],
    "training/searches": ['{"time_s": NaN}', '{"memory_mb": Infinity}', '{"feature_set": ".."}'],
    "deployments": ['{"version": 1, "stategy": "canary"}'],
    "deployments/rollback": ['{"reason": "x", "versions": 1}'],
    "data/syncs": ['{"universe": "/etc/passwd"}', '{"source": "/etc/passwd"}'],
    "features/computations": ['{"feature_sets": "alpha158"}'],
    "training/estimate": ['{"model": "linear", "hyperparameters": "linear.alpha=' + "[" * 50_000 + '"}'],
}
"""Route to what it refuses."""


@pytest.mark.parametrize("path", BODIES)
def test_a_hostile_body_is_refused(airflow: Airflow, path: str) -> None:
    """With a problem that names the place, never with an error of the server."""
    with airflow.client("admin") as admin:
        for body in BODIES[path]:
            answer = admin.post(f"{API}/{path}", content=body, headers=JSON)
            assert answer.status_code in (400, 422), (body[:80], answer.text[:300])
            assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_body_is_given_up_where_it_is_too_long(airflow: Airflow, runs: Runs) -> None:
    """A stranger's, too, in one piece or in many, with or without a declared length; what it asks is not done."""
    run_id = runs.open().run_id
    ours = {"Authorization": f"Bearer {airflow.token('admin')}", **JSON}
    with airflow.client(None) as stranger:
        for headers in (JSON, ours):
            for path in ("overrides", f"training/runs/{run_id}/pause"):
                for body in (b" " * 4_000_001, (b" " * 100_000 for _ in range(41))):
                    answer = stranger.post(f"{API}/{path}", content=body, headers=headers)
                    assert answer.status_code in ((413,) if "Authorization" in headers else (413, 401, 403)), path
    assert training_commands(airflow.settings, run_id) == []


@pytest.fixture
def broken_database(airflow: Airflow, runs: Runs) -> Iterator[None]:
    """A state database that is none, in the place of the server's."""
    runs.finished()
    file = sqlite_file(airflow.settings.state_database)
    assert file is not None
    kept = {path: path.with_name(f"kept-{path.name}") for path in file.parent.glob(f"{file.name}*")}
    for path, aside in kept.items():
        path.rename(aside)
    file.write_text("this is no database " * 1000)
    yield
    for path in file.parent.glob(f"{file.name}*"):
        path.unlink()
    for path, aside in kept.items():
        aside.rename(path)


def test_a_database_that_fails_is_told_soon_by_every_page_and_route(airflow: Airflow, broken_database: None) -> None:
    """503, or whatever needs no database; in words, without those of its driver, which may name hosts."""
    plain = [path for method, path in airflow.routes if method == "GET" and "{" not in path]
    assert len(plain) > 30
    with airflow.client("viewer") as viewer:
        answers = {path: viewer.get(path) for path in plain if not path.endswith("/mlflow")}
    failed = [path for path, answer in answers.items() if answer.status_code == 503]
    assert {f"{UI}/today", f"{UI}/training", f"{UI}/deployments", f"{API}/alerts", f"{API}/versions"} <= set(failed)
    for path, answer in answers.items():
        assert answer.status_code in (200, 404, 422, 503), (path, answer.text[:300])
        assert "not a database" not in answer.text and "SELECT" not in answer.text, path
    assert all("a database does not answer as it should" in answers[path].text for path in failed)


@pytest.fixture
def damaged_reports(airflow: Airflow, reports: Reports) -> Iterator[list[str]]:
    """Of each kind a summary that is cut off, and one that says nothing."""
    made: list[Path] = []
    for layout in LAYOUTS.values():
        for number, content in enumerate(('{"date": "2026', "{}", "[]", "")):
            folder = airflow.settings.home / layout.folder / f"fedcba987654321{number}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / layout.summary).write_text(content)
            made.append(folder / layout.summary)
    yield [f"reports/{kind}/fedcba987654321{number}" for kind in LAYOUTS for number in range(4)]
    for path in made:
        if path.exists():
            path.unlink()
            path.parent.rmdir()


def test_a_damaged_report_spoils_no_list(airflow: Airflow, damaged_reports: list[str], reports: Reports) -> None:
    """The others are listed as before, and its own page says what is wrong."""
    with airflow.client("viewer") as viewer:
        listed = viewer.get(f"{UI}/reports").raise_for_status().text
        viewer.get(f"{UI}/data").raise_for_status()
        found = viewer.get(f"{API}/data/quarantine").raise_for_status().json()["quarantines"]
        pages = {path: viewer.get(f"{UI}/{path}") for path in damaged_reports}
        shown = viewer.get(f"{API}/data/quarantine/fedcba9876543211")
    assert listed.count("report.json is damaged, or of another version") >= 4 * (len(ReportKind) - 1)
    assert all(f'href="{UI}/{path}"' in listed for path in reports.paths)
    assert [each["staging"] for each in found] == [reports.names["quarantine"]]
    for path, page in pages.items():
        assert page.status_code == 503 and "Not available now" in page.text, path
    assert shown.status_code == 503


@pytest.fixture
def vintage_in_use(airflow: Airflow) -> Iterator[Path]:
    """The file that names it, for a test to damage."""
    path = airflow.settings.data_dir / "current.json"
    before = path.read_bytes() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path
    path.unlink()
    if before is not None:
        path.write_bytes(before)


def test_a_file_that_is_cut_off_is_named(airflow: Airflow, vintage_in_use: Path) -> None:
    """By what needs it, with 503; the page that a desk sees first says it among what is wrong."""
    vintage_in_use.write_text('{"data_ver')
    with airflow.client("viewer") as viewer:
        answers = [viewer.get(path) for path in (f"{UI}/data", f"{API}/data/vintages")]
        today = viewer.get(f"{UI}/today").raise_for_status().text
    for answer in answers:
        assert answer.status_code == 503 and "current.json cannot be read as JSON" in answer.text
    assert "he vintage in use cannot be read" in today


def test_an_error_that_nobody_has_foreseen_is_told_in_words(airflow: Airflow, vintage_in_use: Path) -> None:
    """As a problem, or a page of ours with its policy; the connection goes on, and the log has the error."""
    vintage_in_use.write_text("[]")
    with airflow.client("viewer") as viewer:
        page, answer = viewer.get(f"{UI}/data"), viewer.get(f"{API}/data/vintages")
        viewer.get(f"{UI}/zoo").raise_for_status()
    assert (page.status_code, answer.status_code) == (500, 500)
    assert "That did not work" in page.text and "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "unexpected error" in page.text and "unexpected error" in answer.json()["detail"]
    assert "TypeError" in (airflow.settings.home / "api_server.log").read_text(errors="replace")


def test_a_double_click_sends_once_and_confirms_nothing(airflow: Airflow, page: Page) -> None:
    """A form without a question is sent once; one with a question has only asked it."""
    raise_alert(airflow.settings, kind="leak_found", subject="a double click", message="it knows")
    sent: list[str] = []

    def answer(route: Route) -> None:
        sent.append(route.request.url.rpartition("/v1/")[2])
        route.fulfill(json={})

    page.route("**/mlops/v1/data/syncs", answer)
    page.route("**/mlops/v1/alerts/resolve", answer)
    page.goto(f"{airflow.url}{UI}/data")
    page.locator("form[data-post='data/syncs'] button").dblclick()
    expect(page.locator("form[data-post='data/syncs'] output")).to_have_text("Done.")
    page.goto(f"{airflow.url}{UI}/monitoring/alerts")
    button = page.locator("form[data-post='alerts/resolve'] button").first
    button.dblclick()
    expect(button).to_have_text("Really over?")
    page.wait_for_load_state("networkidle")
    assert sent == ["data/syncs"]
    resolve(airflow.settings, Key("leak_found", "a double click"), "the tests")
