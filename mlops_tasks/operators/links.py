"""Links that Airflow shows on the page of a stage's task."""

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.sdk import BaseOperatorLink

from mlops_tasks.config import load_settings
from mlops_tasks.links import MlflowPages, framed_path

Known = Mapping[str, Any]
"""A stage's arguments and, once it is done, its result."""


class StageLink(BaseOperatorLink):
    """A link whose address follows from what the operator knows when its task ends, successfully or not."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        """The button's text."""
        return self._name

    @property
    def xcom_key(self) -> str:
        """Where Airflow keeps the address."""
        return f"_link_{self._name}"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address; empty, and no button is shown, while there is nothing to link to."""
        address = _LINKS[operator.stage][self._name](operator.known)
        return _below_base(address) if address.startswith("/") else address


def links_of(stage: str) -> tuple[StageLink, ...]:
    """The links of a stage's task."""
    return tuple(map(StageLink, _LINKS.get(stage, {})))


def _training(known: Known) -> str:
    return framed_path("training", *([known["run_id"]] if "run_id" in known else []))


def _mlflow_run(known: Known) -> str:
    """The run's page."""
    if "run_id" not in known:
        return ""
    return MlflowPages.of(load_settings()).run(known["experiment_id"], known["run_id"])


def _mlflow_ab_tests(known: Known) -> str:
    """The page of the only experiment's run, or of all of them."""
    runs = known.get("runs", {})
    if not runs:
        return ""
    pages, experiment = MlflowPages.of(load_settings()), known["experiment_id"]
    return pages.experiment(experiment) if len(runs) > 1 else pages.run(experiment, *runs.values())


def _ab_tests(known: Known) -> str:
    """The page of the only experiment's report, or the list."""
    names = list(known.get("runs", {}))
    return framed_path("reports", *(["ab_test", *names] if len(names) == 1 else [])) if names else ""


def _report(kind: str, key: str) -> Callable[[Known], str]:
    """The page of the report whose folder or name is the value of a key."""

    def address(known: Known) -> str:
        if key not in known:
            return ""
        return framed_path("reports", kind, PurePosixPath(known[key]).name)

    return address


def _below_base(path: str) -> str:
    """Below the path that Airflow itself is served at."""
    return urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/") + path


_LINKS: Mapping[str, Mapping[str, Callable[[Known], str]]] = {
    "data.validate_bars": {
        "Data docs": _report("data_docs", "staging"),
        "Quarantine": _report("quarantine", "staging"),
    },
    "data.render_docs": {"Data docs": _report("data_docs", "staging")},
    "training.train": {"Training": _training},
    "registry.log_run": {"MLflow run": _mlflow_run},
    "registry.log_study": {"MLflow run": _mlflow_run},
    "registry.explain_model": {"Explanation": _report("explanation", "path")},
    "monitoring.check_drift": {"Drift report": _report("drift", "path")},
    "experiments.compare_models": {"Comparison": _report("comparison", "path")},
    "experiments.analyze": {"MLflow run": _mlflow_ab_tests, "Report": _ab_tests},
}
