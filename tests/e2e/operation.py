"""A whole stack in a home of its own, and what can be seen of its state from outside."""

import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from mlops_tasks.config import PROJECT, Settings, load_settings
from mlops_tasks.process import STAGE_SPAN
from mlops_tasks.state import tables
from mlops_tasks.state.database import reading
from tests.operation import free_ports

CONTENT = ("data", "features", "training", "scores")
"""Folders whose files are named by content or written in one step; compared byte for byte."""
NOT_CONTENT = {"metrics.json", "settings.yaml"}
"""metrics.json holds how long a training took."""
MADE_AT = re.compile(rb'"created": "[^"]*"')
"""The time in a feature version's manifest."""


@dataclass
class Operation:
    """`make up` and `make down` of one home, on free ports."""

    home: Path
    source: Path | str
    extra: dict[str, str] = field(default_factory=dict)
    """Settings besides the ports, as environment variables."""
    ports: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = ("AIRFLOW_PORT", "MLFLOW_PORT", "SCORING_PORT")
        self.ports = {f"MLOPS_STACK__{n}": str(port) for n, port in zip(names, free_ports(3), strict=True)}

    @property
    def environ(self) -> dict[str, str]:
        """What this operation's processes see."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLOPS_", "AIRFLOW_"))}
        # Compiled code of its own: a stage takes as long in one home as in another, whatever ran here before.
        own = {"MLOPS_HOME": str(self.home), "NUMBA_CACHE_DIR": str(self.home / "numba")}
        return {**clean, **self.ports, **self.extra, **own}

    @property
    def settings(self) -> Settings:
        """The settings of this home."""
        return load_settings(self.environ)

    def up(self) -> str:
        """Run the chain once; what it printed."""
        command = [sys.executable, "-m", "mlops_tasks.stack", "up", "--source", str(self.source)]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, check=False, cwd=PROJECT)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def down(self) -> None:
        """Stop every process."""
        command = [sys.executable, "-m", "mlops_tasks.stack", "down"]
        subprocess.run(command, env=self.environ, check=True, cwd=PROJECT, capture_output=True)

    def state(self) -> dict[str, Any]:
        """All that a run leaves: files, registry, and the operational history, without times and generated ids."""
        return {"files": self._files(), "history": self._history(), "registry": self._registry()}

    def _files(self) -> dict[str, str]:
        paths = [p for name in CONTENT for p in (self.home / name).rglob("*") if p.is_file()]
        kept = [
            p for p in paths if p.name not in NOT_CONTENT and not p.name.startswith(".lock") and ".dvc" not in p.parts
        ]
        contents = {p.relative_to(self.home).as_posix(): MADE_AT.sub(b"", p.read_bytes()) for p in kept}
        return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}

    def _history(self) -> dict[str, list[tuple[Any, ...]]]:
        settings = self.settings
        columns = {
            tables.GateDecision: ("training_key", "champion_version", "decision"),
            tables.Deployment: ("model_version", "training_key", "state", "reason"),
            tables.ScoreBatch: ("date", "model_version", "alias", "instruments", "digest"),
            tables.DriftReport: ("date", "model_version", "data_version", "psi_max", "n_warn", "n_alert"),
            tables.Publication: ("data_version",),
            tables.ModelComparison: ("champion_version", "challenger_version", "last_date", "result"),
        }
        with reading(settings) as active:
            return {
                table.__tablename__: [tuple(str(getattr(row, c)) for c in names) for row in active.query(table)]
                for table, names in columns.items()
            }

    def _registry(self) -> dict[str, Any]:
        import mlflow

        database = f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"
        client = mlflow.MlflowClient(tracking_uri=database, registry_uri=database)
        experiment = client.get_experiment_by_name("daily_retraining")
        runs = client.search_runs([experiment.experiment_id])
        versions = client.search_model_versions("name = 'alphaops'")
        return {
            "runs": sorted(
                (r.data.tags["training_key"], r.info.status, tuple(sorted(self._lasting(r.data.metrics).items())))
                for r in runs
            ),
            "params": {r.data.tags["training_key"]: r.data.params for r in runs},
            "versions": {int(v.version): (v.tags["training_key"], v.tags["digest"], v.status) for v in versions},
            "aliases": {k: int(v) for k, v in client.get_registered_model("alphaops").aliases.items()},
        }

    @staticmethod
    def _lasting(metrics: dict[str, float]) -> dict[str, float]:
        """But for what a training took: time, memory, and reading and writing."""
        return {name: value for name, value in metrics.items() if not name.endswith(("seconds", "_mb"))}


class Killer(threading.Thread):
    """Kills, with SIGKILL, one process of each task instance it is after, on the task's first try.

    Tasks that run a stage lose in turns the stage's process and Airflow's own process for the task; tasks without a
    stage lose Airflow's process. The moment lies somewhere in the middle third of the time that the stage last took
    when it was left alone.
    """

    WORKER = "airflow worker -- LocalExecutor: "
    """Title of a worker, followed by the id of the task instance that it supervises."""
    TASK = "airflow worker -- "
    """Title of the task process that a worker forked, followed by the id."""

    def __init__(self, home: Path, spans: dict[str, float], spared: Collection[str] = ()) -> None:
        super().__init__(daemon=True)
        self.database = home / "airflow" / "airflow.db"
        self.spans = spans
        """Seconds that each stage took when nobody disturbed it (`stage_spans`)."""
        self.spared = spared
        """Task instances that are left alone."""
        self.struck: dict[str, str] = {}
        """Task instance to which of its processes got the signal; whether that hit is seen in the task's tries."""
        self._watched: set[psutil.Process] = set()
        self._ended = threading.Event()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Look for task processes until stopped; each gets a watcher, for it lives long before its stage begins."""
        while not self._ended.wait(0.05):
            for process in psutil.process_iter(["cmdline", "ppid"]):
                title = " ".join(process.info["cmdline"] or [])
                if title.startswith(self.TASK) and process not in self._watched:
                    self._consider(process, title.split()[-1])

    def _consider(self, process: psutil.Process, instance_id: str) -> None:
        try:
            if " ".join(psutil.Process(process.info["ppid"]).cmdline()).startswith(self.WORKER):
                task = self._first_try(instance_id)
                self._watched.add(process)
                if task is not None and task not in self.spared:
                    turn = len(self._watched)
                    threading.Thread(target=self._kill, args=(process, task, turn), daemon=True).start()
        except (psutil.Error, sqlite3.OperationalError):
            return  # it ended meanwhile, or a worker that has not forked its task process yet, or a busy database

    def _kill(self, process: psutil.Process, task: str, turn: int) -> None:
        victim, which = process, "airflow"
        try:
            if task in self.spans:
                stage = self._stage_of(process)
                if turn % 2:
                    victim, which = stage, "stage"
                time.sleep(self.spans[task] * (1 + turn * 0.618 % 1) / 3)
            victim.kill()
        except psutil.NoSuchProcess:
            return  # it was faster than before; it is met again
        self.struck[task] = which

    @staticmethod
    def _stage_of(process: psutil.Process) -> psutil.Process:
        while True:
            for child in process.children():
                if child.cmdline()[1:4] == ["-m", "mlops_tasks", "run"]:
                    return child
            time.sleep(0.005)

    def _first_try(self, instance_id: str) -> str | None:
        """Name of the task instance when this is its first try."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)) as database:
            query = "select task_id, map_index, try_number from task_instance where replace(id, '-', '') = ?"
            row = database.execute(query, (instance_id.replace("-", ""),)).fetchone()
        return f"{row[0]}[{row[1]}]" if row and row[2] == 1 else None


def stage_spans(home: Path) -> dict[str, float]:
    """Seconds that the stage of each task instance took."""
    with closing(sqlite3.connect(f"file:{home / 'airflow' / 'airflow.db'}?mode=ro", uri=True, timeout=10)) as database:
        query = "select task_id, map_index, value from xcom where key = ?"
        rows = database.execute(query, (STAGE_SPAN,)).fetchall()
    spans = {f"{task}[{index}]": json.loads(value) for task, index, value in rows}
    return {task: last - first for task, (first, last) in spans.items()}


def task_tries(home: Path) -> dict[str, tuple[str, int]]:
    """State and number of tries of every task instance of both DAGs."""
    with closing(sqlite3.connect(f"file:{home / 'airflow' / 'airflow.db'}?mode=ro", uri=True, timeout=10)) as database:
        rows = database.execute("select task_id, map_index, state, try_number from task_instance").fetchall()
    return {f"{task}[{index}]": (state, tries) for task, index, state, tries in rows}


def write_panel(path: Path, days: int) -> None:
    """The first `days` sessions of a small market with a strong planted signal, as one parquet file."""
    from mlops_tasks.config import SyntheticSettings
    from mlops_tasks.data.sources.synthetic import synthetic_bars

    parameters = SyntheticSettings(instruments=30, days=days, signal_strength=0.3)
    bars: pd.DataFrame = synthetic_bars(parameters)
    bars[["datetime", "instrument", "open", "high", "low", "close", "volume", "factor"]].to_parquet(path)
