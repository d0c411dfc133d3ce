"""The form that triggers a run, filled in as a person does, in a real browser on a wide and on a narrow screen."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.plugins.api_server import Airflow
from tests.plugins.conftest import sign_in

TYPED = {
    "Hyper-parameters": "lightgbm.num_leaves=31\nlightgbm.learning_rate=0.05\n# going gently\nlinear.estimator=ridge",
    "Early stopping": "lightgbm.patience=30\nlightgbm.overfitting.gap=0.5",
}
"""With many a letter that is a key of Airflow's page, g above all, which opens its graph."""
FIELDS = {"Hyper-parameters": "hyperparameters", "Early stopping": "stopping"}
SECTIONS = {"Hyper-parameters": "Hyper-parameters", "Early stopping": "Advanced"}


@pytest.fixture(params=[1280, 390])
def form(request: pytest.FixtureRequest, browser: Browser, airflow: Airflow) -> Iterator[Locator]:
    """The dialog of `daily_retraining`."""
    context = sign_in(browser, airflow, request.param)
    page = context.new_page()
    page.goto(f"{airflow.url}/dags/daily_retraining")
    page.get_by_role("button", name="Trigger").first.click()
    yield page.get_by_role("dialog")
    context.close()


def test_what_is_typed_is_what_the_run_gets(form: Locator, airflow: Airflow) -> None:
    """Letter by letter; the dialog fits the screen, and each help is a few lines."""
    page: Page = form.page
    for title, text in TYPED.items():
        field = form.locator(f"textarea[name=element_{FIELDS[title]}]")
        section = form.get_by_role("button", name=SECTIONS[title], exact=True)
        section.wait_for()  # before it nothing of the form is there
        if section.get_attribute("aria-expanded") != "true":  # one is open at a time
            section.click()
        expect(field).to_be_visible()
        field.press_sequentially(text, delay=20)  # ms, as fast as a person at best
        expect(field).to_have_value(text)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    form.get_by_role("button", name="Trigger").last.click()
    expect(form).to_be_hidden()
    with airflow.client("admin") as admin:
        found = admin.get("/api/v2/dags/daily_retraining/dagRuns", params={"order_by": "-id", "limit": 1}).json()
    conf = found["dag_runs"][0]["conf"]
    assert {title: conf[field] for title, field in FIELDS.items()} == TYPED
