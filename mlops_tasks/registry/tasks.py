"""Task entries of the registry stage."""

import logging
import math
from collections.abc import Sequence

from mlops_tasks.config import load_settings
from mlops_tasks.dag_run import acting
from mlops_tasks.errors import ExplanationError, RegistryError
from mlops_tasks.features.garbage import collect_garbage
from mlops_tasks.files import write_json
from mlops_tasks.registry.client import TUNING_EXPERIMENT, experiment_id
from mlops_tasks.registry.features_in_use import needed_feature_versions
from mlops_tasks.registry.gating import gate
from mlops_tasks.registry.lifecycle import ModelLifecycleManager
from mlops_tasks.registry.model_index import index_models
from mlops_tasks.registry.models import get_tags
from mlops_tasks.registry.origins import record_missing
from mlops_tasks.registry.replay.run import ReplayOrder, replay
from mlops_tasks.registry.replay.sample import sample
from mlops_tasks.registry.replay.turns import Pace
from mlops_tasks.registry.runs import log_run
from mlops_tasks.registry.studies import log_study
from mlops_tasks.registry.training_record import TrainingRecord
from mlops_tasks.shared_store import push
from mlops_tasks.stage_results import (
    ChosenReplays,
    Explained,
    Judged,
    LoggedRun,
    LoggedStudy,
    PrunedFeatures,
    Registered,
    Replayed,
    Skipped,
)
from mlops_tasks.states import Outcome, ReplayVerdict
from mlops_tasks.training.certificate import find_certificate
from mlops_tasks.training_folder import TrainingFolder

log = logging.getLogger(__name__)

SELECTION_METRIC = "valid_rank_ic_mean"
"""The metric that picks the challenger among the candidates. Never a test metric: the gate needs an unused segment."""


LATEST_CANDIDATES = "training/latest.json"
"""In the home folder: the training keys of the newest run's candidates, for those who look at the result."""


def log_run_task(*, training_key: str) -> LoggedRun:
    """Log a training to MLflow; returns what is needed to choose the challenger.

    Raises
    ------
    RegistryError
        The training was recorded under a certificate that is missing, as after an upgrade in the middle of a run.
    """
    settings = load_settings()
    certified = TrainingFolder.of(settings, training_key).find_certificate()
    if certified is not None and find_certificate(settings, certified.key) is None:
        raise RegistryError(
            f"training {training_key} was recorded under leak certificate {certified.key}, which is missing; clear "
            "certify_learning_data and train_model of this run"
        )
    run_id = log_run(settings, training_key)
    ModelLifecycleManager(settings).validate(training_key, f"evaluated and logged as MLflow's run {run_id}")
    record = TrainingRecord.load(settings, training_key)
    metrics = dict(record.evaluation)
    return {
        "training_key": training_key,
        "run_id": run_id,
        "experiment_id": experiment_id(settings),
        "model": record.model,
        "metrics": metrics,
    }


def log_study_task(*, study: str) -> LoggedStudy:
    """Log a finished study to MLflow; returns the ids of its parent run and of the experiment."""
    settings = load_settings()
    run_id = log_study(settings, study)
    return {"study": study, "run_id": run_id, "experiment_id": experiment_id(settings, TUNING_EXPERIMENT)}


def register_challenger_task(*, candidates: list[LoggedRun] | LoggedRun) -> Registered:
    """Register the candidate with the best validation rank IC and set the alias `challenger` to it.

    `candidates` are results of `log_run_task`; a single one may come without a list, as Airflow passes it from a task
    that was mapped over one model.
    """
    settings = load_settings()
    runs = candidates if isinstance(candidates, list) else [candidates]
    best = choose(runs)
    for candidate in runs:
        log.info("%s: %s %s", candidate["model"], SELECTION_METRIC, candidate["metrics"].get(SELECTION_METRIC))
    version = ModelLifecycleManager(settings).challenge(best["training_key"], best["run_id"])
    index_models(settings)
    record_missing(settings)
    latest = settings.home / LATEST_CANDIDATES
    write_json(latest, {"training_keys": [run["training_key"] for run in runs]})
    push(settings, latest)
    tags = get_tags(settings, version)
    return {
        "version": version,
        "training_key": best["training_key"],
        "run_id": best["run_id"],
        "model": best["model"],
        "metrics": best["metrics"],
        "data_version": tags["data_version"],
        "feature_version": tags["feature_version"],
    }


def choose(candidates: Sequence[LoggedRun]) -> LoggedRun:
    """The candidate with the largest `SELECTION_METRIC`; ties go to the first name, None counts as the worst.

    Raises
    ------
    RegistryError
        There is no candidate.
    """
    if not candidates:
        raise RegistryError("no candidate to register; at least one training must have been logged")
    return min(candidates, key=lambda c: (-_selection(c), c["model"], c["training_key"]))


def _selection(candidate: LoggedRun) -> float:
    value = candidate["metrics"].get(SELECTION_METRIC)
    return -math.inf if value is None or math.isnan(value) else float(value)


def gate_challenger_task(*, challenger: Registered) -> Judged:
    """Judge the challenger against the champion; the decision is recorded in the state and in the version's tags."""
    return gate(load_settings(), challenger["version"]).to_json()


def explain_model_task(*, gate: Judged) -> Explained | Skipped:
    """Make the report of the version that was judged, and of the champion where that stays in service.

    Where the version is promoted, its day's list says what has changed since the champion's of the day before.

    Returns
    -------
    Where the reports are; or `skipped` with a reason if the model is of a kind that is not explained.

    Raises
    ------
    RegistryError, StoreError
        As `publish_explanation`.
    """
    from mlops_tasks.registry.explanation_report import publish_explanation

    settings, version, champion = load_settings(), gate["version"], gate["champion_version"]
    stays = champion is not None and gate["decision"] != Outcome.PROMOTE
    try:
        mine = publish_explanation(settings, version, gate["data_version"], None if stays else champion)
        other = (
            publish_explanation(settings, champion, gate["data_version"]) if stays and champion is not None else None
        )
    except ExplanationError as error:
        log.info("explanation skipped: %s", error)
        return {"skipped": str(error)}
    return {
        "version": version,
        "path": settings.relative(mine),
        "champion_path": None if other is None else settings.relative(other),
    }


def prune_features_task() -> PrunedFeatures:
    """Remove the feature versions that nothing needs any more.

    If the registry does not answer, none are removed.

    Raises
    ------
    RegistryError, StoreError
        It is unknown what is needed: the registry, or a manifest of the store, cannot be read.
    """
    settings = load_settings()
    done = collect_garbage(settings, needed_feature_versions(settings))
    return {
        "removed": list(done.removed),
        "kept": dict(done.kept),
        "files": done.files,
        "bytes_freed": done.bytes_freed,
        "dry_run": done.dry_run,
    }


def choose_replays_task(*, version: int | None = None, anyway: bool = False) -> ChosenReplays:
    """The versions that a run replays: the one that a person asks for, or a sample, which gives way to trainings."""
    settings = load_settings()
    chosen = sample(settings) if version is None else [version]
    log.info("versions to replay: %s", ", ".join(map(str, chosen)) or "none is registered yet")
    return {"replays": [{"version": each, "anyway": anyway, "gives_way": version is None} for each in chosen]}


def replay_task(*, version: int, anyway: bool = False, gives_way: bool = True, asked_by: str = "") -> Replayed:
    """Replay a version within `replay.time_limit_s`; a difference is no error of the task, but an alert.

    Parameters
    ----------
    anyway
        Go on where the environment is not the one that it was trained in.
    gives_way
        Whether trainings that wait for the machine go first.
    asked_by
        Who has triggered the run; empty: the schedule.
    """
    settings = load_settings()
    pace = Pace(settings.replay.time_limit_s, gives_way)
    report = replay(settings, ReplayOrder(version, asked_by or acting(), pace, anyway))
    for line in report.lines():
        log.info("%s", line)
    result: Replayed = {
        "version": version,
        "training_key": report.training_key,
        "verdict": report.verdict.value,
        "reason": report.reason,
        "seconds": report.seconds,
    }
    if report.verdict is not ReplayVerdict.EQUAL:
        result["run_note"] = f"replay of version {version}: {report.verdict.replace('_', ' ')}: {report.reason}"
    return result
