"""The pages of versions, deployments and experiments as a person sees them, in a real Airflow and a browser."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.plugins.accessibility import serious
from tests.plugins.api_server import Airflow
from tests.plugins.conftest import sign_in
from tests.plugins.runs import Runs
from tests.plugins.serving import BEFORE, CANDIDATE, CHAMPION, EXPERIMENT, FIRST, PLAIN, WITHDRAWN, airflow
from tests.plugins.test_screens import WIDE

__all__ = ["airflow"]

UI = "/mlops/ui"
PATHS = [
    "models",
    f"models/{CHAMPION}",
    f"models/{WITHDRAWN}",
    f"models/compare?version={CHAMPION}&version={BEFORE}&version={FIRST}",
    f"deployments?version={BEFORE}&strategy=canary",
    "experiments",
    f"experiments/{EXPERIMENT}",
    "zoo",
]


@pytest.fixture(autouse=True)
def calm(page: Page) -> Iterator[None]:
    """No text of the data is ever executed."""
    yield
    assert page.title() != "taken"


def visit(page: Page, airflow: Airflow, path: str) -> Page:
    """Open a page and wait until it is there."""
    page.goto(f"{airflow.url}{UI}/{path}")
    page.wait_for_load_state("load")
    return page


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_every_page_can_be_read_by_everybody(airflow: Airflow, browser: Browser, theme: str, width: int) -> None:
    """Nothing reaches beyond the screen, and axe-core has no serious complaint."""
    context = sign_in(browser, airflow, width, theme)
    page, found = context.new_page(), {}
    for path in PATHS:
        visit(page, airflow, path)
        seen = page.evaluate(WIDE)
        assert (seen["body"], seen["outside"]) == (0, []), path
        found[path] = serious(page)
    context.close()
    assert {path: violations for path, violations in found.items() if violations} == {}


def test_versions_are_filtered_sorted_and_compared_by_their_address(airflow: Airflow, page: Page) -> None:
    """A search is an address, so back and reload work; chosen versions lead to a page that compares them."""
    visit(page, airflow, "models")
    expect(page.locator(".versions tbody tr")).to_have_count(50)
    page.get_by_label("State").select_option("champion")
    page.get_by_role("button", name="Search").click()
    expect(page).to_have_url(re.compile(r"state=champion"))
    expect(page.locator(".versions tbody tr")).to_have_count(1)
    expect(page.locator(".versions tbody tr")).to_contain_text(f"Version {CHAMPION}")
    page.go_back()
    expect(page.locator(".versions tbody tr")).to_have_count(50)
    visit(page, airflow, f"models?text=model+{BEFORE}&metric=test_ic_mean&low=-1&high=1&sort=metric.test_ic_mean")
    expect(page.locator(".versions tbody tr").first).to_contain_text(f"Version {BEFORE}")
    expect(page.locator("th[aria-sort=descending]")).to_have_text("IC, test")
    page.get_by_role("link", name="IC, test", exact=True).click()
    expect(page).to_have_url(re.compile(r"sort=metric.test_ic_mean&ascending=True"))
    expect(page.locator("th[aria-sort=ascending]")).to_have_text("IC, test")
    visit(page, airflow, "models?data_version=desk0123456789ab&sort=version&ascending=true&family=lightgbm")
    for version in (BEFORE, CHAMPION):
        page.get_by_label(f"compare version {version}").check()
    page.get_by_role("button", name="Compare the chosen ones").click()
    expect(page.locator("#metrics thead")).to_contain_text(f"Version {BEFORE}")
    expect(page.locator("#metrics tbody tr")).to_have_count(4)
    page.get_by_label("Another version").fill(str(FIRST))
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#metrics svg").first.locator("rect")).to_have_count(3)


def test_what_cannot_be_searched_for_is_a_page_that_says_so(airflow: Airflow) -> None:
    """With the status; an unknown version, plot or experiment is a 404."""
    asked = {
        **dict.fromkeys(("models?metric=x&low=abc", "models?sort=x", "models?state=x", "models?page=0"), 422),
        **dict.fromkeys(("models?text=%00", "models?page=99999999999", "deployments?version=99999999999"), 422),
        **dict.fromkeys(("models/99", "models/compare?version=99", "deployments?version=99", "experiments/none"), 404),
        **dict.fromkeys((f"models/{CHAMPION}/plots/none.png", f"models/{CHAMPION}/plots/..%2Fplan.json"), 404),
        **dict.fromkeys(("models?page=900", "deployments?page=900", "models?state=&family=&low="), 200),
    }
    with airflow.client("viewer") as viewer:
        answers = {path: viewer.get(f"{UI}/{path}") for path in asked}
    assert {path: answer.status_code for path, answer in answers.items()} == asked


def test_a_version_has_its_pictures_and_its_story(airflow: Airflow, page: Page) -> None:
    """Gate, history, lineage, replays; pictures of evaluation and explanation are shown; a link leads to MLflow."""
    visit(page, airflow, f"models/{CHAMPION}")
    expect(page.locator("h1")).to_contain_text("champion")
    expect(page.locator("#gate")).to_contain_text("promote by rule superiority, against version 102")
    expect(page.locator("#lineage")).to_contain_text("commit 3ec27c8a")
    expect(page.locator("#replays")).to_contain_text("<script>")
    for picture in page.locator("img.plot").all():
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("each => each.naturalWidth") > 100
    assert page.locator("img.plot").count() == 2
    link = page.get_by_role("link", name="Run in MLflow")
    assert str(link.get_attribute("href")).startswith(f"{UI}/mlflow/trainings/")
    page.get_by_label("Tag", exact=True).fill("desk")
    page.get_by_label("Value, empty").fill("asia")
    page.get_by_role("button", name="Tag", exact=True).click()
    expect(page.locator("#summary .tag")).to_have_text("desk=asia")


def test_a_rollback_asks_twice_and_leads_to_its_run(airflow: Airflow, page: Page) -> None:
    """The shares, the steps of the rollout, what a deployment would do; the service's silence holds up nothing."""
    visit(page, airflow, f"deployments?version={WITHDRAWN}")
    expect(page.locator("#serving")).to_contain_text("95%")
    expect(page.locator("#health output")).to_have_text("does not answer")
    expect(page.locator("#rollouts .now")).to_have_text("5%")
    expect(page.locator("#plan")).to_contain_text("would be refused")
    expect(page.locator("#past")).to_contain_text(f"canary of version {PLAIN}")
    visit(page, airflow, f"deployments?version={BEFORE}&strategy=canary")
    expect(page.locator("#plan li").first).to_contain_text(f"until the rollout of version {CANDIDATE} is decided")
    form = page.locator("form[data-post='deployments/rollback']")
    form.get_by_label("Reason").fill("bad fills")
    form.get_by_role("button").click()
    expect(form.get_by_role("button")).to_have_text("Really roll back?")
    form.get_by_role("button").click()
    link = form.locator("output a")
    expect(link).to_contain_text("operate_models manual__")
    assert "/dags/operate_models/runs/manual__" in str(link.get_attribute("href"))


def test_what_a_script_fills_in_survives_the_pages_refresh(airflow: Airflow, page: Page) -> None:
    """Whether the scoring service answers is told all the time, while the page around it is brought up to date."""
    visit(page, airflow, "deployments")
    expect(page.locator("#service")).to_have_text("does not answer")
    page.evaluate(
        """() => {
            window.seen = new Set();
            setInterval(() => seen.add(document.querySelector("#service").textContent));
        }"""
    )
    with page.expect_response(lambda answer: answer.url.endswith("/mlops/ui/deployments")):
        pass
    page.wait_for_timeout(500)
    assert page.evaluate("[...seen]") == ["does not answer"]


def test_an_experiment_shows_its_intervals_and_is_moved(airflow: Airflow, page: Page) -> None:
    """Each look with its interval, the report's pictures; a form registers another one with its arms and metrics."""
    visit(page, airflow, f"experiments/{EXPERIMENT}")
    expect(page.locator(".finding").first.locator("tbody tr")).to_have_count(4)
    expect(page.locator(".finding").first.locator("line.span")).to_have_count(4)
    assert page.locator("img.plot").count() == 3
    visit(page, airflow, "experiments")
    page.get_by_text("Register an experiment").click()
    form = page.locator("form[data-experiment]")
    for label, text in (("Name", "by-page"), ("Owner", "desk")):
        form.get_by_label(label, exact=True).first.fill(text)
    form.get_by_label("Hypothesis").fill("It costs less than before, by half a point.")
    form.get_by_label("Share of the layer's units").fill("0.000002")
    form.locator("select[name=layer]").select_option("desk_accounts")
    primary = form.locator("[data-metric]").first
    primary.get_by_label("Metric").fill("cost_bps")
    primary.get_by_label("Better").select_option("lower")
    primary.get_by_label("Smallest effect").fill("0.5")
    form.get_by_role("button", name="Register").click()
    expect(form.locator("output")).to_have_text("Registered as a draft.")
    visit(page, airflow, "experiments/by-page")
    expect(page.locator("#summary")).to_contain_text("cost_bps (primary, better: lower, at least 0.5)")
    page.locator("#moves select[name=to]").select_option("running")
    page.locator("#moves form").first.get_by_label("Reason").fill("go")
    for _ in range(2):
        page.locator("#moves form").first.get_by_role("button").click()
    expect(page.locator("h1 .badge")).to_have_text("running")


def test_who_may_only_see_has_no_forms(airflow: Airflow) -> None:
    """Pages are the same, without what changes something."""
    with airflow.client("viewer") as viewer:
        for path in ("deployments", f"models/{CHAMPION}", "experiments", f"experiments/{EXPERIMENT}"):
            answer = viewer.get(f"{UI}/{path}")
            assert answer.status_code == 200 and "data-post" not in answer.text, path


def test_trainings_under_way_are_above_the_versions(airflow: Airflow, page: Page) -> None:
    """With their progress, which moves without a reload."""
    run = Runs(airflow.settings, datetime(2026, 3, 2, 9, 30, tzinfo=UTC)).open("lightgbm")
    run.iterate(1, 10)
    visit(page, airflow, "models")
    bar = page.locator("#trained p", has=page.locator(f"a[href$='{run.run_id}']"))
    expect(bar).to_contain_text("25%")
    run.iterate(11, 20)
    expect(bar).to_contain_text("50%")
    run.add(("cancelled", {"asked_by": "ann"}))
    expect(bar).to_have_count(0)
