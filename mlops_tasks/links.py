"""Addresses of the pages that people look at, made from the settings alone: in Airflow's frame, and in MLflow."""

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from mlops_tasks.config import Settings

PAGES = "/mlops/ui"
"""Where the pages lie on Airflow's API server."""
NAVIGATION = (
    ("Today", "today"),
    ("Training", "training"),
    ("Models", "models"),
    ("Zoo", "zoo"),
    ("Deployments", "deployments"),
    ("Monitoring", "monitoring"),
    ("Experiments", "experiments"),
    ("Data", "data"),
    ("Reports", "reports"),
)
"""Title and path of each page that the others lead to; the first is in Airflow's own navigation."""
MACHINE_LEARNING = "workflowType=machine_learning"
"""Opens MLflow where its models and runs are; it opens on pages for language models otherwise."""
RUNS_VIEW = "alphaops"
"""Key of the view of an experiment's runs whose columns come first (`registry/experiments.py`)."""


def framed_path(page: str, *parts: str) -> str:
    """A page (`training`, `reports`) in Airflow's own frame, which asks for a login: its path below Airflow's address.

    Each of `parts` is one segment of the path below the page.
    """
    return "/".join((f"/plugin/{page}{PAGES}/{page}", *(quote(part, safe="") for part in parts)))


def framed(settings: Settings, page: str, *parts: str) -> str:
    """The whole address of a page in Airflow's own frame."""
    return settings.airflow_url + framed_path(page, *parts)


def report_link(settings: Settings, kind: str, name: str) -> str:
    """The page of a report (`reports.ReportKind` and its name)."""
    return framed(settings, "reports", kind, name)


def training_link(settings: Settings, run_id: str) -> str:
    """The page of a training run."""
    return framed(settings, "training", run_id)


def dag_run_path(dag_id: str, run_id: str) -> str:
    """The page of a DAG's run, below Airflow's base address."""
    return f"/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"


def task_path(dag_id: str, task_id: str, run_id: str | None = None) -> str:
    """The page of a task in one run, or, without one, in all runs, below Airflow's base address."""
    run = "" if run_id is None else f"/runs/{quote(run_id, safe='')}"
    return f"/dags/{quote(dag_id, safe='')}{run}/tasks/{quote(task_id, safe='')}"


@dataclass(frozen=True)
class MlflowPages:
    """Pages of an MLflow server."""

    base: str

    @classmethod
    def of(cls, settings: Settings) -> "MlflowPages":
        """Of the server that the settings name, or the stack's own; without the password that an address may hold."""
        server = urlsplit(settings.mlflow_server)
        return cls(server._replace(netloc=server.netloc.rpartition("@")[2]).geturl().rstrip("/"))

    @property
    def models(self) -> str:
        """The registered models."""
        return f"{self.base}/#/models?{MACHINE_LEARNING}"

    def runs(self, experiment_id: str) -> str:
        """The runs of an experiment, in the view whose columns matter."""
        return f"{self.base}/#/experiments/{experiment_id}/runs?viewStateShareKey={RUNS_VIEW}&{MACHINE_LEARNING}"

    def experiment(self, experiment_id: str) -> str:
        """The runs of an experiment that has no such view."""
        return f"{self.base}/#/experiments/{experiment_id}/runs?{MACHINE_LEARNING}"

    def run(self, experiment_id: str, run_id: str) -> str:
        """One run."""
        return f"{self.base}/#/experiments/{experiment_id}/runs/{run_id}?{MACHINE_LEARNING}"
