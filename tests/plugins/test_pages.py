"""What holds for every page: axe-core has no serious complaint in either theme, nothing moves once it is painted, and
it is there soon."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from mlops_tasks.links import NAVIGATION
from mlops_tasks.state.model_index import index_versions, indexed_versions
from tests.plugins.accessibility import serious
from tests.plugins.api_server import Airflow
from tests.plugins.conftest import sign_in
from tests.plugins.repeated import until
from tests.plugins.reports import Reports
from tests.plugins.runs import Runs
from tests.state.test_model_index import registered

UI = "/mlops/ui"
MOST_SHIFT = 0.1
"""Cumulative layout shift, above which the Web Vitals no longer call a page good."""
SHIFTS = """() => new Promise(done => {
    let sum = 0;
    const observer = new PerformanceObserver(list => list.getEntries().forEach(each => { sum += each.value; }));
    observer.observe({type: "layout-shift", buffered: true});
    setTimeout(() => { observer.disconnect(); done(sum); }, 300);
})"""

FIRST_VERSION, VERSIONS, ITERATIONS = 100_000, 1000, 5000
VISITS, MOST_MS, MOST_BYTES = 8, 1500, 1_000_000
MEASURED = """() => new Promise(done => {
    const told = () => {
        const [paint] = performance.getEntriesByName("first-contentful-paint");
        if (!paint) return setTimeout(told, 20);
        const loaded = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
        const sizes = loaded.map(each => each.encodedBodySize);
        done({painted_ms: paint.startTime, received_bytes: sizes.reduce((sum, each) => sum + each, 0)});
    };
    told();
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


@pytest.fixture(scope="module")
def crowded(airflow: Airflow, runs: Runs) -> Iterator[str]:
    """A home with 1,000 versions more, and a run of 5,000 iterations: its id."""
    settings, before = airflow.settings, indexed_versions(airflow.settings)
    index_versions(settings, [registered(number) for number in range(FIRST_VERSION, FIRST_VERSION + VERSIONS)])
    run = runs.open()
    run.iterate(1, ITERATIONS, ITERATIONS)
    yield run.run_id
    index_versions(settings, [], only=sorted(before))


def test_every_page_is_painted_soon_and_sends_little(airflow: Airflow, browser: Browser, crowded: str) -> None:
    """The first contentful paint of a page that the server renders is its content."""
    context = sign_in(browser, airflow)
    paths = [*(path for _, path in NAVIGATION), f"training/{crowded}"]
    seen = {path: _best_visit(context, f"{airflow.url}{UI}/{path}") for path in paths}
    context.close()
    assert {path: visit for path, visit in seen.items() if visit.painted_ms >= MOST_MS} == {}
    assert {path: visit for path, visit in seen.items() if visit.received_bytes >= MOST_BYTES} == {}


@dataclass(frozen=True)
class Visit:
    """What a browser measured of a page."""

    painted_ms: float
    received_bytes: int


def _best_visit(context: BrowserContext, address: str) -> Visit:
    def visit() -> Visit:
        page = context.new_page()
        _open(page, address)
        found = Visit(**page.evaluate(MEASURED))
        page.close()
        return found

    return until(lambda found: found.painted_ms < MOST_MS, visit, VISITS)
