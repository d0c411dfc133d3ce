"""Reports in Airflow: each has its page, and neither an address nor what lies in a report reaches beyond it."""

import re
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import Page, expect

from mlops_tasks.reports import ReportKind, find_report
from tests.plugins.api_server import Airflow
from tests.plugins.conftest import PATIENCE_MS
from tests.plugins.reports import BROKEN_ROWS, STAGING, Reports

UI = "/mlops/ui"
SECRET = "the secret of the tests"


def test_the_list_leads_to_a_page_of_each_report(airflow: Airflow, reports: Reports) -> None:
    """Every kind, by day, with what came out; each page has the figures, its picture and its files."""
    with airflow.client("viewer") as viewer:
        listed = viewer.get(f"{UI}/reports").text
        pages = {path: viewer.get(f"{UI}/{path}") for path in reports.paths}
    assert all(f'href="{UI}/{path}"' in listed for path in reports.paths)
    assert "2026-02-27" in listed and "3 columns beyond the limit" in listed
    texts = {path.split("/")[1]: re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", page.text)) for path, page in pages.items()}
    assert all(page.status_code == 200 for page in pages.values())
    assert "VSUMD60 level of the newest day 1.70 31.0% 0.62 0.0% 12.0% 6.0%" in texts["drift"]
    assert "the scores themselves; 12% of the score's importance (not known for 1 more)" in texts["drift"]
    assert texts["drift"].count("1.70 31.0% 0.62 0.0% not known") == 1
    assert "78, 2025-11-03 to 2026-02-27" in texts["comparison"]
    assert "lightgbm – – 0.0250 ± 0.0070" in texts["model_table"]
    assert "stop harm : running" in texts["ab_test"] and "treatment 0.5 (version 2)" in texts["ab_test"]
    assert "VSUMD60 12%" in texts["explanation"] and "6,000 scores of 120 days" in texts["explanation"]
    for kind in ("data_docs", "quarantine"):
        assert "rejected" in texts[kind] and "2,400 received, 1,999 accepted, 401 in quarantine" in texts[kind]


def test_files_of_a_report_come_with_a_policy_that_lets_them_do_nothing(airflow: Airflow, reports: Reports) -> None:
    """HTML and pictures in a sandbox without scripts, all else as a download; nothing is guessed from the content."""
    with airflow.client("viewer") as viewer:
        for kind, name in reports.names.items():
            for file in find_report(airflow.settings, kind, name).files:
                answer = viewer.get(f"{UI}/reports/{kind}/{name}/files/{file}")
                assert answer.status_code == 200
                policy = answer.headers["Content-Security-Policy"].split("; ")
                assert {"sandbox allow-same-origin", "default-src 'none'", "base-uri 'none'"} <= set(policy)
                assert not any(
                    word in answer.headers["Content-Security-Policy"] for word in ("script", "forms", "popups")
                )
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                inline = answer.headers["Content-Disposition"].startswith("inline")
                assert inline == file.endswith((".html", ".png"))


@pytest.fixture
def planted(airflow: Airflow, reports: Reports) -> list[Path]:
    """A secret, links to it where reports lie, and a file in a report that no layout knows."""
    home = airflow.settings.home
    (home / "secrets" / "planted").write_text(SECRET)
    drift = home / "reports" / "drift"
    links = [drift / "linked", drift / "2026-01-01-v1-linkedpi" / "drift.png", drift / "2026-01-02-v1-linkedre"]
    links[1].parent.mkdir()
    (links[1].parent / "report.json").write_text((drift / reports.names["drift"] / "report.json").read_text())
    links[0].symlink_to(home / "secrets")
    links[1].symlink_to(home / "secrets" / "planted")
    links[2].symlink_to(home / "reports" / "comparison" / reports.names["comparison"])
    (drift / reports.names["drift"] / "notes.txt").write_text(SECRET)
    return links


def test_no_address_leads_out_of_the_reports(airflow: Airflow, reports: Reports, planted: list[Path]) -> None:
    """Dots, encoded once or twice, backslashes, absolute names, NUL bytes, links, and files that no report has: 404."""
    ours = f"{UI}/reports/drift/{reports.names['drift']}"
    steps = [
        "../../../secrets/planted",
        "../../secrets/planted",
        "/etc/passwd",
        "..",
        ".",
        "report.json\0.png",
        "a" * 5000,
    ]
    steps += [f"{airflow.settings.home}/secrets/planted", "..\\..\\secrets\\planted", "~/x", ".lock", "notes.txt"]
    once = [quote(step, safe="") for step in steps]
    paths = [f"{ours}/files/{each}" for each in (*steps, *once, *(quote(step, safe="") for step in once))]
    paths += [f"{UI}/reports/drift/{each}" for each in (*once, *(f"{step}/files/report.json" for step in once))]
    paths += [f"{UI}/reports/{each}/{STAGING}" for each in ("secrets", "..", "%2e%2e", "DRIFT")]
    paths += [
        f"{UI}/reports/drift/linked/files/planted",
        f"{UI}/reports/drift/{planted[1].parent.name}/files/drift.png",
    ]
    paths += [f"{UI}/reports/drift/{planted[2].name}", f"{UI}/reports/drift/references"]
    token = airflow.token("viewer")
    for path in paths:
        status, text = _raw_answer(airflow, path, token)
        assert status == 404, path
        assert SECRET not in text and "root:" not in text, path
    with airflow.client("viewer") as viewer:
        listed = viewer.get(f"{UI}/reports").raise_for_status().text
    assert "linkedre" not in listed and "/linked" not in listed


def _raw_answer(airflow: Airflow, path: str, token: str) -> tuple[int, str]:
    """Of a request whose path is sent as it is: clients would put dots right."""
    connection = HTTPConnection(urlsplit(airflow.url).netloc, timeout=60)
    connection.putrequest("GET", path.replace("\0", "%00").replace("\\", "%5C"), skip_accept_encoding=True)
    connection.putheader("Authorization", f"Bearer {token}")
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    return answer.status, text


def test_the_quarantine_is_shown_a_page_at_a_time(airflow: Airflow, reports: Reports) -> None:
    """All rows, each once, in order; a page that is not there is a 404."""
    address = f"{UI}/reports/quarantine/{STAGING}"
    with airflow.client("viewer") as viewer:
        pages = [viewer.get(address, params={"page": number}).text for number in range(1, 5)]
        gone = [viewer.get(address, params={"page": number}).status_code for number in (0, 99)]
        assert viewer.get(address).text == pages[0]
    counted = [page.count('<td class="said">open is missing') for page in pages]
    assert sum(counted) == BROKEN_ROWS and max(counted) <= 100
    assert gone == [404, 404]


def test_a_report_runs_nothing_whatever_is_in_it(airflow: Airflow, reports: Reports, page: Page) -> None:
    """Texts of sources, models and errors are shown as they are; a script in the data docs themselves does not run,
    neither in the page's frame nor when it is opened alone, and they load nothing; their own links work."""
    docs = airflow.settings.data_dir / "quarantine" / STAGING / "docs" / "index.html"
    attack = (
        "<script>top.document.title='ta'+'ken'</script><img src='/mlops/ui/assets/page.css?stolen'><form action='/x'>"
    )
    docs.write_text(docs.read_text().replace("</body>", f"{attack}<meta http-equiv=refresh content='0;url=/x'></body>"))
    asked: list[str] = []
    page.on("response", lambda response: asked.append(response.url))
    for path in (*reports.paths, "reports", f"reports/data_docs/{STAGING}/files/index.html"):
        page.goto(f"{airflow.url}{UI}/{path}")
        page.wait_for_load_state("networkidle")
        assert "taken" not in page.title(), path
        assert page.locator("img[src=x]").count() == 0, path
        assert all("taken" not in frame.title() for frame in page.frames), path
    assert not any("stolen" in url for url in asked)
    page.goto(f"{airflow.url}{UI}/reports/data_docs/{STAGING}")
    frame = page.frame_locator("iframe.docs")
    frame.get_by_role("link", name="bars").click()
    expect(frame.locator("body")).to_contain_text("Vintage: rejected", timeout=PATIENCE_MS)


def test_a_home_without_reports_says_how_to_get_them(tmp_path: Path) -> None:
    """Nothing is listed, and asking for one names those kinds that there are."""
    from mlops_tasks.config import Settings
    from mlops_tasks.reports import NoReportError, newest_reports

    settings = Settings(home=tmp_path)
    assert [newest_reports(settings, kind, 5) for kind in ReportKind] == [[]] * len(ReportKind)
    with pytest.raises(NoReportError, match="there are drift, comparison"):
        find_report(settings, "none", "x")
