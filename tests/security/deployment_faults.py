"""Deployments, their undoing and rollbacks under faults: `python -m tests.security.deployment_faults`.

Each process is a fork of one that has imported everything and used nothing: a scoring service, and a deployment
against it, one of them with a fault at its n-th edge. Afterwards there is one reconciliation, by the service (its
start, where it is dead) or by `status`, and then one calm retry. Arguments: the home, how many faults to try, and the
names of the scenarios (none: all). Each line of output is JSON: for one fault what happened, and what is wrong with the
outcome, if anything.

The home holds registered versions: 1 and 2 are good, 3 is one that the service cannot load.
"""

import ctypes
import json
import logging
import os
import random
import shutil
import signal
import socket
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import closing, redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import uvicorn

from mlops_tasks.cli import main as command_line
from mlops_tasks.config import Settings, load_settings
from mlops_tasks.modeling.model_zoo.family import find_family
from mlops_tasks.registry.models import get_tags, tags_of_versions
from mlops_tasks.serving import client as client_module
from mlops_tasks.serving.app import create_app
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.deployment import deploy_blue_green, roll_back
from mlops_tasks.serving.reconciliation import reconcile
from mlops_tasks.serving.service import ScoringService
from tests.data.killing import in_fork
from tests.security.faults import KINDS, Edges, Fault, Trial, draw

TABLE = "SELECT name FROM sqlite_master WHERE name = 'deployment'"
WITHDRAWN = (
    "SELECT DISTINCT model_version FROM deployment JOIN model_revocation USING (training_key, artefact_digest) "
    "WHERE state = 'serving'"
)
ENDS = ("serving", "rolled_back")
PATIENCE_S = 120.0
"""Nobody waits so long for what is sound, on however busy a machine."""
PR_SET_PDEATHSIG = 1  # linux/prctl.h: the service does not outlive the process that tries the faults


@dataclass(frozen=True)
class Scenario:
    """Something that moves the alias."""

    name: str
    before: tuple[int, ...]
    """Deployed one after the other before it."""
    target: int
    """The champion when it succeeds, or is undone as it has to be."""
    work: Callable[[Settings], object]


SCENARIOS = (
    Scenario("first deployment", (), 1, lambda settings: deploy_blue_green(settings, 1)),
    Scenario("deployment", (1,), 2, lambda settings: deploy_blue_green(settings, 2)),
    Scenario("undo", (1,), 1, lambda settings: deploy_blue_green(settings, 3)),
    Scenario("rollback", (1, 2), 1, roll_back),
)


class Bench:
    """A home that is put back to a known state before each trial."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.elsewhere = settings.home / "elsewhere"
        self.snapshots = settings.home / "snapshots"
        self.looked = settings.home / "looked"
        self.service = 0

    def _note_looks(self, service: ScoringService) -> None:
        follow = service.follow

        def noted() -> None:
            follow()
            self.looked.touch()

        service.follow = noted  # type: ignore[method-assign]

    def prepare(self) -> None:
        """Make the service's own home, and the states from which the scenarios begin."""
        self.elsewhere.mkdir()
        for name in ("data", "features"):
            (self.elsewhere / name).symlink_to(self.settings.home / name)
        self.save("0")
        self.start_service(Fault("", 0))
        for done in ((1,), (1, 2)):
            assert in_fork(lambda: deploy_blue_green(self.settings, done[-1])) == 0  # noqa: B023
            self.save(str(len(done)))
        self.stop_service()

    def save(self, name: str) -> None:
        """Keep MLflow's and the state database as they are now."""
        target = self.snapshots / name
        target.mkdir(parents=True)
        shutil.copy(self.settings.home / "mlflow" / "mlflow.db", target)
        if (self.settings.home / "state").exists():
            _vacuum(self.settings.home / "state" / "state.db", target / "state.db")

    def reset(self, name: str) -> None:
        """Back to a saved state; what the service has logged meanwhile is forgotten."""
        source = self.snapshots / name
        shutil.copy(source / "mlflow.db", self.settings.home / "mlflow" / "mlflow.db")
        shutil.rmtree(self.settings.home / "state", ignore_errors=True)
        (self.settings.home / "state").mkdir()
        if (source / "state.db").exists():
            shutil.copy(source / "state.db", self.settings.home / "state")
        shutil.rmtree(self.elsewhere / "predictions", ignore_errors=True)

    def start_service(self, fault: Fault, count_file: Path | None = None) -> None:
        """A scoring service with a home of its own, as on another machine; returns when it answers, or is dead."""
        self.looked.unlink(missing_ok=True)
        self.service = os.fork()
        if self.service == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.environ["MLOPS_STATE_URL"] = self.settings.state_database
            os.environ["MLOPS_MLFLOW_TRACKING_URI"] = self.settings.registry_uri
            os.environ["MLOPS_HOME"] = str(self.elsewhere)
            settings = load_settings()
            Edges(fault, count_file).install(settings)
            app = create_app(settings)
            self._note_looks(app.state.service)
            uvicorn.run(app, port=settings.stack.scoring_port, log_level="error")
            os._exit(0)
        until = time.monotonic() + PATIENCE_S
        while os.waitpid(self.service, os.WNOHANG) == (0, 0):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.settings.stack.scoring_port)) == 0:
                    return
            assert time.monotonic() < until
            time.sleep(0.01)
        self.service = 0

    def is_service_alive(self) -> bool:
        """Whether the service's process is there."""
        if self.service and os.waitpid(self.service, os.WNOHANG) != (0, 0):
            self.service = 0
        return self.service != 0

    def stop_service(self) -> None:
        """End it without a word."""
        if self.is_service_alive():
            os.kill(self.service, signal.SIGKILL)
            os.waitpid(self.service, 0)
        self.service = 0

    def edges(self, scenario: Scenario, process: str) -> list[str]:
        """The edges that a calm run crosses in one of its processes."""
        counted = self.settings.home / "edges.json"
        counted.unlink(missing_ok=True)
        self.reset(str(len(scenario.before)))
        self.start_service(Fault("", 0), counted if process == "service" else None)
        in_fork(lambda: self.deploy(scenario, Fault("", 0), counted if process == "deployment" else None))
        self.stop_service()
        return json.loads(counted.read_text())  # type: ignore[no-any-return]

    def deploy(self, scenario: Scenario, fault: Fault, count_file: Path | None = None) -> None:
        """The scenario's work, with a fault."""
        Edges(fault, count_file).install(self.settings)
        scenario.work(self.settings)

    def try_out(self, trial: Trial[Scenario]) -> dict[str, Any]:
        """One trial, from a known state to its end."""
        scenario, calm = trial.scenario, Fault("", 0)
        self.reset(str(len(scenario.before)))
        before = state_of(self.settings.home)
        self.start_service(trial.fault if trial.process == "service" else calm)
        fault = Fault(**{**asdict(trial.fault), "service_pid": self.service}) if trial.process == "deployment" else calm
        ended = in_fork(lambda: self.deploy(scenario, fault))
        between = state_of(self.settings.home)["alias"]
        self.reconcile(trial)
        after = state_of(self.settings.home)
        if not self.is_service_alive() or trial.process == "service":
            self.stop_service()
            self.start_service(calm)
        served = self.refresh()
        retried = in_fork(lambda: scenario.work(self.settings)) if after["alias"] != scenario.target else 0
        last = state_of(self.settings.home)
        self.stop_service()
        wrong = wrongs(trial, ended, before, after)
        if served != after["alias"]:
            wrong.append(f"the service serves {served}")
        if last["alias"] != scenario.target or (retried != 0 and scenario.name != "undo"):
            wrong.append(f"the retry ended with {retried} and champion {last['alias']}")
        return {
            "scenario": scenario.name,
            "process": trial.process,
            "edge": trial.edge,
            "kind": trial.fault.kind,
            "after": trial.fault.after,
            "by": trial.by,
            "ended": "killed" if ended == signal.SIGKILL else "done" if ended == 0 else "failed",
            "alias": [before["alias"], between, after["alias"]],
            "steps": [step[1] for step in after["steps"][len(before["steps"]) :]],
            "wrong": wrong,
        }

    def reconcile(self, trial: Trial[Scenario]) -> None:
        """Once, by a process that has no fault (any more)."""
        if trial.by == "status":
            assert in_fork(look_at_status) == 0
        elif self.is_service_alive() and trial.process == "deployment":
            self.refresh()
        else:
            self.stop_service()
            self.start_service(Fault("", 0))
            self.wait_for_first_look()

    def refresh(self) -> int | None:
        """Let the service look once; returns the version that it serves then."""
        with ScoringClient(self.settings) as client:
            return client.refresh()["model_version"]  # type: ignore[no-any-return]

    def wait_for_first_look(self) -> None:
        """The service's thread looks once at its start, and next after an hour."""
        until = time.monotonic() + PATIENCE_S
        while not self.looked.exists():
            assert time.monotonic() < until
            time.sleep(0.01)


def rows_of(database: Path, query: str) -> list[tuple[Any, ...]]:
    """What a query finds, past the code under test; nothing where there is no such database yet."""
    if not database.exists():
        return []
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def state_of(home: Path) -> dict[str, Any]:
    """The alias, what is proven, rejected and withdrawn, and the history."""
    registry, record = home / "mlflow" / "mlflow.db", home / "state" / "state.db"
    aliases = rows_of(registry, "SELECT version FROM registered_model_aliases WHERE alias = 'champion'")
    rejected = rows_of(
        registry, "SELECT version FROM model_version_tags WHERE key = 'lifecycle_state' AND value = 'rejected'"
    )
    query = "SELECT model_version, state, attempt, proven_version FROM deployment ORDER BY id"
    there = bool(rows_of(record, TABLE))
    steps = [list(row) for row in rows_of(record, query)] if there else []
    withdrawn = [model_version for (model_version,) in rows_of(record, WITHDRAWN)] if there else []
    return {
        "alias": aliases[0][0] if aliases else None,
        "proven": {step[0] for step in steps if step[1] == "serving"},
        "rejected": [int(version) for (version,) in rejected],
        "withdrawn": withdrawn,
        "steps": steps,
    }


def wrongs(trial: Trial[Scenario], ended: int, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is wrong after one reconciliation."""
    alias, found = after["alias"], wrongs_of_history(before, after)
    if ended == 0 and alias != trial.scenario.target:
        found.append("it said that it was done")
    if trial.scenario.name == "rollback" and (alias == 1) != (2 in after["rejected"]):
        found.append(f"champion {alias}, rejected {after['rejected']}")
    if after["withdrawn"] != ([2] if trial.scenario.name == "rollback" and alias == 1 else []):
        found.append(f"champion {alias}, withdrawn {after['withdrawn']}")
    return found


def wrongs_of_history(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is wrong with the record of deployments, and with the alias beside it."""
    alias, steps, found = after["alias"], after["steps"], []
    new = steps[len(before["steps"]) :]
    moves = [step for step in new if step[1] != "failed"]
    if alias not in (after["proven"] or [None]):
        found.append(f"the alias names {alias}, proven are {after['proven']}")
    if steps[: len(before["steps"])] != before["steps"]:
        found.append("history was changed")
    starts, ends = moves[::2], moves[1::2]
    if len(starts) != len(ends) or any(
        start[1] != "started" or end[1] not in ENDS or end[2] != start[2]
        for start, end in zip(starts, ends, strict=False)
    ):
        found.append(f"the history makes no sense: {new}")
    if moves and alias != (moves[-1][0] if moves[-1][1] == "serving" else moves[-1][3]):
        found.append(f"the history says {moves[-1]}, the alias names {alias}")
    return found


def look_at_status() -> None:
    """As a person does, who has it put right."""
    with redirect_stdout(StringIO()):
        assert command_line(["status", "--json"]) == 0


def _vacuum(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("VACUUM INTO ?", (str(target),))


def trials(bench: Bench, count: int, names: list[str]) -> list[Trial[Scenario]]:
    """So many of all faults at all edges, drawn by a fixed seed; every scenario, process and kind has its share."""
    generator, all_of = random.Random(15), []
    for scenario in [each for each in SCENARIOS if each.name in names or not names]:
        for process in ("deployment", "service"):
            edges = bench.edges(scenario, process)
            for kind in KINDS:
                if process == "service" and kind in ("service_away", "interrupt"):
                    continue
                group = [
                    Trial(scenario, process, Fault(kind, at, after), edge, generator.choice(["service", "status"]))
                    for at, edge in enumerate(edges, 1)
                    for after in (False, True)
                    if not (kind.startswith("mlflow") and not after and not edge.startswith("mlflow"))
                ]
                all_of.append(group)
    return draw(all_of, count, generator)


def warm_up(settings: Settings) -> None:
    """Pay here for what every fork would pay for: modules and mappers that are made at the first use of a database.

    It is used on another home, so that no fork shares a connection with this process.
    """
    warm = Settings(home=settings.home / "warm")
    (warm.home / "mlflow").mkdir(parents=True)
    shutil.copy(settings.home / "mlflow" / "mlflow.db", warm.home / "mlflow")
    assert reconcile(warm).champion is None
    assert tags_of_versions(warm)
    get_tags(warm, 1)
    config = uvicorn.Config(create_app(warm))
    config.load()
    find_family("lightgbm")
    ScoringClient(warm).close()


def main(home: Path, count: int, names: list[str]) -> None:
    """Try so many faults."""
    os.environ["MLOPS_HOME"] = str(home)
    client_module.FIRST_PAUSE_S = 0.02
    logging.disable(logging.CRITICAL)
    bench = Bench(load_settings())
    warm_up(bench.settings)
    bench.prepare()
    for trial in trials(bench, count, names):
        try:
            result = bench.try_out(trial)
        except Exception:
            bench.stop_service()
            result = {**asdict(trial.fault), "edge": trial.edge, "wrong": [traceback.format_exc()]}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
