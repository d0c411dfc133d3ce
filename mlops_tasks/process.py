"""Heavy work in a process of its own: `python -m mlops_tasks run <stage>`.

A task process is no place for native threads and pools (it is forked, it cannot be interrupted in native code), so a
task starts the stage as a child in a new process group, streams its log and reads its JSON result. Of the secrets that
the task's environment holds, the child is given those that its stage names. It keeps a
leash: its standard input is a pipe from the task. When the task dies, however it dies, the pipe closes and the child
ends its whole group.
"""

import contextlib
import importlib
import json
import logging
import os
import select
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_tasks import stage_results as results
from mlops_tasks.config import PostgresqlSource, Settings, load_settings
from mlops_tasks.errors import ConfigError, ErrorKind, StageError, StageTimeoutError, hint
from mlops_tasks.object_stores import CREDENTIALS
from mlops_tasks.secret_variables import without_secrets
from mlops_tasks.stage_output import StageFailure, StageLine
from mlops_tasks.stage_process import StageProcess, end_group, start_process

log = logging.getLogger(__name__)

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_STATE = ("MLOPS_STATE_URL", "PGPASSWORD")
_ALERTS = (*_STATE, "MLOPS_ALERTS__WEBHOOK_URL", "ALERTS_SMTP_PASSWORD", *_PROXIES)
_STUDIES = (*_STATE, "MLOPS_TUNING__STORAGE_URL")
_REGISTRY = (
    *("MLOPS_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    "MLFLOW_TRACKING_TOKEN",
)
_SERVING = (*_ALERTS, *_REGISTRY, "MLOPS_SCORING_TOKEN")
_SIGNING = ("MLOPS_SIGNING_KEY",)

_BESIDE = 3
"""Niceness of what runs beside the trainings: half of their share of a core that both want. With less, it would not be
done when the longest training is, whose evaluation needs one core only."""


@dataclass(frozen=True)
class Stage:
    """One stage of the chain.

    Attributes
    ----------
    function
        `module:function`; it takes keyword arguments and returns a dict, both plain JSON.
    result
        What the dict holds: a type of `stage_results.py`, or a union of some. None: it is not checked, as with a user's
        own function.
    secrets
        Names of the environment variables with secrets that its process is given, where they are set; it is given no
        other (`secret_variables.py` says what a secret is).
    reads_sources
        It is given those too that `data.sources` names.
    niceness
        How much lower than usual its process's priority is: a stage that ends long before anything waits for it leaves
        the cores to the others meanwhile.
    """

    function: str
    result: Any = None
    secrets: tuple[str, ...] = ()
    reads_sources: bool = False
    niceness: int = 0


STAGES: Mapping[str, Stage] = {
    "data.read_source": Stage(
        "mlops_tasks.data.tasks:read_source_task", results.ReadSource, _ALERTS, reads_sources=True
    ),
    "data.validate_bars": Stage("mlops_tasks.data.tasks:validate_bars_task", results.Validated, _ALERTS),
    "data.render_docs": Stage("mlops_tasks.data.tasks:render_docs_task", results.RenderedDocs, niceness=_BESIDE),
    "data.version_snapshot": Stage("mlops_tasks.data.tasks:version_snapshot_task", results.Snapshot),
    "data.compare_vintages": Stage("mlops_tasks.data.tasks:compare_vintages_task", results.ComparedVintages, _ALERTS),
    "data.write_qlib_store": Stage("mlops_tasks.data.tasks:write_qlib_store_task", results.WrittenStore),
    "data.publish_vintage": Stage("mlops_tasks.data.tasks:publish_vintage_task", results.Published, _ALERTS),
    "features.compute": Stage("mlops_tasks.features.tasks:compute_features_task", results.Features),
    "training.plan": Stage("mlops_tasks.training.tasks:plan_run_task", results.PlannedRun, _STATE),
    "training.certify": Stage(
        "mlops_tasks.training.tasks:certify_learning_data_task", results.Certified, _ALERTS, niceness=_BESIDE
    ),
    "training.train": Stage("mlops_tasks.training.tasks:train_model_task", results.Trained, (*_ALERTS, *_SIGNING)),
    "tuning.plan": Stage("mlops_tasks.tuning.tasks:plan_search_task", results.SearchPlan),
    "tuning.choose_algorithm": Stage("mlops_tasks.tuning.tasks:choose_algorithm_task", results.ChosenAlgorithm, _STATE),
    "tuning.create_study": Stage("mlops_tasks.tuning.tasks:create_study_task", results.CreatedStudy, _STUDIES),
    "tuning.run_worker": Stage("mlops_tasks.tuning.tasks:run_worker_task", results.Worked, _STUDIES),
    "tuning.finish_study": Stage("mlops_tasks.tuning.tasks:finish_study_task", results.FinishedStudy, _STUDIES),
    "evaluation.evaluate": Stage("mlops_tasks.evaluation.tasks:evaluate_model_task", results.Evaluated),
    "registry.log_run": Stage("mlops_tasks.registry.tasks:log_run_task", results.LoggedRun, (*_STATE, *_REGISTRY)),
    "registry.log_study": Stage("mlops_tasks.registry.tasks:log_study_task", results.LoggedStudy, _REGISTRY),
    "registry.register_challenger": Stage(
        "mlops_tasks.registry.tasks:register_challenger_task", results.Registered, (*_STATE, *_REGISTRY)
    ),
    "registry.gate_challenger": Stage(
        "mlops_tasks.registry.tasks:gate_challenger_task", results.Judged, (*_STATE, *_REGISTRY)
    ),
    "registry.explain_model": Stage(
        "mlops_tasks.registry.tasks:explain_model_task", results.Explained | results.Skipped, _REGISTRY
    ),
    "registry.prune_features": Stage(
        "mlops_tasks.registry.tasks:prune_features_task", results.PrunedFeatures, _REGISTRY
    ),
    "registry.choose_replays": Stage(
        "mlops_tasks.registry.tasks:choose_replays_task", results.ChosenReplays, (*_STATE, *_REGISTRY)
    ),
    "registry.replay": Stage("mlops_tasks.registry.tasks:replay_task", results.Replayed, (*_ALERTS, *_REGISTRY)),
    "serving.deploy": Stage("mlops_tasks.serving.tasks:deploy_model_task", results.DeployedModel, _SERVING),
    "serving.operate": Stage("mlops_tasks.serving.tasks:operate_task", results.Operated, _SERVING),
    "serving.score_newest_date": Stage(
        "mlops_tasks.serving.tasks:score_newest_date_task", results.ScoredDate, _SERVING
    ),
    "monitoring.monitor": Stage("mlops_tasks.monitoring.tasks:monitor_task", results.Monitored, _SERVING),
    "monitoring.profile_training": Stage(
        "mlops_tasks.monitoring.tasks:profile_training_task", results.ProfiledTraining | results.Skipped, _REGISTRY
    ),
    "monitoring.check_drift": Stage(
        "mlops_tasks.monitoring.tasks:check_drift_task", results.DriftFound | results.Skipped, (*_ALERTS, *_REGISTRY)
    ),
    "experiments.compare_models": Stage(
        "mlops_tasks.experiments.tasks:compare_models_task", results.Compared | results.Skipped, (*_STATE, *_REGISTRY)
    ),
    "experiments.analyze": Stage(
        "mlops_tasks.experiments.daily_task:analyze_experiments_task", results.Analyzed, (*_ALERTS, *_REGISTRY)
    ),
    "experiments.judge_winners": Stage(
        "mlops_tasks.experiments.judging_task:judge_winners_task", results.JudgedWinners, (*_ALERTS, *_REGISTRY)
    ),
}
"""The stages that DAGs name."""

INNER_STAGES: Mapping[str, Stage] = {
    stage.function: stage
    for stage in (
        Stage("mlops_tasks.training.fit:fit_stage", results.FinishedFit, _SIGNING),  # it signs what it has trained
        Stage("mlops_tasks.experiments.cross_validation:cross_validate_task", secrets=_STATE),
        Stage("mlops_tasks.registry.replay.work:replay_stage", results.MeasuredReplay),
    )
}
"""What the library itself starts beside the chain, by its function."""

_WITHOUT_STORES = {"data.read_source", "data.validate_bars", "data.render_docs"}
"""Stages that work on what no machine shares; all others of `STAGES` reach the shared store (`shared_store.py`)."""

HEAVY_POOL, TRAINING_POOL, EVALUATION_POOL = "heavy", "training", "evaluation"
"""Airflow pools, which `make up` creates (`stack/environment.py`): of the stages that use several cores, of those that
train or wait for their turn in the machine's queue (`machine/admission.py`), and of the evaluations of many models.
A task's queue, from which Celery workers take it, has the name of its pool."""
LIGHT_QUEUE = "light"
"""The queue of tasks without a pool."""
QUEUES = (LIGHT_QUEUE, HEAVY_POOL, TRAINING_POOL, EVALUATION_POOL)

RUN_NOTE = "run_note"
"""Key of a stage's result, and XCom, of a sentence that the DAG run's note takes over."""

STAGE_SPAN = "stage_span"
"""XCom of a stage's first and last second since the epoch: what of a task's duration was work."""


def run_stage(
    stage: str,
    arguments: Mapping[str, Any],
    *,
    time_limit_s: float,
    on_line: Callable[[StageLine], None] = StageLine.relay,
    on_start: Callable[[StageProcess], None] = lambda child: None,
) -> dict[str, Any]:
    """Run one stage in a child process and return its result.

    Parameters
    ----------
    stage, arguments
        A key of `STAGES` (or `module:function`) and its keyword arguments (plain JSON).
    time_limit_s
        Seconds after which the child's process group is killed.
    on_line
        Called with each record that the child logs, as it logs it; by default it is logged here.
    on_start
        Called with the child, so that a caller can end it (`end_group`).

    Raises
    ------
    StageTimeoutError
        The stage ran too long.
    StageCancelledError, StageError
        It was cancelled; it ended with an error, whose kind this one has. To be killed by a signal, for lack of memory
        say, is transient; to end without a word, or to return something else than its type in `STAGES` says, is a bug.
    ConfigError
        The settings, which say what secrets it is given, cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="mlops_stage_") as folder:
        result = Path(folder, "result.json")
        settings = load_settings()
        words = ["run", stage, "--result", str(result), "--leash", "--arguments", json.dumps(arguments)]
        # Sets are iterated in the same order every time, or Qlib's backtest would sum in another one.
        environment = {**stage_environment(stage, settings), "PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0"}
        child = start_process(words, environment, settings.stage_socket)
        expired, handle = threading.Event(), os.pidfd_open(child.pid)

        def end() -> None:
            """End the group with its leader, or at the limit: what a killed leader leaves would hold the output."""
            if not select.select([handle], [], [], time_limit_s)[0]:
                expired.set()
            end_group(child)

        ender = threading.Thread(target=end, name="stage-end", daemon=True)
        ender.start()
        last = ""
        try:
            on_start(child)
            for line in child.output:
                told = StageLine.parse(line.rstrip("\n"))
                last = told.text.strip() or last
                on_line(told)
            child.wait()
        finally:
            end_group(child)
            ender.join()
            os.close(handle)
            child.close()
        if expired.is_set():
            raise StageTimeoutError(
                f"{stage}: ended after its limit of {time_limit_s:.0f} s; raise the limit or reduce the work"
            )
        if child.returncode != 0 or not result.exists():
            if (failure := StageFailure.read(result)) is not None:
                raise failure.error(stage)
            ended = f"{stage}: exit status {child.returncode}: {last.splitlines()[-1] if last else ''}"
            raise StageError(ended, ErrorKind.BUG if (child.returncode or 0) > 0 else ErrorKind.TRANSIENT)
        content: dict[str, Any] = json.loads(result.read_text())
        if (declared := _known(stage).result) is not None:
            results.check_result(stage, declared, content)
        return content


def stage_environment(stage: str, settings: Settings) -> dict[str, str]:
    """The environment of a stage's process: this process's, with no secret but those that the stage is given.

    A user's own `module:function` is given what `stage_secrets` of the settings says; none is given what this process
    does not have. Where stores are shared in a bucket, the stages that reach it are given its credentials. What the
    library itself starts beside the chain reaches no shared store: its caller has fetched what it reads.

    Raises
    ------
    ConfigError
        `stage_secrets` names a stage that there is not.
    """
    for name in settings.stage_secrets:
        if name not in STAGES and ":" not in name:
            raise ConfigError(f"stage_secrets.{name}: there is no such stage; {hint(name, STAGES)}")
    sources = [each.dsn_variable for each in settings.data.sources.values() if isinstance(each, PostgresqlSource)]
    known = _known(stage)
    given = (*known.secrets, *settings.stage_secrets.get(stage, ()), *(sources if known.reads_sources else ()))
    if settings.shared.is_bucket and stage in STAGES.keys() - _WITHOUT_STORES:
        given = (*given, *CREDENTIALS)
    secret = {*sources, *(name for names in settings.stage_secrets.values() for name in names)}
    environment = without_secrets(os.environ, given, also_secret=secret)
    return {**environment, "MLOPS_SHARED__STORE": ""} if stage in INNER_STAGES else environment


def _known(stage: str) -> Stage:
    """A stage of this library, or a user's own."""
    return STAGES.get(stage) or INNER_STAGES.get(stage) or Stage(stage)


def hold_leash() -> None:
    """In the child: end the own process group as soon as standard input closes."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="leash", daemon=True).start()


def give_way(stage: str) -> None:
    """In the child: lower this process's priority as its stage says, also where the kernel weighs whole sessions."""
    niceness = _known(stage).niceness
    if niceness == 0:
        return
    os.nice(niceness)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # a kernel without them
            Path("/proc/self/autogroup").write_text(str(niceness))


def stage_function(stage: str) -> Callable[..., dict[str, Any]]:
    """The function behind a stage: a key of `STAGES`, or a user's own `module:function`.

    Raises
    ------
    StageError
        The name is neither.
    """
    target = STAGES[stage].function if stage in STAGES else stage
    module, separator, name = target.partition(":")
    if not separator:
        known = f"known: {', '.join(STAGES)}, or module:function"
        raise StageError(f"unknown stage {stage!r}; {known}", ErrorKind.CONFIGURATION)
    function: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
    return function


@contextlib.contextmanager
def environment_of(changed: Mapping[str, str]) -> Iterator[None]:
    """Let this process's environment have these variables meanwhile."""
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
