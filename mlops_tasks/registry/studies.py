"""A hyper-parameter search in MLflow: a parent run with its outcome, and one child run per trial."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from mlops_tasks.config import Settings
from mlops_tasks.errors import RegistryError
from mlops_tasks.files import digest_of, folder_lock, plain_name, read_json
from mlops_tasks.registry.client import TUNING_EXPERIMENT, connect, experiment_id, quoted, registry_errors
from mlops_tasks.registry.runs import FINISHED
from mlops_tasks.registry.training_record import finite
from mlops_tasks.states import TrialOutcome
from mlops_tasks.tuning.study import REPORT

STUDY_TAG = "study"
DIGEST_TAG = "report_digest"
STATUS = {TrialOutcome.COMPLETE: FINISHED, TrialOutcome.PRUNED: "KILLED", TrialOutcome.FAILED: "FAILED"}
"""MLflow's status of a trial's run."""


@registry_errors
def log_study(settings: Settings, study: str) -> str:
    """Log a study's report, its plots and its trials; returns the parent run's id.

    The same report is logged only once. Trials that were logged before stay; a newer report replaces the parent's
    metrics and files.

    Raises
    ------
    RegistryError
        The study has no report yet, or MLflow refuses.
    """
    folder = settings.tuning_dir / plain_name(study, "study")
    if not (folder / REPORT).is_file():
        raise RegistryError(f"{folder / REPORT} is missing; run the stage tuning.finish_study for this study first")
    report = read_json(folder / REPORT)
    with folder_lock(settings.home / "mlflow" / "locks" / f"study-{study}"):
        client, experiment = connect(settings), experiment_id(settings, TUNING_EXPERIMENT)
        runs = {
            run.data.tags.get("trial"): run for run in _all_runs(client, experiment, f"tags.study = {quoted(study)}")
        }
        parent = runs.get(None)
        if parent is None:
            tags = {STUDY_TAG: study, "model": report["config"]["model"]}
            parent = client.create_run(experiment, run_name=study, tags=tags)
        parent_id = str(parent.info.run_id)
        if parent.data.tags.get(DIGEST_TAG) == digest_of(report):
            return parent_id
        for trial in report["trials"]:
            done = runs.get(str(trial["number"]))
            if done is not None and done.info.status == "RUNNING":  # a kill left it unfinished
                client.delete_run(done.info.run_id)
                done = None
            if done is None:
                _log_trial(client, experiment, parent_id, report, trial)
        _log_parent(client, parent_id, report, folder)
    return parent_id


def _all_runs(client: MlflowClient, experiment: str, query: str) -> list[Any]:
    found, token = [], None
    while True:
        page = client.search_runs([experiment], query, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _log_trial(
    client: MlflowClient, experiment: str, parent_id: str, report: Mapping[str, Any], trial: Mapping[str, Any]
) -> None:
    """Log one run in two calls: create it, then fill it."""
    number = str(trial["number"])
    tags = {STUDY_TAG: report["study"], "trial": number, MLFLOW_PARENT_RUN_ID: parent_id, "state": trial["state"]}
    if trial["reason"]:
        tags["reason"] = trial["reason"][:5000]
    run_id = client.create_run(experiment, tags={**tags, MLFLOW_RUN_NAME: f"trial {number}"}).info.run_id
    now = int(time.time() * 1000)
    values = finite({**trial["metrics"], "seconds": trial["seconds"]})
    metrics = [Metric(name, value, now, 0) for name, value in values.items()]
    client.log_batch(run_id, metrics, [Param(name, str(value)) for name, value in trial["params"].items()])
    client.set_terminated(run_id, STATUS[trial["state"]])


def _log_parent(client: MlflowClient, run_id: str, report: Mapping[str, Any], folder: Path) -> None:
    now = int(time.time() * 1000)
    best = next(trial for trial in report["trials"] if trial["number"] == report["best"])
    counts = {f"trials_{state}": sum(each["state"] == state for each in report["trials"]) for state in STATUS}
    values = {
        **{f"best_{name}": value for name, value in best["metrics"].items()},
        **{f"importance.{name}": value for name, value in report["importance"].items()},
        **counts,
        "front": len(report["front"]),
    }
    curve = [
        Metric(f"trial.{name}", float(trial["metrics"][name]), now, trial["number"])
        for trial in report["trials"]
        if trial["state"] == TrialOutcome.COMPLETE
        for name in report["config"]["objectives"]
    ]
    metrics = [*(Metric(name, value, now, 0) for name, value in finite(values).items()), *curve]
    for first in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics[first : first + 1000])
    tags = {f"best.{name}": value for name, value in report["hyperparameters"].items()}
    tags |= {f"search.{name}": report["config"][name] for name in ("sampler", "pruner", "seed", "folds", "trials")}
    client.log_batch(run_id, tags=[RunTag(name, str(value)) for name, value in tags.items()])
    client.log_artifact(run_id, str(folder / REPORT))
    for plot in sorted((folder / "plots").glob("*.png")):
        client.log_artifact(run_id, str(plot), artifact_path="plots")
    client.set_tag(run_id, DIGEST_TAG, digest_of(report))
    client.set_terminated(run_id, FINISHED)
