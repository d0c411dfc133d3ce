"""Several workers behind one address: real processes, a real registry, a real database."""

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import pandas as pd
import psutil
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.deployment import deploy_blue_green, roll_back
from mlops_tasks.state.predictions import PredictionFilter, lost_predictions, predictions
from mlops_tasks.state.scoring_keys import KeyRequest, make_key
from mlops_tasks.states import Scope
from tests.benchmarks.soak import running_service
from tests.operation import make_champion, publish_vintage
from tests.registry.conftest import OFTEN_S, Operation, migrated_mlflow, new_home, new_operation, vintage_template
from tests.registry.trainings import DAYS, Spec
from tests.serving.conftest import scores_here
from tests.serving.test_requests import metrics_of
from tests.waiting import is_running, wait_for

__all__ = ["migrated_mlflow", "vintage_template"]

CLIENTS = 4
NEWEST = str(DAYS[-1].date())


@dataclass(frozen=True)
class Crew:
    """A running service of two workers."""

    operation: Operation
    versions: tuple[int, int]
    supervisor: psutil.Process

    @property
    def settings(self) -> Settings:
        """Of the operation."""
        return self.operation.settings

    def workers(self) -> list[int]:
        """Their process numbers."""
        return sorted(each.pid for each in self.supervisor.children() if is_running(each.pid))

    def connections(self) -> Counter[int]:
        """How many connections each worker holds; by process number."""
        port = self.settings.stack.scoring_port
        found = Counter({pid: 0 for pid in self.workers()})
        for pid in list(found):
            open_now = psutil.Process(pid).net_connections("tcp")
            found[pid] = sum(each.status == "ESTABLISHED" and each.laddr.port == port for each in open_now)
        return found

    def metrics(self) -> dict[str, float]:
        """Of all workers together."""
        with ScoringClient(self.settings) as client:
            return metrics_of(client._http)

    def is_well(self) -> bool:
        """Whether all workers answer, and agree."""
        with ScoringClient(self.settings) as client:
            health = client.health()
        return health["status"] == "ok" and len(health["workers"]) == 2


@pytest.fixture(scope="module")
def crew(
    tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path, vintage_template: tuple[Path, str, str]
) -> Iterator[Crew]:
    """One service for all tests of this module; its champion is the first of two versions."""
    with pytest.MonkeyPatch.context() as patch:
        settings = new_home(tmp_path_factory.mktemp("home"), migrated_mlflow, patch, OFTEN_S)
        patch.setenv("MLOPS_SERVING__WORKERS", "2")
        patch.setenv("MLOPS_PREDICTIONS__SHIP_S", "0.1")
        operation = new_operation(settings, vintage_template)
        versions = (operation.register(Spec(key="a" * 16)), operation.register(Spec(key="b" * 16, seed=2)))
        make_champion(settings, versions[0])
        with running_service(settings, dict(os.environ)) as process:
            found = Crew(operation, versions, psutil.Process(process.pid))
            wait_for(found.is_well)
            yield found


@dataclass
class Seen:
    """What clients saw."""

    answered: dict[str, float] = field(default_factory=dict)
    """Ids of answered requests, and when each was sent."""
    scores: dict[str, tuple[int, dict[str, float]]] = field(default_factory=dict)
    """Version and scores of each."""
    failed: list[str] = field(default_factory=list)


@contextmanager
def asking(settings: Settings) -> Iterator[Seen]:
    """Clients that ask for the newest day all the time, over new connections now and then."""
    seen, stop = Seen(), threading.Event()

    def ask() -> None:
        sent: dict[str, float] = {}
        while not stop.is_set():
            with ScoringClient(settings) as client:
                client._http.event_hooks = {"request": [lambda request: _name(request, sent)]}
                for _ in range(10):
                    try:
                        answer = client.score()
                    except Exception as error:
                        seen.failed.append(str(error))
                        continue
                    name, moment = list(sent.items())[-1]
                    scores = {each["instrument"]: each["score"] for each in answer["scores"]}
                    seen.scores[name] = (answer["model_version"], scores)
                    seen.answered[name] = moment

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _name(request: httpx.Request, sent: dict[str, float]) -> None:
    """Each try has an id of its own."""
    request.headers["X-Request-ID"] = f"crew-{uuid4().hex}"
    sent[request.headers["X-Request-ID"]] = time.monotonic()


def test_a_killed_worker_costs_no_answer(crew: Crew) -> None:
    """Clients that ask again see no failure, the worker is replaced, each answer is logged once, and no count falls."""
    with asking(crew.settings) as seen:
        wait_for(lambda: len(seen.answered) > 200)
        before = crew.metrics()
        ((victim, _),) = crew.connections().most_common(1)
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(crew.workers()) == 2 and victim not in crew.workers())
        wait_for(crew.is_well)
        so_far = len(seen.answered)
        wait_for(lambda: len(seen.answered) > so_far + 200)
    assert seen.failed == []
    wait_for(lambda: crew.metrics()["alphaops_prediction_backlog"] == 0)
    wait_for(lambda: len(list(crew.settings.predictions_dir.glob("[!.]*"))) <= 2)
    rows = [each.prediction.request_id for each in predictions(crew.settings, PredictionFilter(), 100_000)]
    named = [name for name in rows if name.startswith("crew-")]
    assert len(named) == len(set(named)) and set(seen.answered) <= set(named)
    assert len(named) - len(seen.answered) <= CLIENTS, "at most what was answered as it died"
    assert lost_predictions(crew.settings) == 0
    after = crew.metrics()
    counted = after["alphaops_predictions_logged_total"]
    assert len(rows) - 1 <= counted <= len(rows), "it may have died before it counted"
    assert all(after[name] >= count for name, count in before.items() if name.endswith(("_total", "_count", "_sum")))


def test_all_workers_have_switched_when_a_deployment_returns(crew: Crew) -> None:
    """No answer has scores of two models; what is asked after it has those of the new one, and so after a rollback."""
    first, second = crew.versions
    expected = {version: scores_here(crew.operation, version) for version in crew.versions}
    with asking(crew.settings) as seen:
        wait_for(lambda: len(seen.answered) > 50)
        deploy_blue_green(crew.settings, second)
        switched = time.monotonic()
        wait_for(lambda: len(seen.answered) > 200 and max(seen.answered.values()) > switched + 0.3)
        asked = dict(seen.answered)
        roll_back(crew.settings)
        back = time.monotonic()
        wait_for(lambda: max(seen.answered.values()) > back + 0.3)
    assert seen.failed == []
    for version, scores in seen.scores.values():
        assert scores == expected[version]
    after = {seen.scores[name][0] for name, moment in asked.items() if moment > switched}
    finally_ = {seen.scores[name][0] for name, moment in seen.answered.items() if moment > back}
    assert (after, finally_) == ({second}, {first})
    assert crew.is_well()
    models = [name for name in crew.metrics() if name.startswith("alphaops_model_info")]
    assert len(models) == 1 and f'version="{first}"' in models[0]


def test_all_workers_follow_a_vintage(crew: Crew) -> None:
    """Told once, each serves its newest day; all map the same file of its features."""
    longer = pd.bdate_range(DAYS[0], periods=len(DAYS) + 1)
    publish_vintage(crew.settings, longer)
    with ScoringClient(crew.settings) as client:
        health = client.refresh()
    newest = str(longer[-1].date())
    assert health["status"] == "ok"
    assert [each["newest_date"] for each in health["workers"]] == [newest] * 2
    kept = sorted(path.name for path in (crew.settings.run_dir / "scoring" / "days").glob("[!.]*"))
    assert sum(newest in name for name in kept) == 1
    assert crew.metrics()["alphaops_data_date_seconds"] == longer[-1].timestamp()


def test_a_rate_holds_over_all_workers(crew: Crew) -> None:
    """A key has its permits once, whichever worker it asks."""
    key, _ = make_key(crew.settings, KeyRequest("desk", frozenset({Scope.SCORE}), 60), "ann")
    with ScoringClient(crew.settings) as client, ExitStack() as held:
        client.refresh()
        clients: list[httpx.Client] = []
        while min(crew.connections().values()) < 2:
            made = httpx.Client(base_url=client.url, headers={"Authorization": f"Bearer {key}"}, timeout=30)
            clients.append(held.enter_context(made))
            assert made.get("/live").status_code == 200
            assert len(clients) < 100
        began = time.monotonic()
        status = Counter(each.post("/v1/score", json={}).status_code for each in (clients * 40)[:60])
        most = 10 + time.monotonic() - began
    assert set(status) == {200, 429} and 10 <= status[200] <= most
    assert crew.metrics()['alphaops_limited_total{key="desk"}'] == status[429]


def test_what_is_private_stays_so(crew: Crew) -> None:
    """No other port, no file of the workers that others may read; the process of large bodies has no secret."""
    tree = [crew.supervisor, *crew.supervisor.children(recursive=True)]
    listening = {each.laddr.port for process in tree for each in process.net_connections() if each.status == "LISTEN"}
    assert listening == {crew.settings.stack.scoring_port}
    shared = [path for path in (crew.settings.run_dir / "scoring").rglob("*")]
    assert shared and all(path.stat().st_mode & 0o077 == 0 for path in shared)
    readers = [each for each in tree if "mlops_tasks.serving.reader" in each.cmdline()]
    assert len(readers) == 2
    assert not any(re.search("TOKEN|PASSWORD", name) for each in readers for name in each.environ())


def test_no_worker_outlives_the_supervisor(crew: Crew) -> None:
    """However that ends; the last of this module, as nobody answers after it."""
    tree = crew.supervisor.children(recursive=True)
    assert len(tree) == 4
    crew.supervisor.kill()
    wait_for(lambda: not any(is_running(each.pid) for each in tree))
