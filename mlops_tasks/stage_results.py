"""What each stage returns: plain JSON, whose keys and types a DAG and the stages after it rely on.

`process.STAGES` names the type of each stage; `process.run_stage` checks every result against it. `tests/dags` checks
that no DAG file asks for a key that a stage does not return.
"""

import json
from collections.abc import Mapping
from types import UnionType
from typing import Any, NotRequired, get_args

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict, get_type_hints

from mlops_tasks.errors import ErrorKind, StageError
from mlops_tasks.training_folder import Metrics

Segments = dict[str, tuple[str, str]]
"""Segment to its first and last day, ISO dates."""


class ReadSource(TypedDict):
    """Of `data.read_source`."""

    staging: str
    rows: int
    source: str


class Validated(TypedDict):
    """Of `data.validate_bars`."""

    staging: str
    received: int
    accepted: int
    quarantined: int
    rules: dict[str, int]


class RenderedDocs(TypedDict):
    """Of `data.render_docs`."""

    staging: str
    pages: list[str]


class Snapshot(TypedDict):
    """Of `data.version_snapshot`."""

    data_version: str
    changed: bool
    rows: int
    instruments: int
    first_date: str
    last_date: str


class ComparedVintages(TypedDict):
    """Of `data.compare_vintages`."""

    data_version: str
    compared_with: str | None
    decision: str
    reasons: list[str]
    approved_by: str | None
    counts: dict[str, int] | None
    diff: str | None


class WrittenStore(TypedDict):
    """Of `data.write_qlib_store`."""

    data_version: str
    path: str


class Published(TypedDict):
    """Of `data.publish_vintage`."""

    data_version: str
    last_date: str
    changed: bool


class Features(TypedDict):
    """Of `features.compute`."""

    feature_version: str
    data_version: str
    feature_set: str
    rows: int
    computed_rows: int
    columns: int


class PlannedRun(TypedDict):
    """Of `training.plan`: a `RunPlan` as JSON."""

    data_version: str
    last_date: str
    feature_set: str
    horizon: int
    models: list[str]
    segments: Segments
    seed: int
    topk: int
    n_drop: int
    deployment_strategy: str
    hyperparameters: dict[str, dict[str, Any]]
    stopping: dict[str, dict[str, Any]]
    study: str | None
    column_warnings: NotRequired[list[str]]
    """Columns from which nothing can be learned, as the stored features tell of them."""


class Certified(TypedDict):
    """Of `training.certify`."""

    key: str
    path: str
    passed: bool
    checks: int
    values: int
    cuts: list[str]


class FitVerdict(TypedDict):
    """The verdict on a training, as metrics.json has it."""

    verdict: str
    explanation: str
    kept_iteration: int
    kept_gap: float | None


class Trained(TypedDict):
    """Of `training.train`; trainings of earlier versions did not note all of it."""

    training_key: str
    model: str
    path: str
    topk: int
    n_drop: int
    train_seconds: NotRequired[float]
    best_iteration: NotRequired[int]
    train_rows: NotRequired[int]
    valid_rows: NotRequired[int]
    missing_columns: NotRequired[int]
    constant_columns: NotRequired[int]
    infinite_columns: NotRequired[int]
    peak_memory_mb: NotRequired[float]
    cpu_seconds: NotRequired[float]
    read_mb: NotRequired[float]
    written_mb: NotRequired[float]
    run_id: NotRequired[str]
    fit: NotRequired[FitVerdict]


class FinishedFit(TypedDict):
    """Of the process of a training: its final state, with the payload of the event that ended it, and of which kind
    an error was."""

    state: str
    kind: NotRequired[str]
    training_key: NotRequired[str]
    path: NotRequired[str]
    reused: NotRequired[bool]
    error: NotRequired[str]
    reason: NotRequired[str]


class SearchPlan(TypedDict):
    """Of `tuning.plan`."""

    plan: PlannedRun
    search: dict[str, Any]
    data_version: str
    feature_set: str


class ChosenAlgorithm(TypedDict):
    """Of `tuning.choose_algorithm`."""

    model: str
    first: list[dict[str, Any]]
    fixed: dict[str, Any]
    reasons: list[str]


class CreatedStudy(TypedDict):
    """Of `tuning.create_study`."""

    study: str
    model: str
    workers: list[int]


class Worked(TypedDict):
    """Of `tuning.run_worker`."""

    worker: int
    finished: int


class FinishedStudy(TypedDict):
    """Of `tuning.finish_study`."""

    plan: PlannedRun
    study: str
    model: str
    best: int
    hyperparameters: dict[str, Any]
    path: str


class Evaluated(TypedDict):
    """Of `evaluation.evaluate`."""

    training_key: str
    model: str
    metrics: Metrics
    path: str


class LoggedRun(TypedDict):
    """Of `registry.log_run`: what the choice of the challenger needs."""

    training_key: str
    run_id: str
    experiment_id: str
    model: str
    metrics: dict[str, float]


class LoggedStudy(TypedDict):
    """Of `registry.log_study`."""

    study: str
    run_id: str
    experiment_id: str


class Registered(TypedDict):
    """Of `registry.register_challenger`."""

    version: int
    training_key: str
    run_id: str
    model: str
    metrics: dict[str, float]
    data_version: str
    feature_version: str


class Judged(TypedDict):
    """Of `registry.gate_challenger`."""

    decision: str
    rule: str
    reasons: list[str]
    gain: float | None
    p_value: float | None
    lower_bound: float | None
    seed_noise: float | None
    n_days: int
    champion_age_days: int | None
    look: dict[str, Any] | None
    wait: dict[str, Any] | None
    anchor_version: int | None
    search: dict[str, Any] | None
    policy: dict[str, Any]
    version: int
    training_key: str
    digest: str
    model: str
    data_version: str
    feature_version: str
    champion_version: int | None
    run_note: str


class Explained(TypedDict):
    """Of `registry.explain_model`: folders of the reports, relative to the home folder."""

    version: int
    path: str
    champion_path: str | None
    """Of the champion that stays in service; None where the version takes its place, or there is none."""


class PrunedFeatures(TypedDict):
    """Of `registry.prune_features`."""

    removed: list[str]
    kept: dict[str, str]
    files: int
    bytes_freed: int
    dry_run: bool


class ServiceProbe(TypedDict):
    """The scoring service's scores of the newest date against those computed beside it."""

    date: str
    instruments: int
    max_abs_diff: float


class VersionSpeed(TypedDict):
    """How fast a version is in service; times in milliseconds."""

    version: int
    requests: int
    """Timed requests for all scores of the newest day, over several connections at once."""
    p50_ms: float
    p99_ms: float
    requests_per_s: float
    day_ms: float
    """To score the newest day from its features, by the artefact and without the service."""


class SpeedComparison(TypedDict):
    """Measured in the same deployment; None for what could not be measured, or where there was no champion."""

    incoming: VersionSpeed | None
    outgoing: VersionSpeed | None


class DeployedModel(TypedDict):
    """Of `serving.deploy`, and of a rollback, which names the version that it took out of service."""

    deployed: bool
    version: int
    training_key: NotRequired[str]
    previous_version: NotRequired[int | None]
    probe: NotRequired[ServiceProbe]
    speed: NotRequired[SpeedComparison]
    """Where the service has switched from one version to another."""
    strategy: NotRequired[str]
    rejected_version: NotRequired[int | None]
    rollout: NotRequired[str]
    """How its rollout stands."""
    reason: NotRequired[str]
    """Why nothing was deployed."""


class Operated(TypedDict):
    """Of `serving.operate`."""

    action: str
    """An `Intervention`."""
    version: int | None
    """That serves after a rollback, whose rollout was ended, or that may serve now, or no longer; None: several, or
    none."""
    run_note: str
    """What was done, in a sentence."""


class Advanced(TypedDict):
    """What an evaluation of the rollouts has done."""

    steps: list[str]
    """That were taken now, in words."""
    under_way: list[str]
    """How those stand that are not decided."""


class MaturePerformance(TypedDict):
    """How a version's answers on an arm have turned out, on days whose labels exist."""

    model_version: int
    arm: str
    mature_days: int
    last_mature_day: str
    rank_ic_mean: float | None
    rank_ic_lower: float | None
    rank_ic_upper: float | None
    hit_rate: float | None


class Monitored(TypedDict):
    """Of `monitoring.monitor`."""

    looks: list[str]
    """That were taken now at rank ICs, in words."""
    steps: list[str]
    """That rollouts have taken now, in words."""
    under_way: list[str]
    """How those rollouts stand that are not decided."""
    rolled_back: str | None
    """Why the champion was rolled back now; None: it was not."""
    probation: str | None
    """How the champion's probation stands; None: it has none."""
    performance: list[MaturePerformance]
    retraining: str | None
    """Identifier of the run of daily_retraining for which drift asks, until that run has begun."""
    retraining_reason: str | None
    retraining_form: dict[str, Any]
    """What the form of that run says other than by default."""
    alerts: list[str]
    """That are open."""


class ScoredDate(TypedDict):
    """Of `serving.score_newest_date`."""

    date: str
    champion_version: int | None
    standing: str | None
    challenger_version: int | None
    instruments: int
    path: str | None
    caught_up: list[str]
    """Missed days that were scored now, in their order."""


class Skipped(TypedDict):
    """Of a stage that had nothing to do."""

    skipped: str
    """Why."""
    delivered: NotRequired[str]


class ProfiledTraining(TypedDict):
    """Of `monitoring.profile_training`: the training, and the folder of its profile, relative to the home folder."""

    training_key: str
    path: str


class DriftFound(TypedDict):
    """Of `monitoring.check_drift`: the drift report, and the folder that it lies in."""

    date: str
    model_version: int
    training_key: str
    data_version: str
    feature_version: str
    current_days: int
    current_rows: int
    columns: int
    verdict: str
    error_rate: float
    reference_windows: int
    n_alert: int
    n_warn: int
    exceedance_max: float
    scores_beyond: bool
    importance_by: str
    importance_beyond: float | None
    """Share of the score's importance that the features beyond the limit have; None: not known."""
    importance_unknown: int
    cost: float | None
    """The same share, weighed by how far they are beyond."""
    beyond: list[dict[str, Any]]
    psi_max: float | None
    score_psi: float | None
    score_ks_statistic: float | None
    score_wasserstein: float | None
    worst: dict[str, float]
    path: str


class Compared(TypedDict):
    """Of `experiments.compare_models`: the report of the comparison, and the folder that it lies in."""

    champion_version: int
    challenger_version: int
    champion_training_key: str
    challenger_training_key: str
    data_version: str
    champion_feature_version: str
    challenger_feature_version: str
    first_date: str
    last_date: str
    n_days: int
    champion_rank_ic_mean: float
    challenger_rank_ic_mean: float
    difference: float | None
    standard_error: float | None
    t: float | None
    p_one_sided: float | None
    p_two_sided: float | None
    lower: float | None
    upper: float | None
    confidence: float | None
    degrees_of_freedom: float | None
    conclusion: str
    path: str
    delivered: NotRequired[str]


class ReplayAsked(TypedDict):
    """One version of `ChosenReplays`; the arguments of `registry.replay`."""

    version: int
    anyway: bool
    gives_way: bool


class ChosenReplays(TypedDict):
    """Of `registry.choose_replays`."""

    replays: list[ReplayAsked]


class Replayed(TypedDict):
    """Of `registry.replay`."""

    version: int
    training_key: str
    verdict: str
    reason: str
    seconds: float
    run_note: NotRequired[str]


class MeasuredReplay(TypedDict):
    """Of the process that replays (`registry/replay/work.py`)."""

    verdict: str
    parts: list[dict[str, Any]]


class Analyzed(TypedDict):
    """Of `experiments.analyze`: the advice by experiment, which ones were stopped, paused or decided for it, and by
    experiment the run in MLflow."""

    advice: dict[str, str]
    stopped: list[str]
    paused: list[str]
    decided: list[str]
    runs: dict[str, str]
    experiment_id: NotRequired[str]
    """Of MLflow."""


class JudgedWinner(TypedDict):
    """What the gate said of an experiment's winner."""

    experiment: str
    arm: str
    version: int
    decision: str
    rule: str
    said: str
    waits: bool


class JudgedWinners(TypedDict):
    """Of `experiments.judge_winners`."""

    judged: list[JudgedWinner]
    run_note: NotRequired[str]


def keys_of(result: Any) -> set[str]:
    """Every key that a stage of this result type may return."""
    return {key for kind in _kinds(result) for key in get_type_hints(kind)}


def check_result(stage: str, result: Any, content: Any) -> None:
    """Check what a stage has returned.

    Parameters
    ----------
    result
        Its type: one of the above, or a union of them.

    Raises
    ------
    StageError
        A bug: a key is missing, one is not declared, or a value is of another type; names the stage and the key.
    """
    faults = [_fault(kind, content) for kind in _kinds(result)]
    if None not in faults:
        raise StageError(
            f"{stage}: it returned something other than {' or '.join(each.__name__ for each in _kinds(result))} "
            f"(mlops_tasks/stage_results.py): {'; or '.join(filter(None, faults))}",
            ErrorKind.BUG,
        )


def _kinds(result: Any) -> tuple[Any, ...]:
    return get_args(result) if isinstance(result, UnionType) else (result,)


def _fault(kind: Any, content: Any) -> str | None:
    """Why a result does not match a type; None if it does."""
    if not isinstance(content, Mapping):
        return f"expected an object, got {type(content).__name__}"
    if missing := sorted(kind.__required_keys__ - set(content)):
        return f"{missing[0]} is missing"
    hints = get_type_hints(kind)
    if unknown := sorted(set(content) - set(hints)):
        return f"{unknown[0]} is not declared"
    for name, value in content.items():
        try:
            TypeAdapter(hints[name]).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            return f"{'.'.join(map(str, (name, *first['loc'])))}: {first['msg']}"
    return None
