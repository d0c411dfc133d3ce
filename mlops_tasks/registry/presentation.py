"""How MLflow's pages show our runs: their names, their origin, and which columns come first."""

import json
import re

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from mlops_tasks.config import Settings
from mlops_tasks.dag_run import DagRun
from mlops_tasks.links import RUNS_VIEW, dag_run_path, report_link, training_link
from mlops_tasks.registry.client import quoted
from mlops_tasks.registry.training_record import TrainingRecord
from mlops_tasks.reports import ReportKind, validation_of

DAG_TAG, DAG_RUN_TAG = "airflow_dag_id", "airflow_run_id"
COLUMNS = (
    "metrics.`valid_rank_ic_mean`",
    "metrics.`test_rank_ic_mean`",
    "metrics.`test_rank_icir`",
    "metrics.`test_ic_mean`",
    "metrics.`test_excess_return_after_cost`",
    "metrics.`test_information_ratio`",
    "metrics.`test_max_drawdown`",
    "tags.`fit_verdict`",
    "attributes.`Models`",
    "tags.`data_version`",
    f"tags.`{DAG_RUN_TAG}`",
)
"""Columns of the view of runs, in order and by MLflow's own names: first the metric that picks the challenger."""
EXPERIMENT_TAGS = {
    # As if a person had answered MLflow's question about the kind of experiment.
    "mlflow.experimentKind": "custom_model_development",
    f"mlflow.sharedViewState.{RUNS_VIEW}": json.dumps(
        {"selectedColumns": COLUMNS, "columnOrder": COLUMNS, "orderByKey": "attributes.start_time", "orderByAsc": False}
    ),
}
"""MLflow has no setting for the columns that it shows first, but a shared view has them, and its key is in the link
(`links.MlflowPages.runs`)."""


def show_columns(client: MlflowClient, experiment: str) -> None:
    """Make the experiment's page open as our kind of experiment, and store the view of `COLUMNS`."""
    present = client.get_experiment(experiment).tags
    for name, value in EXPERIMENT_TAGS.items():
        if present.get(name) == value:
            continue
        try:
            client.set_experiment_tag(experiment, name, value)
        except MlflowException:  # another task set it first: MLflow inserts a tag that it has not found
            if client.get_experiment(experiment).tags.get(name) != value:
                raise


def numbered_name(client: MlflowClient, experiment: str, name: str) -> str:
    """`name #n` for the next run with this name, counted from 1."""
    runs = client.search_runs([experiment], f"attributes.run_name LIKE {quoted(f'{name} #%')}")
    pattern = re.compile(rf"{re.escape(name)} #(\d+)")
    numbers = [int(found[1]) for run in runs if (found := pattern.fullmatch(run.info.run_name))]
    return f"{name} #{max(numbers, default=0) + 1}"


def origin_tags(settings: Settings, record: TrainingRecord) -> dict[str, str]:
    """The Airflow run that a training belongs to, and a note with links to it, to the training and to its data."""
    dag_run, validation = DagRun.of_environment(), validation_of(settings, record.identity["data_version"])
    links, tags = [], {}
    if dag_run is not None:
        tags = {DAG_TAG: dag_run.dag_id, DAG_RUN_TAG: dag_run.run_id}
        page = settings.airflow_url + dag_run_path(dag_run.dag_id, dag_run.run_id)
        links.append(f"[Airflow: {_literal(dag_run.dag_id)} {_literal(dag_run.run_id)}]({page})")
    if record.run_id is not None:
        links.append(f"[training]({training_link(settings, record.run_id)})")
    if validation is not None:
        links.append(f"[data docs]({report_link(settings, ReportKind.DATA_DOCS, validation.name)})")
    return {**tags, MLFLOW_RUN_NOTE: " · ".join(links)} if links else tags


def _literal(text: str) -> str:
    """Text that Markdown shows as it is: whoever triggers a DAG run may choose any id."""
    return re.sub(r"([^\w\s:.,/+-])", r"\\\1", text)
