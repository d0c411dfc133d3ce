"""A table of models in MLflow: one run with its summary and files, the parent of its trainings' runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mlops_tasks.config import Settings
from mlops_tasks.files import digest_of, folder_lock
from mlops_tasks.registry.client import connect, experiment_id, quoted, registry_errors
from mlops_tasks.registry.runs import FINISHED

TABLE_TAG = "table"
"""On the table's own run and on those of its trainings: the table's name."""
DIGEST_TAG = "table_digest"
"""On the table's own run only: digest of its content."""


@registry_errors
def log_model_table(
    settings: Settings, content: Mapping[str, Any], files: Sequence[Path], run_ids: Sequence[str]
) -> str:
    """Log a table, once; returns the id of its run.

    Metrics are `<row>.<metric>.mean` and `.sd`. A table of this name with other content, or one that was left
    unfinished, is replaced.

    Raises
    ------
    RegistryError
        MLflow refuses, or cannot be reached.
    """
    name, digest = content["table"], digest_of(dict(content))
    with folder_lock(settings.home / "mlflow" / "locks" / f"table-{name}"):
        client, experiment = connect(settings), experiment_id(settings)
        own = f"tags.{TABLE_TAG} = {quoted(name)} AND tags.{DIGEST_TAG} LIKE '%'"
        found: str | None = None
        for run in client.search_runs([experiment], own):
            if run.info.status == FINISHED and run.data.tags[DIGEST_TAG] == digest:
                found = str(run.info.run_id)
            else:
                client.delete_run(run.info.run_id)
        if found is None:
            tags = {TABLE_TAG: name, DIGEST_TAG: digest, "data_version": content["plan"]["data_version"]}
            found = str(client.create_run(experiment, run_name=f"model table {name}", tags=tags).info.run_id)
            for metric, value in _metrics(content):
                client.log_metric(found, metric, value)
            for file in files:
                client.log_artifact(found, str(file))
            client.set_terminated(found, FINISHED)
        for run_id in run_ids:
            client.set_tag(run_id, TABLE_TAG, name)
            client.set_tag(run_id, MLFLOW_PARENT_RUN_ID, found)
    return found


def _metrics(content: Mapping[str, Any]) -> list[tuple[str, float]]:
    statistics = (("mean", "mean"), ("sd", "standard_deviation"))
    return [
        (f"{row['name']}.{metric}.{short}", band[long])
        for row in content["rows"]
        for metric, band in row["metrics"].items()
        for short, long in statistics
        if band[long] is not None
    ]
