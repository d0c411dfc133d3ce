"""A whole stack in a home of its own, and what can be seen of its state from outside."""

import base64
import contextlib
import hashlib
import itertools
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
from typing import Any, ClassVar

import pandas as pd
import psutil

from mlops_tasks.config import PROJECT, Settings, load_settings
from mlops_tasks.secret_files import make_once
from mlops_tasks.signing import PRIVATE
from mlops_tasks.stack.chain import RETRAIN, SYNC
from mlops_tasks.stack.environment import base_environment, mlflow_database
from mlops_tasks.state import tables
from mlops_tasks.state.database import reading
from tests.operation import free_ports
from tests.programs import stages_of

DAYS = 260
"""Sessions of the small market; the shortest that gives all three segments a fair number of days."""
SMALL = {
    "MLOPS_PORTFOLIO__TOPK": "10",
    "MLOPS_PORTFOLIO__N_DROP": "2",
    "MLOPS_DATA__SUITE_PAGES": "false",  # the tests of the data stages render them
}
"""Settings for the small market."""
CONTENT = ("data", "features", "training", "scores")
"""Folders whose files are named by content or written in one step; compared byte for byte."""
NOT_CONTENT = {"metrics.json", "settings.yaml"}
"""metrics.json holds how long a training took."""
OF_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")
"""Variables by which the `make` that runs the tests would speak to another one."""
OF_CHAIN = f"dag_id in ('{SYNC}', '{RETRAIN}')"
"""Of Airflow's rows: those of the chain's DAGs, not of one that looks every few minutes."""
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
        # One key in every home, so that equal trainings leave equal bytes.
        make_once(self.home / "secrets" / PRIVATE.file, lambda: base64.b64encode(bytes(32)).decode())

    @property
    def environ(self) -> dict[str, str]:
        """What this operation's processes see."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLOPS_", "AIRFLOW_"))}
        return {**clean, **self.ports, **self.extra, "MLOPS_HOME": str(self.home)}

    @property
    def settings(self) -> Settings:
        """The settings of this home."""
        return load_settings(self.environ)

    def up(self) -> str:
        """Run the chain once; what it printed."""
        return self.make("up", f"SOURCE={self.source}")

    def make(self, *words: str) -> str:
        """Run `make` with these words in the environment that is there; what it printed."""
        there = ["--old-file=env", "--old-file=.venv/.installed"]
        command = ["make", "--no-print-directory", *there, *words]
        environ = {name: value for name, value in self.environ.items() if name not in OF_MAKE}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, cwd=PROJECT)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run_without_airflow(self) -> None:
        """Run the chain once in one process, which has a stage's order of sets and number of threads."""
        own = {
            "MLOPS_DATA__SOURCE": str(self.source),
            "MLOPS_SCORING_TOKEN": "token-of-the-reference",
            "AIRFLOW_HOME": str(self.home / "airflow"),
            "PYTHONHASHSEED": "0",
        }
        command = [sys.executable, "-m", "tests.e2e.reference"]
        environ = base_environment(self.settings, self.environ) | own
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, cwd=PROJECT)
        assert done.returncode == 0, done.stdout + done.stderr

    def down(self) -> None:
        """Stop every process; harmless when none runs."""
        self.make("down")

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

        database = mlflow_database(self.settings)
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


WITHOUT_STAGE = frozenset({"list_models[-1]", "emit_market_data[-1]"})
"""The task instances that run no stage."""


class Killer(threading.Thread):
    """Kills, with SIGKILL, one process of each task instance it is after, on the task's first try.

    It aims by progress: tasks that run a stage die when the stage has written a certain line of its log, which says
    that it has begun unless `LINES` says otherwise, in turns the stage's process and Airflow's own process for the
    task. Tasks without a stage lose Airflow's process as soon as it is there.
    """

    LINES: ClassVar = {
        "certify_learning_data[-1]": 12,
        "build_model.train_model[0]": 5,
        "build_model.train_model[1]": 7,
    }
    """Those whose stage writes lines while it works, and the line at which they are killed."""

    WORKER = "airflow worker -- LocalExecutor: "
    """Title of a worker, followed by the id of the task instance that it supervises."""
    TASK = "airflow worker -- "
    """Title of the task process that a worker forked, followed by the id."""

    def __init__(self, home: Path, spared: Collection[str] = ()) -> None:
        super().__init__(daemon=True)
        self.home = home
        self.spared = spared
        """Task instances that are left alone."""
        self.struck: dict[str, str] = {}
        """Task instance to which of its processes got the signal; whether that hit is seen in the task's tries."""
        self._watched: set[int] = set()
        self._turns = itertools.count()
        self._ended = threading.Event()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Look for task processes until stopped; each gets a watcher, for it lives long before its stage begins."""
        while not self._ended.wait(0.1):
            for pid in set(psutil.pids()) - self._watched:
                with contextlib.suppress(psutil.Error, sqlite3.OperationalError):
                    self._consider(psutil.Process(pid))

    def _consider(self, process: psutil.Process) -> None:
        """Set a watcher on a task process of this home; a busy database leaves it for the next look."""
        title = " ".join(process.cmdline())
        if not title.startswith(self.TASK):
            # Airflow's own processes take their title after their start; nobody else's ever matters.
            if time.time() - process.create_time() > 5:
                self._watched.add(process.pid)
            return
        if title.startswith(self.WORKER) or not (parent := process.parent()):
            return
        if not " ".join(parent.cmdline()).startswith(self.WORKER):
            return
        found = self._first_try(title.split()[-1])
        self._watched.add(process.pid)
        if found and found[0] not in self.spared:
            threading.Thread(target=self._kill, args=(process, *found, next(self._turns)), daemon=True).start()

    def _kill(self, process: psutil.Process, task: str, log: Path, turn: int) -> None:
        victim, which = process, "airflow"
        with contextlib.suppress(psutil.NoSuchProcess):  # it was faster than before; it is met again
            if task not in WITHOUT_STAGE:
                while lines_of_stage(log) < self.LINES.get(task, 1):
                    if not process.is_running():
                        return
                    time.sleep(0.01)
                if turn % 2:
                    victim, which = self._stage_of(process), "stage"
            victim.kill()
            self.struck[task] = which

    @staticmethod
    def _stage_of(process: psutil.Process) -> psutil.Process:
        """Forked by the stage server, or a fresh interpreter."""
        for stage in stages_of(process.pid):
            return stage
        raise psutil.NoSuchProcess(process.pid)

    def _first_try(self, instance_id: str) -> tuple[str, Path] | None:
        """Name and log of the chain's task instance when this is its first try; None for one of another home, too."""
        query = (
            "select dag_id, run_id, task_id, map_index, try_number from task_instance "
            f"where replace(id, '-', '') = ? and {OF_CHAIN}"
        )
        found = select_rows(self.home, query, (instance_id.replace("-", ""),))
        if not found or found[0][4] != 1:
            return None
        dag, run, task, index, _ = found[0]
        return f"{task}[{index}]", _log_file(self.home, dag, run, task, index)


STAGE_LINE = re.compile(rb'"logger":"mlops_tasks\.(?!printed)')
"""A line of the log that a stage wrote, within Airflow's log of the task."""


def lines_of_stage(log: Path) -> int:
    """How many lines the stage has written to Airflow's log of a try so far."""
    return len(STAGE_LINE.findall(log.read_bytes())) if log.exists() else 0


def tasks_with_stages(home: Path) -> set[str]:
    """The chain's task instances whose first try's log has lines of a stage."""
    rows = select_rows(home, f"select dag_id, run_id, task_id, map_index from task_instance where {OF_CHAIN}")
    return {f"{row[2]}[{row[3]}]" for row in rows if lines_of_stage(_log_file(home, *row))}


def _log_file(home: Path, dag: str, run: str, task: str, index: int) -> Path:
    mapped = f"map_index={index}/" if index >= 0 else ""
    return home / "airflow" / "logs" / f"dag_id={dag}" / f"run_id={run}" / f"task_id={task}" / f"{mapped}attempt=1.log"


def select_rows(home: Path, query: str, values: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
    """Rows of Airflow's own database."""
    with closing(sqlite3.connect(f"file:{home / 'airflow' / 'airflow.db'}?mode=ro", uri=True, timeout=10)) as database:
        return database.execute(query, values).fetchall()


def task_tries(home: Path) -> dict[str, tuple[str, int]]:
    """State and number of tries of every task instance of the chain."""
    rows = select_rows(home, f"select task_id, map_index, state, try_number from task_instance where {OF_CHAIN}")
    return {f"{task}[{index}]": (state, tries) for task, index, state, tries in rows}


def write_panel(path: Path, days: int) -> None:
    """The first `days` sessions of a small market with a strong planted signal: one parquet file of adjusted prices."""
    from mlops_tasks.config import SyntheticSettings
    from mlops_tasks.data.sources.synthetic import synthetic_bars

    parameters = SyntheticSettings(instruments=30, days=days, signal_strength=0.3)
    bars: pd.DataFrame = synthetic_bars(parameters)
    prices = ["open", "high", "low", "close"]
    bars[prices] = bars[prices].mul(bars["factor"], axis=0)
    bars[["datetime", "instrument", "open", "high", "low", "close", "volume", "factor"]].to_parquet(path)
