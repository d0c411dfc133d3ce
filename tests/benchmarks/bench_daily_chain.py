"""The whole chain inside Airflow against Qlib's own workflow on the same bars.

Ours: from the start of `sync_market_data` to the end of `daily_retraining`: sync with validation and versions,
features, two models, evaluation, MLflow, gate, deployment, scores, drift, comparison. The peer: handler with two
processes, LightGBM fit, predict, IC, backtest, on the Qlib store that our sync wrote, with the same segments and
parameters. Both sides are warm: the stack runs and has run tasks, the peer's files have been read once.

`orchestration_share` is the part of our wall time in which no stage was at work: Airflow's scheduling, the start of
task processes and what they exchange. `unchanged_s` is the same chain once more on unchanged bars, `empty_tasks_s`
what Airflow takes for the same DAGs with tasks that do nothing, in the same stack; the first may be 12 s more.
`one_more_day_s` is the chain on one more day of bars (null on the synthetic market, which has no file to extend).
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pandas as pd

from mlops_tasks.config import PROJECT
from mlops_tasks.files import read_json
from mlops_tasks.process import STAGE_SPAN
from mlops_tasks.stack.chain import RETRAIN, SYNC
from tests.benchmarks.empty_chain import NAMES, run_empty_chain, write_empty_dags
from tests.benchmarks.panels import us_source
from tests.e2e.operation import Operation

MODELS = 2
"""That a run trains by default: the tasks of a model are there as often."""


def run() -> dict:
    """Both sides in one run."""
    given, extra = us_source()
    with tempfile.TemporaryDirectory() as folder:
        source = given if given == "synthetic" else without_last_day(Path(given), Path(folder) / "panel.parquet")
        extra = {**extra, **write_empty_dags(Path(folder) / "dags", MODELS)}
        operation = Operation(Path(folder) / "home", source, extra)
        try:
            operation.make("up", f"SOURCE={source}", "CHAIN=0")
            run_empty_chain(operation.settings)
            operation.up()
            first, ours = chain_times(operation.home), lightgbm_metrics(operation.home)
            run_peer(operation)
            peer = run_peer(operation)
            operation.up()
            second = chain_times(operation.home)
            run_empty_chain(operation.settings)
            empty = chain_times(operation.home, tuple(NAMES.values()))
            if given != "synthetic":
                shutil.copy(given, source)
                operation.up()
                third = chain_times(operation.home)["wall_s"]
            else:
                third = None
        finally:
            operation.down()
    return {
        "name": "daily_chain",
        "ours": round(first["wall_s"], 1),
        "peer": round(peer["wall_s"], 1),
        "unit": "s",
        "ratio": round(peer["wall_s"] / first["wall_s"], 2),
        "orchestration_share": round(1 - first["work_s"] / first["wall_s"], 3),
        "unchanged_s": round(second["wall_s"], 1),
        "empty_tasks_s": round(empty["wall_s"], 1),
        "beyond_empty_tasks_s": round(second["wall_s"] - empty["wall_s"], 1),
        "one_more_day_s": None if third is None else round(third, 1),
        "stages_s": first["stages_s"],
        "unchanged_stages_s": second["stages_s"],
        "peer_steps_s": peer["seconds"],
        "rank_ic_mean": {"ours": ours["test_rank_ic_mean"], "peer": peer["rank_ic_mean"]},
        "ic_mean": {"ours": ours["test_ic_mean"], "peer": peer["ic_mean"]},
    }


def without_last_day(panel: Path, target: Path) -> Path:
    """A copy of a panel that lacks its newest day."""
    bars = pd.read_parquet(panel)
    bars[bars["date"] < bars["date"].max()].to_parquet(target, index=False)
    return target


def chain_times(home: Path, dag_ids: tuple[str, str] = (SYNC, RETRAIN)) -> dict:
    """Wall time of the newest sync and retraining, the time in which any stage was at work, and each stage's own."""
    with closing(sqlite3.connect(f"file:{home / 'airflow' / 'airflow.db'}?mode=ro", uri=True)) as database:
        newest = [
            database.execute(
                "select run_id, start_date, end_date from dag_run where dag_id = ? order by id desc limit 1", (dag_id,)
            ).fetchone()
            for dag_id in dag_ids
        ]
        spans = {
            f"{task}[{index}]" if index >= 0 else task: json.loads(value)
            for run_id, _, _ in newest
            for task, index, value in database.execute(
                "select task_id, map_index, value from xcom where run_id = ? and key = ?", (run_id, STAGE_SPAN)
            )
        }
    begun, ended = (datetime.fromisoformat(newest[0][1]), datetime.fromisoformat(newest[1][2]))
    return {
        "wall_s": (ended - begun).total_seconds(),
        "work_s": union_length(list(spans.values())),
        "stages_s": {name: round(last - first, 1) for name, (first, last) in spans.items()},
    }


def union_length(spans: list[list[float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for first, last in sorted(spans):
        total += max(0.0, last - max(first, reached))
        reached = max(reached, last)
    return total


def lightgbm_metrics(home: Path) -> dict:
    """The chain's own metrics of LightGBM."""
    for key in read_json(home / "training" / "latest.json")["training_keys"]:
        if read_json(home / "training" / key / "plan.json")["model"] == "lightgbm":
            metrics: dict = read_json(home / "training" / key / "evaluation" / "evaluation.json")["metrics"]
            return metrics
    raise AssertionError("the chain trained no LightGBM model")


def run_peer(operation: Operation) -> dict:
    """Qlib's own workflow in a process of its own."""
    from mlops_tasks.data.qlib.store import qlib_store_path
    from mlops_tasks.data.vintages import current_vintage
    from mlops_tasks.evaluation.portfolio import universe_returns

    settings = operation.settings
    vintage = current_vintage(settings)
    key = read_json(operation.home / "training" / "latest.json")["training_keys"][0]
    segments = read_json(operation.home / "training" / key / "plan.json")["segments"]
    calendar = vintage.calendar()
    bench = universe_returns(vintage, calendar[1], calendar[-1])
    task = {
        "store": str(qlib_store_path(settings, vintage.data_version)),
        "instruments": "universe",
        "segments": segments,
        "threads": settings.training.threads,
        "seed": settings.training.seed,
        "topk": settings.portfolio.topk,
        "n_drop": settings.portfolio.n_drop,
        "benchmark": {str(day.date()): float(value) for day, value in bench.items()},
    }
    command = [sys.executable, "-m", "tests.benchmarks.peer_qlib_workflow", json.dumps(task)]
    started = time.perf_counter()
    # Qlib's recorder writes its artefacts into the working directory, whatever its tracking address is.
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": str(PROJECT)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-4000:])
    result: dict = json.loads(done.stdout.splitlines()[-1])
    return {**result, "wall_s": time.perf_counter() - started}
