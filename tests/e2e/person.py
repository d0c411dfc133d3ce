"""A person at the pages inside Airflow's: signs in once, and clicks."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from playwright.sync_api import Browser, FrameLocator, Locator, Page, expect

from mlops_tasks.config import PROJECT
from mlops_tasks.links import framed_path
from tests.e2e.questions import PATIENCE_MS, sign_in

PICTURES = "SCREENSHOTS"
"""Environment variable: where it is set, the pictures of the user guide are taken anew."""
IMAGES = PROJECT / "docs" / "images"


@dataclass(frozen=True)
class Person:
    """Somebody with one window."""

    page: Page
    url: str
    """Of Airflow."""

    def open(self, name: str, *parts: str) -> FrameLocator:
        """A page in Airflow's frame, by the address that may be shared."""
        self.page.goto(self.url + framed_path(name, *parts))
        frame = self.frame
        expect(frame.locator("h1")).to_be_visible(timeout=PATIENCE_MS)
        return frame

    @property
    def frame(self) -> FrameLocator:
        """The frame that Airflow shows."""
        return self.page.frame_locator("iframe")

    def starts(self, form: Locator, button: str) -> tuple[str, str]:
        """Press a button that asks once more, press it again, and read off the DAG run that it has started."""
        press = form.get_by_role("button", name=button, exact=True)
        press.click()
        form.get_by_role("button", name=re.compile("^Really")).click()
        link = form.locator("output a")
        expect(link).to_be_visible(timeout=PATIENCE_MS)
        dag_id, run_id = link.inner_text().split()
        return dag_id, run_id

    def take_picture(self, name: str) -> None:
        """For the user guide, where it is asked for."""
        if PICTURES in os.environ:
            self.frame.locator("body").evaluate("() => { document.activeElement?.blur(); scrollTo(0, 0); }")
            self.page.screenshot(path=IMAGES / f"{name}.png")


@contextmanager
def person(browser: Browser, url: str, user: str, password: str) -> Iterator[Person]:
    """Sign in, and close the window at the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    sign_in(page, url, user, password)
    yield Person(page, url)
    context.close()
