"""Heavy work in a process of its own: `python -m mlops_tasks run <stage>`.

A task process is no place for native threads and pools (it is forked, it cannot be interrupted in native code), so a
task starts the stage as a child in a new process group, streams its log and reads its JSON result. The child keeps a
leash: its standard input is a pipe from the task. When the task dies, however it dies, the pipe closes and the child
ends its whole group.
"""

import contextlib
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlops_tasks.errors import StageError, StageTimeoutError

log = logging.getLogger(__name__)

STAGES: Mapping[str, str] = {
    "data.read_source": "mlops_tasks.data.tasks:read_source_task",
    "data.validate_bars": "mlops_tasks.data.tasks:validate_bars_task",
    "data.version_snapshot": "mlops_tasks.data.tasks:version_snapshot_task",
    "data.compare_vintages": "mlops_tasks.data.tasks:compare_vintages_task",
    "data.write_qlib_store": "mlops_tasks.data.tasks:write_qlib_store_task",
    "data.publish_vintage": "mlops_tasks.data.tasks:publish_vintage_task",
    "features.compute": "mlops_tasks.features.tasks:compute_features_task",
    "training.plan": "mlops_tasks.training.tasks:plan_run_task",
    "training.certify": "mlops_tasks.training.tasks:certify_learning_data_task",
    "training.train": "mlops_tasks.training.tasks:train_model_task",
    "tuning.plan": "mlops_tasks.tuning.tasks:plan_search_task",
    "tuning.choose_algorithm": "mlops_tasks.tuning.tasks:choose_algorithm_task",
    "tuning.create_study": "mlops_tasks.tuning.tasks:create_study_task",
    "tuning.run_worker": "mlops_tasks.tuning.tasks:run_worker_task",
    "tuning.finish_study": "mlops_tasks.tuning.tasks:finish_study_task",
    "evaluation.evaluate": "mlops_tasks.evaluation.tasks:evaluate_model_task",
    "registry.log_run": "mlops_tasks.registry.tasks:log_run_task",
    "registry.log_study": "mlops_tasks.registry.tasks:log_study_task",
    "registry.register_challenger": "mlops_tasks.registry.tasks:register_challenger_task",
    "registry.gate_challenger": "mlops_tasks.registry.tasks:gate_challenger_task",
    "registry.collect_features": "mlops_tasks.registry.tasks:collect_features_task",
    "serving.deploy": "mlops_tasks.serving.tasks:deploy_model_task",
    "serving.score_newest_date": "mlops_tasks.serving.tasks:score_newest_date_task",
    "monitoring.check_drift": "mlops_tasks.monitoring.tasks:check_drift_task",
    "experiments.compare_models": "mlops_tasks.experiments.tasks:compare_models_task",
}
"""Stage name to function. A stage takes keyword arguments and returns a dict, both plain JSON."""

HEAVY_POOL, TRAINING_POOL = "heavy", "training"
"""Airflow pools, which `make up` creates (`stack/environment.py`): of the stages that use several cores, and of those
that train or wait for their turn in the machine's queue (`training/admission.py`)."""

STAGE_SPAN = "stage_span"
"""XCom of a stage's first and last second since the epoch: what of a task's duration was work."""


def run_stage(
    stage: str,
    arguments: Mapping[str, Any],
    *,
    time_limit_s: float,
    on_line: Callable[[str], None] = log.info,
    on_start: Callable[[subprocess.Popen[str]], None] = lambda child: None,
) -> dict[str, Any]:
    """Run one stage in a child process and return its result.

    Parameters
    ----------
    stage, arguments
        A key of `STAGES` (or `module:function`) and its keyword arguments (plain JSON).
    time_limit_s
        Seconds after which the child's process group is killed.
    on_line
        Called with each line that the child writes, as it writes it.
    on_start
        Called with the child, so that a caller can end it (`end_group`).

    Raises
    ------
    StageTimeoutError, StageError
        The stage ran too long, or ended with an error.
    """
    with tempfile.TemporaryDirectory(prefix="mlops_stage_") as folder:
        result = Path(folder, "result.json")
        command = [sys.executable, "-m", "mlops_tasks", "run", stage, "--result", str(result), "--leash"]
        command += ["--arguments", json.dumps(arguments)]
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
            start_new_session=True,
            # Sets are iterated in the same order every time, or Qlib's backtest would sum in another one.
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0"},
        )
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            end_group(child)

        timer = threading.Timer(time_limit_s, expire)
        timer.daemon = True
        timer.start()
        last = ""
        try:
            on_start(child)
            assert child.stdout is not None
            for line in child.stdout:
                text = line.rstrip("\n")
                last = text.strip() or last
                on_line(text)
            child.wait()
        finally:
            timer.cancel()
            end_group(child)
        if expired.is_set():
            raise StageTimeoutError(
                f"{stage}: ended after its limit of {time_limit_s:.0f} s; raise the limit or reduce the work"
            )
        if child.returncode != 0 or not result.exists():
            raise StageError(f"{stage}: exit status {child.returncode}: {last}")
        content: dict[str, Any] = json.loads(result.read_text())
        return content


def end_group(child: subprocess.Popen[str]) -> None:
    """Kill the child and all that it started; harmless when they are gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def hold_leash() -> None:
    """In the child: end the own process group as soon as standard input closes."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="leash", daemon=True).start()


def stage_function(stage: str) -> Callable[..., dict[str, Any]]:
    """The function behind a stage: a key of `STAGES`, or a user's own `module:function`.

    Raises
    ------
    StageError
        The name is neither.
    """
    target = STAGES.get(stage, stage)
    module, separator, name = target.partition(":")
    if not separator:
        raise StageError(f"unknown stage {stage!r}; known: {', '.join(STAGES)}, or module:function")
    function: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
    return function
