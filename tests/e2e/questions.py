"""Questions that a task asks people, on Airflow's pages."""

from dataclasses import dataclass

from playwright.sync_api import Browser, Page

PATIENCE_MS = 120_000
"""Pages load slowly where other tests use all cores."""


@dataclass(frozen=True)
class Question:
    """One that waits for its answer."""

    url: str
    """Of Airflow."""
    subject: str

    def answer(self, browser: Browser, user: str, password: str, option: str) -> int:
        """Sign in, find it in the list of required actions, and click an option; the status of the server's answer."""
        context = browser.new_context()
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        sign_in(page, self.url, user, password)
        page.goto(f"{self.url}/required_actions")
        page.get_by_role("link", name=self.subject).first.click()
        button = page.get_by_test_id(f"hitl-option-{option}")
        with page.expect_response(
            lambda response: "hitlDetails" in response.url and response.request.method == "PATCH"
        ) as answered:
            button.click()
        status = answered.value.status
        context.close()
        return status


def sign_in(page: Page, url: str, user: str, password: str) -> None:
    """By the form to which whoever is not signed in is led."""
    page.goto(url)
    page.locator("input[name=username]").fill(user)
    page.locator("input[name=password]").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda found: "/auth/" not in found)
