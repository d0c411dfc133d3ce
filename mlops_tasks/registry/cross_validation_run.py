"""A cross-validation in MLflow: one run with its summary and its files."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param

from mlops_tasks.config import Settings
from mlops_tasks.files import digest_of, folder_lock
from mlops_tasks.registry.client import connect, experiment_id, quoted, registry_errors
from mlops_tasks.registry.runs import BATCH, FINISHED, SMALL_BATCH, batched
from mlops_tasks.registry.training_record import finite, flatten

NAME_TAG, DIGEST_TAG = "cross_validation", "cross_validation_digest"
PARAMETER_LENGTH = 500
"""Characters that every MLflow keeps of a parameter."""


@registry_errors
def log_cross_validation(settings: Settings, folder: Path, report: Mapping[str, Any]) -> str:
    """Log a report, once; returns the id of its run.

    Metrics are `rank_ic.<number>`, `between_paths.<number>`, `between_seeds.<number>`, and `path_rank_ic`,
    `path_rank_icir` and `path_seed_noise`, their steps being the paths. A run of this name with other content, or one
    that was left unfinished, is replaced.

    Raises
    ------
    RegistryError
        MLflow refuses, or cannot be reached.
    """
    name, digest = report["name"], digest_of(dict(report))
    with folder_lock(settings.home / "mlflow" / "locks" / f"cross-validation-{name}"):
        client, experiment = connect(settings), experiment_id(settings)
        for run in client.search_runs([experiment], f"tags.{NAME_TAG} = {quoted(name)}"):
            if run.info.status == FINISHED and run.data.tags[DIGEST_TAG] == digest:
                return str(run.info.run_id)
            client.delete_run(run.info.run_id)
        tags = {NAME_TAG: name, DIGEST_TAG: digest, "model": report["model"], "data_version": report["data_version"]}
        made = client.create_run(experiment, run_name=f"cross-validation {name}", tags=tags).info
        run_id, now = str(made.run_id), int(made.start_time)
        for params in batched(_parameters(report), SMALL_BATCH):
            client.log_batch(run_id, params=params)
        for metrics in batched(_metrics(report, now), BATCH):
            client.log_batch(run_id, metrics=metrics)
        for file in sorted(folder.glob("report.*")):
            client.log_artifact(run_id, str(file))
        client.set_terminated(run_id, FINISHED)
        return run_id


def _parameters(report: Mapping[str, Any]) -> Iterator[Param]:
    names = ("model", "seeds", "splits", "horizon", "data_version", "feature_version", "feature_set", "config")
    for name, value in flatten({name: report[name] for name in names}):
        yield Param(name, str(value)[:PARAMETER_LENGTH])


def _metrics(report: Mapping[str, Any], now: int) -> Iterator[Metric]:
    groups = {name: report[name] for name in ("rank_ic", "between_paths", "between_seeds")}
    numbers = {**dict(flatten(groups)), "rank_icir": report["rank_icir"]}
    numbers |= {f"trainings_{verdict}": count for verdict, count in report["verdicts"].items()}
    for name, value in finite(numbers).items():
        yield Metric(name, value, now, 0)
    names = {"path_rank_ic": "mean", "path_rank_icir": "rank_icir", "path_seed_noise": "standard_deviation"}
    for step, path in enumerate(report["paths"]):
        for name, value in finite({name: path[own] for name, own in names.items()}).items():
            yield Metric(name, value, now, step)
