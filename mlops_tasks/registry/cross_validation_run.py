"""A cross-validation in MLflow: one run with its summary and its files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Metric, Param

from mlops_tasks.config import Settings
from mlops_tasks.files import folder_lock
from mlops_tasks.registry.client import connect, experiment_id, quoted, registry_errors
from mlops_tasks.registry.runs import BATCH, FINISHED, SMALL_BATCH, batched

NAME_TAG, DIGEST_TAG = "cross_validation", "cross_validation_digest"
PARAMETER_LENGTH = 500
"""Characters of a parameter that every version of MLflow keeps."""


@dataclass(frozen=True)
class PathMetrics:
    """One backtest path over its seeds; undefined numbers are None."""

    rank_ic: float | None
    rank_icir: float | None
    seed_noise: float | None


@dataclass(frozen=True)
class CrossValidationRun:
    """What MLflow stores of a cross-validation.

    Attributes
    ----------
    digest
        Of the whole report.
    parameters, metrics
        By the names that MLflow shows.
    paths
        In order.
    files
        Artifacts of the run.
    """

    name: str
    digest: str
    model: str
    data_version: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    paths: Sequence[PathMetrics]
    files: Sequence[Path]


@registry_errors
def log_cross_validation(settings: Settings, run: CrossValidationRun) -> str:
    """Log a cross-validation once, and return the id of its run.

    The metrics `path_rank_ic`, `path_rank_icir` and `path_seed_noise` have the paths as steps. A run with this name and
    other content, or one that was left unfinished, is replaced.

    Raises
    ------
    RegistryError
        MLflow refuses, or cannot be reached.
    """
    with folder_lock(settings.home / "mlflow" / "locks" / f"cross-validation-{run.name}"):
        client, experiment = connect(settings), experiment_id(settings)
        for found in client.search_runs([experiment], f"tags.{NAME_TAG} = {quoted(run.name)}"):
            if found.info.status == FINISHED and found.data.tags[DIGEST_TAG] == run.digest:
                return str(found.info.run_id)
            client.delete_run(found.info.run_id)
        tags = {NAME_TAG: run.name, DIGEST_TAG: run.digest, "model": run.model, "data_version": run.data_version}
        made = client.create_run(experiment, run_name=f"cross-validation {run.name}", tags=tags).info
        run_id, now = str(made.run_id), int(made.start_time)
        parameters = (Param(name, value[:PARAMETER_LENGTH]) for name, value in run.parameters.items())
        for params in batched(parameters, SMALL_BATCH):
            client.log_batch(run_id, params=params)
        for metrics in batched(_metrics(run, now), BATCH):
            client.log_batch(run_id, metrics=metrics)
        for file in run.files:
            client.log_artifact(run_id, str(file))
        client.set_terminated(run_id, FINISHED)
        return run_id


def _metrics(run: CrossValidationRun, now: int) -> Iterator[Metric]:
    for name, value in run.metrics.items():
        yield Metric(name, value, now, 0)
    for step, path in enumerate(run.paths):
        numbers = (path.rank_ic, path.rank_icir, path.seed_noise)
        for name, number in zip(("path_rank_ic", "path_rank_icir", "path_seed_noise"), numbers, strict=True):
            if number is not None:
                yield Metric(name, number, now, step)
