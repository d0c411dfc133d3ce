"""A scoring service under load while what it stands on fails, one after the other; and what its clients and its log say
of that.

The service has two workers, PostgreSQL as its state database, and a small disk for its log of predictions.
"""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest
from sqlalchemy import select

from mlops_tasks.config import Settings
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.registry.models import load_version
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.strategies import Wanted, advance, deploy
from mlops_tasks.state.database import reading
from mlops_tasks.state.deployments import recorded_champion
from mlops_tasks.state.predictions import lost_predictions
from mlops_tasks.state.rollouts import latest_rollout
from mlops_tasks.state.scoring_keys import KeyRequest, make_key
from mlops_tasks.state.tables import Prediction
from mlops_tasks.states import Arm, RolloutState, Scope, Strategy
from tests.benchmarks.soak import running_service
from tests.operation import make_champion
from tests.postgres import OwnPostgres, own_postgres
from tests.registry.conftest import Operation, made_mlflow, made_vintage, new_home, new_operation
from tests.registry.trainings import DAYS, INSTRUMENTS, Spec
from tests.serving.test_requests import metrics_of
from tests.small_disk import on_small_disk
from tests.waiting import is_running, wait_for

CLIENTS = 5
KEYS = 3
DISK_MB = 48
RENEWED_AFTER = 20
"""Requests after which a client takes a new connection, and another name."""
ENVIRONMENT = {
    "MLOPS_SERVING__WORKERS": "2",
    "MLOPS_SERVING__COLD_DATES_AT_ONCE": "64",
    "MLOPS_SERVING__REQUESTS_AT_ONCE": "64",
    "MLOPS_PREDICTIONS__SHIP_S": "0.2",
}
ROWS = 500
PATIENCE_S = 120
"""For what takes seconds where nothing else runs."""
_NAME = "soak-"

Scores = dict[str, float]


@dataclass(frozen=True)
class Truth:
    """What each version scores, computed here."""

    by_day: Mapping[int, Mapping[str, Scores]]
    artefacts: Mapping[int, ModelArtefact]

    @classmethod
    def of(cls, operation: Operation, versions: tuple[int, ...]) -> "Truth":
        """On the last days of the vintage."""
        features = FeatureStore(operation.settings).load(operation.feature_version, start=str(DAYS[-20].date()))
        artefacts = {version: load_version(operation.settings, version).artefact for version in versions}
        scored = {version: artefact.predict(features) for version, artefact in artefacts.items()}
        return cls(
            {
                version: {str(day.date()): part.droplevel(0).to_dict() for day, part in scores.groupby(level=0)}
                for version, scores in scored.items()
            },
            artefacts,
        )

    def of_rows(self, version: int, rows: pd.DataFrame) -> Scores:
        """Scores of given features."""
        scores = self.artefacts[version].predict(rows)
        return {str(name): float(score) for name, score in scores.items()}


@dataclass
class Seen:
    """What the clients saw: of each request that was answered its id, the version, and when it was sent."""

    answered: dict[str, tuple[int, float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Client(threading.Thread):
    """Asks for whatever there is, again where it is told to, and compares each answer with the truth."""

    def __init__(self, settings: Settings, key: str, truth: Truth, seen: Seen, number: int) -> None:
        super().__init__(daemon=True)
        self.settings, self.key, self.truth, self.seen = settings, key, truth, seen
        self.chance = random.Random(number)
        self.stopped = threading.Event()
        self.last = ("", 0.0)
        """Id of the newest try, and when it was sent."""

    def run(self) -> None:
        """Until it is stopped."""
        while not self.stopped.is_set():
            try:
                with ScoringClient(self.settings) as client:
                    client._http.headers.update({"Authorization": f"Bearer {self.key}", "X-Unit": uuid4().hex})
                    client._http.event_hooks = {"request": [self._named]}
                    for _ in range(RENEWED_AFTER):
                        self._ask_once(client)
            except Exception as error:
                self.seen.failed.append(f"{type(error).__name__}: {error}")

    def _ask_once(self, client: ScoringClient) -> None:
        began = time.perf_counter()
        answer, expected = self.ask(client)
        name, sent = self.last
        self.seen.seconds.append(time.perf_counter() - began)
        self.seen.answered[name] = (answer["model_version"], sent)
        if {each["instrument"]: each["score"] for each in answer["scores"]} != expected:
            self.seen.wrong.append(name)

    def _named(self, request: httpx.Request) -> None:
        """Each try has an id of its own."""
        self.last = (f"{_NAME}{uuid4().hex}", time.monotonic())
        request.headers["X-Request-ID"] = self.last[0]

    def ask(self, client: ScoringClient) -> tuple[dict[str, Any], Scores]:
        """The newest day mostly; or some names of a day, or features. Returns the answer, and what is right."""
        kind = self.chance.random()
        if kind < 0.1:
            rows = pd.DataFrame(np.random.default_rng().random((4, self.width), np.float32), list("abcd"), self.columns)
            answer = client.score_features(rows)
            return answer, self.truth.of_rows(answer["model_version"], rows)
        names = None if kind < 0.7 else self.chance.sample(INSTRUMENTS, 5)
        day = None if kind < 0.85 else DAYS[-self.chance.randrange(1, 20)].date()
        answer = client.score(names, day)
        scores = self.truth.by_day[answer["model_version"]][answer["date"]]
        return answer, scores if names is None else {name: scores[name] for name in names}

    @property
    def columns(self) -> list[str]:
        """Names of the features."""
        return list(next(iter(self.truth.artefacts.values())).feature_names)

    @property
    def width(self) -> int:
        """Number of the features."""
        return len(self.columns)


class LargeClient(Client):
    """Asks for as much as fills a log quickly: many rows with long names, other ones each time, the same features."""

    def ask(self, client: ScoringClient) -> tuple[dict[str, Any], Scores]:
        """As the other one."""
        label = uuid4().hex
        names = [f"{label}{number:032d}" for number in range(ROWS)]
        table = b'{"table":{"instruments":%s,"feature_names":%s,"values":[%s]}}'
        body = table % (json.dumps(names).encode(), json.dumps(self.columns).encode(), self.values)
        answer = client._json(lambda: client._http.post("/v1/score", content=body))
        return answer, dict.fromkeys(names, self.scores[answer["model_version"]])

    @cached_property
    def values(self) -> bytes:
        """Of the features."""
        return b",".join([b"[" + b",".join([b"0.5"] * self.width) + b"]"] * ROWS)

    @cached_property
    def scores(self) -> dict[int, float]:
        """Of such a row, by version."""
        row = pd.DataFrame(0.5, ["a"], self.columns, np.float32)
        return {version: self.truth.of_rows(version, row)["a"] for version in self.truth.artefacts}


@dataclass
class Stage:
    """A running service, its clients, and what can be done to it."""

    operation: Operation
    blue: int
    green: int
    worse: int
    """A version whose scores have the opposite order."""
    server: OwnPostgres
    supervisor: psutil.Process
    seen: Seen
    truth: Truth
    clients: list["Client"]
    kills: int = 0

    @property
    def settings(self) -> Settings:
        """Of the operation."""
        return self.operation.settings

    @property
    def disk(self) -> Path:
        """The small disk, which only the service sees as a folder of its own."""
        return Path(f"/proc/{self.supervisor.pid}/root{self.settings.predictions_dir}")

    def health(self) -> dict[str, Any]:
        """Of all workers."""
        with ScoringClient(self.settings) as client:
            return client.health()

    def metrics(self) -> dict[str, float]:
        """Of all workers together."""
        with ScoringClient(self.settings) as client:
            return metrics_of(client._http)

    def is_well(self) -> bool:
        """Whether all workers answer, and miss nothing."""
        health = self.health()
        return health["status"] == "ok" and len(health["workers"]) == 2

    def answer(self, count: int) -> None:
        """Let so many more requests be answered, none of them wrong."""
        so_far = len(self.seen.answered)
        wait_for(lambda: len(self.seen.answered) >= so_far + count or self.seen.failed, 300)
        assert (self.seen.failed, self.seen.wrong) == ([], [])

    def versions_since(self, moment: float) -> set[int]:
        """Which have answered requests that were sent after it."""
        return {version for version, sent in list(self.seen.answered.values()) if sent > moment}

    def kill_a_worker(self) -> None:
        """Whichever."""
        victim = random.choice([each.pid for each in self.supervisor.children() if is_running(each.pid)])
        os.kill(victim, signal.SIGKILL)
        self.kills += 1
        wait_for(lambda: not is_running(victim))

    def lose_a_worker(self, count: int) -> None:
        """Killed under load; another one takes its place."""
        self.kill_a_worker()
        self.answer(count)
        wait_for(self.is_well, PATIENCE_S)

    def switch(self, count: int) -> None:
        """From blue to green, or back."""
        champion = recorded_champion(self.settings)
        target = self.green if champion == self.blue else self.blue
        assert deploy(self.settings, Wanted(target))["deployed"]
        switched = time.monotonic()
        self.answer(count)
        assert self.versions_since(switched) == {target}

    def reject_a_canary(self, count: int) -> None:
        """It answers its share of the clients, breaks a rule, and answers nobody again."""
        began, worse, rules = time.monotonic(), self.worse, self.settings.deployment.rules
        lenient = rules.model_copy(update=dict.fromkeys(("min_rank_correlation", "max_psi"), None))
        deployment = self.settings.deployment.model_copy(update={"rules": lenient})
        deploy(self.settings.model_copy(update={"deployment": deployment}), Wanted(worse, Strategy.CANARY))
        wait_for(lambda: worse in self.versions_since(began), PATIENCE_S)
        self.answer(count)
        wait_for(lambda: RolloutState.REJECTED in {each.state for each in advance(self.settings)}, PATIENCE_S)
        last = latest_rollout(self.settings)
        assert last is not None and "rank correlation" in last.reason
        wait_for(lambda: self.health()["candidate"] is None, PATIENCE_S)
        time.sleep(3 * self.settings.serving.poll_s)
        gone = time.monotonic()
        self.answer(count)
        assert worse not in self.versions_since(gone)

    def lose_the_database(self, count: int) -> None:
        """It crashes, a worker is killed meanwhile, and it comes back."""
        self.server.stop()
        self.answer(count)
        self.kill_a_worker()
        self.answer(count)
        self.server.start()
        wait_for(self.is_well, PATIENCE_S)

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Something else takes all that is left, again and again."""
        filler, stop = self.disk / "filler", threading.Event()

        def fill() -> None:
            with filler.open("wb", buffering=0) as file:
                while not stop.wait(0.01):
                    with suppress(OSError):
                        while file.write(b"0" * 65536):
                            pass

        thread = threading.Thread(target=fill)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            filler.unlink()

    def fill_the_disk(self, count: int) -> None:
        """A worker is killed meanwhile, and the one in its place finds no room for its log."""
        with self.full_disk():
            self.answer(count)
            self.kill_a_worker()
            wait_for(lambda: len(self.health()["workers"]) == 2, PATIENCE_S)
            self.answer(count)
        wait_for(self.is_well, PATIENCE_S)

    def lose_both(self) -> int:
        """The database is away and the disk is full, until there is no room left; returns how many answers the service
        says that it could not log."""
        before = self.metrics()["alphaops_predictions_dropped_total"]
        client = LargeClient(self.settings, self.clients[0].key, self.truth, self.seen, CLIENTS)
        self.server.stop()
        with self.full_disk():
            client.start()
            until = time.monotonic() + 5 * PATIENCE_S
            while self.metrics()["alphaops_predictions_dropped_total"] < before + 20:
                assert time.monotonic() < until, "the log still has room"
                time.sleep(1.0)
            assert "answers are not logged" in str(self.health()["errors"])
            client.stopped.set()
            client.join()
        self.server.start()
        wait_for(self.is_well, 5 * PATIENCE_S)
        self.answer(100)  # a number is seen to be missing before another one
        return int(self.metrics()["alphaops_predictions_dropped_total"] - before)

    def leave(self) -> None:
        """The clients ask no more."""
        for client in self.clients:
            client.stopped.set()
        for client in self.clients:
            client.join()

    def log(self, not_logged: int = 0) -> "Found":
        """What the log says once nobody asks any more and all is in the database, or after a while."""
        self.leave()
        until = time.monotonic() + PATIENCE_S
        while True:
            found = log_of(self.settings, self.seen)
            if found.missing <= not_logged or time.monotonic() > until:
                return found
            time.sleep(0.5)


@contextmanager
def stage(home: Path) -> Iterator[Stage]:
    """A service that runs under load."""
    with pytest.MonkeyPatch.context() as patch, own_postgres() as server:
        settings = new_home(home, made_mlflow(), patch)
        patient = settings.serving.model_copy(update={"deploy_timeout_s": PATIENCE_S})
        rules = settings.deployment.rules.model_copy(update={"max_latency_ratio": None})  # other work is no fault
        half = settings.deployment.model_copy(update={"canary_steps_pct": (50.0, 100.0), "rules": rules})
        settings = settings.model_copy(update={"state_url": server.url, "serving": patient, "deployment": half})
        for name, value in (ENVIRONMENT | {"MLOPS_STATE_URL": server.url}).items():
            patch.setenv(name, value)
        operation = new_operation(settings, made_vintage())
        specs = (Spec(key="a" * 16), Spec(key="b" * 16, seed=2), Spec(key="c" * 16, seed=3, skill=-1.0))
        blue, green, worse = (operation.register(spec) for spec in specs)
        make_champion(settings, blue)
        scopes = frozenset({Scope.SCORE, Scope.SCORE_ROWS})
        keys = [make_key(settings, KeyRequest(f"desk-{n}", scopes, 10**6), "the soak")[0] for n in range(KEYS)]
        settings.predictions_dir.mkdir()
        truth, seen = Truth.of(operation, (blue, green, worse)), Seen()
        clients = [Client(settings, keys[number % KEYS], truth, seen, number) for number in range(CLIENTS)]
        with running_service(settings, dict(os.environ), on_small_disk(settings.predictions_dir, DISK_MB)) as process:
            supervisor = psutil.Process(process.pid)
            made = Stage(operation, blue, green, worse, server, supervisor, seen, truth, clients)
            wait_for(made.is_well, PATIENCE_S)
            for client in clients:
                client.start()
            try:
                yield made
            finally:
                made.leave()


@dataclass(frozen=True)
class Found:
    """What the log says of the answers that the clients were given."""

    rows: int
    missing: int
    """Answers that are not in the log."""
    doubled: int
    """Answers that are in the log more than once."""
    misnamed: int
    """Answers of which the log names another version."""
    unseen: int
    """Rows about answers that no client got, as their worker was killed."""
    lost: int
    """Answers of which the log itself says that they are missing."""


def log_of(settings: Settings, seen: Seen) -> Found:
    """Compare the log with the answers."""
    query = select(Prediction.request_id, Prediction.model_version)
    query = query.where(Prediction.request_id.startswith(_NAME), Prediction.arm != Arm.SHADOW)
    with reading(settings) as active:
        logged = [(name, version) for name, version in active.execute(query)]
    counts, versions = Counter(name for name, _ in logged), dict(logged)
    return Found(
        rows=len(logged),
        missing=len(seen.answered.keys() - counts.keys()),
        doubled=sum(count > 1 for count in counts.values()),
        misnamed=sum(versions.get(name, version) != version for name, (version, _) in seen.answered.items()),
        unseen=len(counts.keys() - seen.answered.keys()),
        lost=lost_predictions(settings),
    )
