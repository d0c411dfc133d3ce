"""Today, Data and Monitoring with something to show: accessible in both themes, on a wide and on a narrow screen."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from mlops_tasks.features.store import FeatureStore
from tests.plugins.accessibility import serious
from tests.plugins.api_server import Airflow
from tests.plugins.conftest import sign_in, sound_page
from tests.plugins.desk import Day
from tests.plugins.reports import STAGING, Reports
from tests.plugins.test_screens import UI, WIDE


@pytest.fixture(scope="module")
def paths(airflow: Airflow, day: Day, reports: Reports) -> list[str]:
    """Of every page of a desk."""
    FeatureStore(airflow.settings).compute(day.vintage, "anomalies")
    old, new = day.vintage.data_version, day.blocked
    of_data = ["data", f"data/{new}", f"data/diffs/{old}/{new}", "data/features", "data/features/alpha158"]
    return ["today", *of_data, "monitoring", "monitoring/alerts", f"reports/quarantine/{STAGING}"]


@pytest.fixture(scope="module", params=[("light", 1280), ("dark", 390)], ids=["light", "dark"])
def page(airflow: Airflow, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of the admin's, who sees every form."""
    theme, width = request.param
    with sound_page(sign_in(browser, airflow, width, theme)) as opened:
        yield opened


def test_every_page_is_accessible_and_fits(airflow: Airflow, page: Page, paths: list[str]) -> None:
    """axe-core has no serious complaint, and nothing reaches beyond the screen but in a box that scrolls."""
    found = {}
    for path in paths:
        page.goto(f"{airflow.url}{UI}/{path}")
        page.wait_for_load_state("networkidle")
        wide = page.evaluate(WIDE)
        found[path] = [*serious(page), *wide["outside"], *([] if wide["body"] <= 0 else [wide["body"]])]
    assert {path: wrong for path, wrong in found.items() if wrong} == {}
