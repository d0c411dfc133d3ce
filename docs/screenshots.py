"""Takes the README's screenshots from the running stack: `.venv/bin/python docs/screenshots.py`.

Needs a Chromium on the PATH (Debian's package `chromium`). Logs in as a person would.
"""

import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Browser, sync_playwright

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.stack.credentials import ADMIN, read_credentials
from mlops_tasks.stack.environment import airflow_url, mlflow_url

IMAGES = Path(__file__).parent / "images"
SETTLE_MS = 4000
"""The pages draw themselves; there is no event that says they are done."""


def main() -> int:
    """Write docs/images/*.png."""
    settings = load_settings()
    IMAGES.mkdir(exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium on the PATH; on Debian: apt-get install chromium")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        airflow_graph(browser, settings)
        mlflow_comparison(browser, settings)
        browser.close()
    return 0


def airflow_graph(browser: Browser, settings: Settings) -> None:
    """The graph of the newest retraining."""
    credentials = read_credentials(settings)
    with closing(sqlite3.connect(settings.home / "airflow" / "airflow.db")) as database:
        newest = "select run_id from dag_run where dag_id = ? and run_type like 'asset%' order by id desc limit 1"
        run_id = database.execute(newest, ("daily_retraining",)).fetchone()[0]
    page = browser.new_page(viewport={"width": 1600, "height": 560})
    page.goto(f"{airflow_url(settings)}/auth/login")
    page.fill("input[name=username]", ADMIN)
    page.fill("input[name=password]", credentials.airflow_password)
    page.click("button[type=submit]")
    page.wait_for_timeout(SETTLE_MS)
    page.goto(f"{airflow_url(settings)}/dags/daily_retraining/runs/{quote(run_id)}")
    page.wait_for_timeout(SETTLE_MS)
    for button in ("Show Graph (Press g)", "Expand all task groups", "Collapse Details Panel", "Fit View"):
        page.get_by_label(button, exact=True).first.click()
        page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=IMAGES / "airflow_graph.png")


def mlflow_comparison(browser: Browser, settings: Settings) -> None:
    """The experiment's newest runs side by side."""
    import mlflow

    credentials = read_credentials(settings)
    client = mlflow.MlflowClient(f"sqlite:///{settings.home / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("daily_retraining")
    runs = [run.info.run_id for run in client.search_runs([experiment.experiment_id], max_results=2)]
    login = {"username": ADMIN, "password": credentials.mlflow_password}
    page = browser.new_page(viewport={"width": 1600, "height": 1450}, http_credentials=login)
    ids = ",".join(f'"{run}"' for run in runs)
    page.goto(
        f'{mlflow_url(settings)}/#/compare-runs?runs=[{ids}]&experiments=["{experiment.experiment_id}"]',
    )
    page.wait_for_timeout(2 * SETTLE_MS)
    page.get_by_label("Close", exact=True).first.click()
    for section in ("Visualizations", "Parameters"):
        page.get_by_text(section, exact=True).first.click()
    page.wait_for_timeout(SETTLE_MS)
    page.get_by_text("Show diff only", exact=True).nth(1).click()  # metrics that are equal say nothing
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=IMAGES / "mlflow_comparison.png")


if __name__ == "__main__":
    sys.exit(main())
