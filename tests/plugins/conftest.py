"""One Airflow and one browser for all tests of the plugin, with training runs and reports in its home."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from mlops_tasks.config import Settings, StackSettings
from tests.browsers import chromium
from tests.operation import free_ports
from tests.plugins.api_server import Airflow, start_airflow
from tests.plugins.desk import Day, happened
from tests.plugins.reports import Reports, write_reports
from tests.plugins.runs import Runs

SEND_TIMEOUT_S, HEARTBEAT_S, TOPICS = 2.0, 2.0, 12
STREAMS = f"{{send_timeout_s: {SEND_TIMEOUT_S}, heartbeat_s: {HEARTBEAT_S}, topics: {TOPICS}}}"
PATIENCE_MS = 90_000
"""Pages load slowly where other tests use all cores."""
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A fresh home; the server of most tests."""
    settings = _home(tmp_path_factory.mktemp("airflow_home"))
    (settings.home / "settings.yaml").write_text(f"streams: {STREAMS}\n")
    with start_airflow(settings) as server:
        yield server


@pytest.fixture(scope="session")
def desk_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A server of its own for versions, rollouts and experiments, of which other tests' pages would tell, too."""
    with start_airflow(_home(tmp_path_factory.mktemp("desk_home"))) as server:
        yield server


def _home(folder: Path) -> Settings:
    airflow_port, mlflow_port, scoring_port = free_ports(3)
    stack = StackSettings(airflow_port=airflow_port, mlflow_port=mlflow_port, scoring_port=scoring_port)
    return Settings(home=folder, stack=stack)


@pytest.fixture(scope="session")
def runs(airflow: Airflow) -> Runs:
    """Writes training runs as an engine in this process would."""
    return Runs(airflow.settings, datetime(2026, 3, 2, 9, 30, tzinfo=UTC))


@pytest.fixture(scope="session")
def reports(airflow: Airflow, tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """A report of each kind, with texts that would be markup."""
    return write_reports(airflow.settings, tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def day(airflow: Airflow) -> Iterator[Day]:
    """A day of a desk, taken back when the module's tests are over."""
    with happened(airflow.settings) as told:
        yield told


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for longer, since its event loop would be that of all tests after it."""
    with chromium() as opened:
        yield opened


def sign_in(browser: Browser, airflow: Airflow, width: int = 1280, theme: str = "dark") -> BrowserContext:
    """A window of the admin's, in one of Airflow's themes."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    context.add_cookies([{"name": "_token", "value": airflow.token("admin"), "url": airflow.url}])
    context.add_init_script(f"localStorage.setItem('theme', '{theme}')")
    context.set_default_timeout(PATIENCE_MS)
    return context


@contextmanager
def sound_page(context: BrowserContext) -> Iterator[Page]:
    """A new page of a window, which is closed at the end; a script's error fails whoever has it then."""
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert errors == []


@pytest.fixture(scope="module")
def page(browser: Browser, airflow: Airflow) -> Iterator[Page]:
    """A page of the admin's; a script's error fails the module."""
    with sound_page(sign_in(browser, airflow)) as opened:
        yield opened
