"""`/docs` in a real browser: nothing from elsewhere, a request tried with the token, and nothing for who has none."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.docs_page import BROWSED, DOCUMENT, PAGE
from tests.browsers import chromium
from tests.operation import make_champion
from tests.registry.conftest import new_home, new_operation
from tests.registry.trainings import INSTRUMENTS, Spec
from tests.serving.conftest import RunningService

TOKEN = "token-of-the-tests"
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def address(
    tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path, vintage_template: tuple[Path, str, str]
) -> Iterator[str]:
    """A service with a champion."""
    with pytest.MonkeyPatch.context() as patch:
        operation = new_operation(new_home(tmp_path_factory.mktemp("home"), migrated_mlflow, patch), vintage_template)
        make_champion(operation.settings, operation.register(Spec(key="a" * 16)))
        running = RunningService(operation.settings)
        with ScoringClient(operation.settings) as client:
            client.refresh()
        yield operation.settings.scoring_url
        running.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """Signed in; a script's error, and a request to anywhere else, fail the test."""
    context = browser.new_context(http_credentials={"username": "ann", "password": TOKEN, "origin": address})
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
    opened.on(
        "request", lambda asked: None if asked.url.startswith((address, "data:", "blob:")) else wrong.append(asked.url)
    )
    yield opened
    context.close()
    assert wrong == []


@pytest.mark.parametrize("width", [1280, 390])
def test_a_request_is_tried_with_the_token(page: Page, address: str, width: int) -> None:
    """Signed in and authorised, a person sees every route and gets scores; without *Authorize* the answer is 401."""
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{address}{PAGE}")
    for route in ("/v1/score", "/v1/refresh", "/health", "/metrics"):
        expect(page.locator(f'.opblock-summary-path[data-path="{route}"]')).to_be_visible(timeout=PATIENCE_MS)
    page.locator('.opblock-summary-path[data-path="/v1/score"]').click()
    page.get_by_role("button", name="Execute").click()
    answer = page.locator(".live-responses-table .response-col_status")
    expect(answer.last).to_contain_text("401", timeout=PATIENCE_MS)

    page.locator(".scheme-container").get_by_role("button", name="Authorize").click()
    page.locator(".modal-ux input").fill(TOKEN)
    page.locator(".modal-ux").get_by_role("button", name="Apply credentials").click()
    page.locator(".modal-ux").get_by_role("button", name="Close").first.click()
    page.get_by_role("button", name="Execute").click()
    expect(answer.last).to_contain_text("200", timeout=PATIENCE_MS)
    shown = json.loads(page.locator(".live-responses-table .response-col_description code").first.inner_text())
    assert sorted(row["instrument"] for row in shown["scores"]) == sorted(INSTRUMENTS)
    assert "Could not resolve reference" not in page.locator("body").inner_text()


def test_a_browser_is_asked_for_the_token_and_shown_nothing_before(address: str) -> None:
    """Each page says how to sign in; a wrong password gets what none gets; the token is in no answer."""
    wrong = ("", basic("ann", "wrong"), basic("ann", ""), "Basic", "Basic %%%", f"Basic {TOKEN}", f"basic  {TOKEN}")
    for path in BROWSED:
        answers = [httpx.get(address + path, headers={"Authorization": each} if each else {}) for each in wrong]
        assert {answer.status_code for answer in answers} == {401}
        assert {answer.headers["WWW-Authenticate"] for answer in answers} == {'Basic realm="AlphaOps scoring"'}
        assert len({answer.text for answer in answers}) == 1
        assert "swagger" not in answers[0].text.lower() and TOKEN not in answers[0].text
        allowed = [httpx.get(address + path, headers={"Authorization": each}) for each in (basic("", TOKEN), bearer())]
        assert [answer.status_code for answer in allowed] == [200, 200]
        assert all(TOKEN not in answer.text for answer in allowed)
        policy = allowed[0].headers.get("Content-Security-Policy", "").split("; ")
        strict = {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"}
        assert path == DOCUMENT or strict <= set(policy)
    for path in ("/redoc", "/docs/oauth2-redirect"):  # of FastAPI, whose pages load theirs from elsewhere
        assert httpx.get(address + path, headers={"Authorization": bearer()}).status_code == 404


def test_what_a_browser_sends_by_itself_opens_no_other_route(address: str) -> None:
    """A foreign page could make it send a password anywhere; only the documentation takes it, and only to be read."""
    headers = {"Authorization": basic("ann", TOKEN)}
    asked = [("POST", "/v1/score"), ("POST", "/v1/refresh"), ("GET", "/health"), ("GET", "/metrics"), ("GET", "/x")]
    asked += [("POST", PAGE), ("POST", DOCUMENT), ("GET", f"{PAGE}/"), ("GET", "/redoc")]
    for method, path in asked:
        answer = httpx.request(method, address + path, headers=headers)
        assert answer.status_code == 401, path
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="AlphaOps scoring"'


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def bearer() -> str:
    return f"Bearer {TOKEN}"
