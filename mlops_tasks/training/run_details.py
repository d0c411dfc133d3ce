"""What a training run was asked to do, for pages and the command line, while it runs and afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlops_tasks.config import Settings
from mlops_tasks.dag_run import DagRun
from mlops_tasks.errors import StoreError
from mlops_tasks.state.training_runs import find_training_run


@dataclass(frozen=True)
class RunDetails:
    """What was asked for.

    Attributes
    ----------
    segments
        Name to first and last day, ISO dates.
    hyperparameters, stopping
        All of them, including defaults.
    dag_run
        The Airflow run that it belongs to; None where it was not started by Airflow.
    """

    seed: int
    data_version: str
    last_date: str
    feature_set: str
    feature_version: str
    horizon: int
    priority: int
    segments: Mapping[str, tuple[str, str]]
    hyperparameters: Mapping[str, Any]
    stopping: Mapping[str, Any]
    dag_run: DagRun | None

    @property
    def stopping_rule(self) -> str:
        """When the training stops, in words."""
        rule = self.stopping
        return f"after {rule['patience']} iterations without a better valid {rule['metric']}"


def run_details(settings: Settings, run_id: str) -> RunDetails:
    """What a run was asked to do.

    Raises
    ------
    StoreError
        There is no such run.
    """
    run = find_training_run(settings, run_id)
    if run is None:
        raise StoreError(f"there is no training run {run_id!r}; `alphaops training list` shows them")
    plan, config = run.request["plan"], run.request["config"]
    dag_run = run.request.get("dag_run")  # runs of earlier versions have none
    return RunDetails(
        seed=config["seed"],
        data_version=run.data_version,
        last_date=plan["last_date"],
        feature_set=plan["feature_set"],
        feature_version=run.request["feature_version"],
        horizon=plan["horizon"],
        priority=run.priority,
        segments={name: (first, last) for name, (first, last) in plan["segments"].items()},
        hyperparameters=config["hyperparameters"],
        stopping=config["stopping"],
        dag_run=DagRun(**dag_run) if dag_run else None,
    )
