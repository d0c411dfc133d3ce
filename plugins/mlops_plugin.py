"""Registers with Airflow: the API and the pages, links to MLflow's experiment and model
registry in the navigation, the timetable that follows an exchange, and the listener that writes the notes of runs.

Airflow loads this file in every process, also in those of tasks: nothing heavy may be imported here.
"""

from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from mlops_api.lazy import LazyApp
from mlops_tasks.config import load_settings
from mlops_tasks.links import NAVIGATION, PAGES, MlflowPages
from mlops_tasks.operators import run_notes
from mlops_tasks.operators.timetable import SessionTimetable

API = "/mlops/v1"
ICONS = {"icon": "today.svg", "icon_dark_mode": "today_dark.svg"}


def base_path() -> str:
    """The path that Airflow itself is served at; empty for the root."""
    return urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")


def own_pages() -> list[dict[str, Any]]:
    """The pages that are shown inside Airflow's: the first in its navigation, the others below *Browse*."""
    base = base_path()
    (first, *others) = (
        {"name": title, "href": f"{base}{PAGES}/{page}", "url_route": page, "destination": "nav"}
        for title, page in NAVIGATION
    )
    icons = {name: f"{base}{PAGES}/assets/{file}" for name, file in ICONS.items()}
    return [{**first, **icons, "nav_top_level": True}, *({**page, "category": "browse"} for page in others)]


def pages_on_runs() -> list[dict[str, str]]:
    """What a DAG run's own page shows in a tab; Airflow fills in the names."""
    href = f"{base_path()}{PAGES}/dag-run/{{DAG_ID}}/{{RUN_ID}}"
    return [{"name": "Trainings", "href": href, "url_route": "trainings", "destination": "dag_run"}]


def mlflow_links() -> list[dict[str, str]]:
    """Links to MLflow. Runs go through a redirect of ours, since only MLflow knows their experiment's id."""
    pages = {
        "MLflow runs": f"{base_path()}{PAGES}/mlflow",
        "MLflow models": MlflowPages.of(load_settings()).models,
    }
    return [{"name": name, "href": page, "destination": "nav", "category": "browse"} for name, page in pages.items()]


class MlopsPlugin(AirflowPlugin):
    """What AlphaOps adds to Airflow."""

    name = "mlops"
    external_views = own_pages() + pages_on_runs() + mlflow_links()
    fastapi_apps = [  # noqa: RUF012  Airflow's own declaration
        {"name": "mlops_api", "url_prefix": API, "app": LazyApp("mlops_api.app:create_app")},
        {"name": "mlops_ui", "url_prefix": PAGES, "app": LazyApp("mlops_ui.app:create_app")},
    ]
    timetables = [SessionTimetable]  # noqa: RUF012  Airflow's own declaration
    listeners = [run_notes]  # noqa: RUF012  Airflow's own declaration
