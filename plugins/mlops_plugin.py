"""Registers with Airflow: links to MLflow's experiment and model registry in the navigation.

Airflow loads this file in every process, also in those of tasks: nothing heavy may be imported here.
"""

from airflow.plugins_manager import AirflowPlugin

from mlops_tasks.config import load_settings


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
    """The operation's pages in Airflow's own navigation."""

    name = "mlops"
    external_views = mlflow_links()
