"""What holds for every page: axe-core has no serious complaint in either theme, nothing moves once it is painted, and
it is there soon."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from mlops_tasks.links import NAVIGATION
from tests.plugins.accessibility import serious
from tests.plugins.api_server import Airflow
from tests.plugins.conftest import sign_in
from tests.plugins.reports import Reports
from tests.plugins.runs import Runs

UI = "/mlops/ui"
MOST_SHIFT = 0.1
"""Cumulative layout shift, above which the Web Vitals no longer call a page good."""
SHIFTS = """() => new Promise(done => {
    let sum = 0;
    const observer = new PerformanceObserver(list => list.getEntries().forEach(each => { sum += each.value; }));
    observer.observe({type: "layout-shift", buffered: true});
    setTimeout(() => { observer.disconnect(); done(sum); }, 300);
})"""


@pytest.fixture(scope="module")
def paths(runs: Runs, reports: Reports) -> list[str]:
    """Of every page, each with something to show, and of one that does not exist."""
    run = runs.finished()
    return [*(path for _, path in NAVIGATION), f"training/{run.run_id}", *reports.paths, "none"]


@pytest.fixture(scope="module", params=["light", "dark"])
def themed(browser: Browser, airflow: Airflow, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    """A window of the admin's in one of Airflow's themes."""
    context = sign_in(browser, airflow, theme=request.param)
    yield context
    context.close()


def _open(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_load_state("load")


def test_axe_has_no_serious_complaint(airflow: Airflow, themed: BrowserContext, paths: list[str]) -> None:
    """Names, labels, roles, contrasts, on every page."""
    page = themed.new_page()
    found = {}
    for path in paths:
        _open(page, f"{airflow.url}{UI}/{path}")
        found[path] = serious(page)
    page.close()
    assert {path: violations for path, violations in found.items() if violations} == {}


def test_nothing_moves_once_it_is_painted(airflow: Airflow, themed: BrowserContext, paths: list[str]) -> None:
    """The cumulative layout shift of each page stays below what the Web Vitals call good."""
    page = themed.new_page()
    shifts = {}
    for path in paths:
        _open(page, f"{airflow.url}{UI}/{path}")
        shifts[path] = page.evaluate(SHIFTS)
    page.close()
    assert {path: shift for path, shift in shifts.items() if shift >= MOST_SHIFT} == {}
