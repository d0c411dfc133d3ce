"""A table of models in MLflow: one run with its summary and files, which is the parent of its trainings' runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mlops_tasks.config import Settings
from mlops_tasks.files import folder_lock
from mlops_tasks.registry.client import connect, experiment_id, quoted, registry_errors
from mlops_tasks.registry.runs import FINISHED

TABLE_TAG = "table"
"""On the table's own run and on those of its trainings: the table's name."""
DIGEST_TAG = "table_digest"
"""On the table's own run only: digest of its content."""


@dataclass(frozen=True)
class ModelTableRun:
    """What MLflow stores of a table of models.

    Attributes
    ----------
    digest
        Of the whole table.
    metrics
        `<row>.<metric>.mean` and `.sd`.
    files
        Artifacts of the run.
    trainings
        Runs of the trainings, which become its children.
    """

    name: str
    digest: str
    data_version: str
    metrics: Mapping[str, float]
    files: Sequence[Path]
    trainings: Sequence[str]


@registry_errors
def log_model_table(settings: Settings, table: ModelTableRun) -> str:
    """Log a table once, and return the id of its run.

    A table with this name and other content, or one that was left unfinished, is replaced.

    Raises
    ------
    RegistryError
        MLflow refuses, or cannot be reached.
    """
    with folder_lock(settings.home / "mlflow" / "locks" / f"table-{table.name}"):
        client, experiment = connect(settings), experiment_id(settings)
        own = f"tags.{TABLE_TAG} = {quoted(table.name)} AND tags.{DIGEST_TAG} LIKE '%'"
        found: str | None = None
        for run in client.search_runs([experiment], own):
            if run.info.status == FINISHED and run.data.tags[DIGEST_TAG] == table.digest:
                found = str(run.info.run_id)
            else:
                client.delete_run(run.info.run_id)
        if found is None:
            tags = {TABLE_TAG: table.name, DIGEST_TAG: table.digest, "data_version": table.data_version}
            found = str(client.create_run(experiment, run_name=f"model table {table.name}", tags=tags).info.run_id)
            for metric, value in table.metrics.items():
                client.log_metric(found, metric, value)
            for file in table.files:
                client.log_artifact(found, str(file))
            client.set_terminated(found, FINISHED)
        for run_id in table.trainings:
            client.set_tag(run_id, TABLE_TAG, table.name)
            client.set_tag(run_id, MLFLOW_PARENT_RUN_ID, found)
    return found
