"""Registers with Airflow: links to MLflow's experiment and model registry in the navigation, and the timetable that
follows an exchange.

Airflow loads this file in every process, also in those of tasks: nothing heavy may be imported here.
"""

from airflow.plugins_manager import AirflowPlugin

from mlops_tasks.config import load_settings
from mlops_tasks.operators.timetable import SessionTimetable


def mlflow_links() -> list[dict[str, str]]:
    """MLflow's pages, at the address that the stack gives it."""
    stack = load_settings().stack
    address = f"http://{stack.host}:{stack.mlflow_port}"
    pages = {"MLflow runs": "#/experiments", "MLflow models": "#/models"}
    return [
        {"name": name, "href": f"{address}/{page}", "destination": "nav", "category": "browse"}
        for name, page in pages.items()
    ]


class MlopsPlugin(AirflowPlugin):
    """What the operation adds to Airflow."""

    name = "mlops"
    external_views = mlflow_links()
    timetables = [SessionTimetable]  # noqa: RUF012  Airflow's own declaration
