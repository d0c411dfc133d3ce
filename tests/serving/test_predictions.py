"""What the service answers is in the log of predictions: a real server, a real registry, a real database."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pandas as pd
import pytest

from mlops_tasks.config import PredictionSettings, Settings
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.serving import prediction_log, write_ahead
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.state.alerts.journal import newest_events
from mlops_tasks.state.predictions import (
    PredictionFilter,
    count_of_arm,
    lost_predictions,
    predictions,
    served_scores,
)
from mlops_tasks.state.tables import Prediction
from tests.benchmarks.soak import running_service
from tests.operation import make_champion, without_state_database
from tests.registry.conftest import OFTEN_S, Operation
from tests.registry.trainings import DAYS, INSTRUMENTS, Spec
from tests.serving.conftest import RunningService
from tests.serving.test_requests import metrics_of
from tests.waiting import wait_for

POLL_S = OFTEN_S

QUICK = PredictionSettings(sync_s=0.05, ship_s=0.05)
ALL = PredictionFilter()
NEWEST = DAYS[-1].date()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With a log that is brought to the database at once."""
    return settings.model_copy(update={"predictions": QUICK})


@pytest.fixture
def raw(operation: Operation, settings: Settings) -> Iterator[httpx.Client]:
    """A client of a service with a champion."""
    make_champion(settings, operation.register(Spec(key="a" * 16)))
    running = RunningService(settings)
    with ScoringClient(settings) as client:
        client.refresh()
        yield client._http
    running.stop()


def logged(settings: Settings) -> dict[str, Prediction]:
    return {each.prediction.request_id: each.prediction for each in predictions(settings, ALL, 10_000)}


def ask(raw: httpx.Client, request_id: str, body: dict[str, Any]) -> dict[str, Any]:
    response = raw.post("/v1/score", json=body, headers={"X-Request-ID": request_id})
    assert response.headers["x-request-id"] == request_id
    content: dict[str, Any] = response.raise_for_status().json()
    return content


def test_every_answer_is_logged_as_it_was_given(settings: Settings, operation: Operation, raw: httpx.Client) -> None:
    """Of the newest day, of some instruments, of a past day and of given features; what is refused is no answer."""
    features = FeatureStore(settings).load(operation.feature_version, start=str(NEWEST)).droplevel("datetime")[:3]
    table = {
        "instruments": list(features.index),
        "feature_names": list(features.columns),
        "values": features.astype(object).where(features.notna(), None).to_numpy().tolist(),
    }
    past = DAYS[100].date()
    bodies: dict[str, dict[str, Any]] = {
        "newest": {},
        "newest-again": {},
        "some": {"instruments": ["S003", "NOPE", "S001", "S003"]},
        "past": {"date": str(past)},
        "features": {"table": table},
    }
    answers = {name: ask(raw, name, body) for name, body in bodies.items()}
    assert raw.post("/v1/score", json={"date": "1980-01-01"}).status_code == 404
    wait_for(lambda: len(logged(settings)) == len(bodies))
    rows = logged(settings)
    for name, answer in answers.items():
        row = rows[name]
        assert (row.model_version, row.training_key) == (answer["model_version"], answer["training_key"])
        assert (row.slot, row.arm, row.key_name) == ("blue", "champion", "admin")
        assert (row.date and str(row.date), row.data_version or None) == (answer["date"], answer["data_version"])
        assert (row.instruments, row.missing) == (len(answer["scores"]), len(answer["missing"]))
        assert 0 < row.latency_ms < 60_000
    assert rows["newest"].scores == rows["newest-again"].scores == rows["some"].scores != rows["past"].scores
    for day, name in ((NEWEST, "newest"), (past, "past")):
        frame = served_scores(settings, PredictionFilter(date=day))
        given = {each["instrument"]: each["score"] for each in answers[name]["scores"]}
        assert dict(zip(frame["instrument"], frame["score"], strict=True)) == given
    of_one = {
        each.prediction.request_id: each.score for each in predictions(settings, PredictionFilter(instrument="S003"), 9)
    }
    given = {name: {s["instrument"]: s["score"] for s in answer["scores"]} for name, answer in answers.items()}
    assert of_one == {name: scores["S003"] for name, scores in given.items() if "S003" in scores}
    seen = metrics_of(raw)
    assert seen["alphaops_predictions_logged_total"] == seen["alphaops_predictions_shipped_total"] == len(bodies)
    assert seen["alphaops_predictions_dropped_total"] == seen["alphaops_prediction_backlog"] == 0


def test_what_is_no_request_id_is_replaced(raw: httpx.Client) -> None:
    """Too long, empty, or with other characters; every answer names its request, a refusal too."""
    for given in ("a" * 65, "", "a b", "a\tb", "ä".encode()):
        answer = raw.get("/health", headers={"X-Request-ID": given})
        assert len(answer.headers["x-request-id"]) == 32
    assert len({raw.get("/nothing").headers["x-request-id"] for _ in range(3)}) == 3


def test_while_the_database_is_away_answers_wait_for_it(settings: Settings, raw: httpx.Client) -> None:
    """Nothing is refused or lost; the service says what is wrong, and that it is over."""
    ask(raw, "before", {})
    wait_for(lambda: "before" in logged(settings))
    with without_state_database(settings):
        for number in range(40):
            ask(raw, f"meanwhile-{number}", {"instruments": INSTRUMENTS[: number % 5]})
        wait_for(lambda: metrics_of(raw)["alphaops_prediction_ship_failures_total"] > 0)
        assert metrics_of(raw)["alphaops_prediction_backlog"] == 40
        assert raw.get("/health").json()["status"] == "degraded"
    wait_for(lambda: len(logged(settings)) == 41)
    assert lost_predictions(settings) == 0
    wait_for(lambda: raw.get("/health").json()["status"] == "ok")
    assert metrics_of(raw)["alphaops_predictions_dropped_total"] == 0


def test_an_answer_whose_commit_nobody_confirmed_is_there_once(
    settings: Settings, raw: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database fails before, or after what it was given is there, time and again: each answer is one row."""
    chance, honest, failures = random.Random(3), prediction_log.record_predictions, []

    def unreliable(*given: Any) -> None:
        fate = chance.choice(("before", "after", "not"))
        failures.append(fate)
        if fate == "before":
            raise OSError("no connection")
        honest(*given)
        if fate == "after":
            raise OSError("the connection was lost")

    monkeypatch.setattr(prediction_log, "record_predictions", unreliable)
    monkeypatch.setattr(prediction_log, "LONGEST_PAUSE_S", 0.05)
    for number in range(60):
        ask(raw, f"r{number}", {})
        time.sleep(0.01)
    wait_for(lambda: metrics_of(raw)["alphaops_prediction_backlog"] == 0)
    assert {"before", "after"} <= set(failures)
    names = [each.prediction.request_id for each in predictions(settings, ALL, 1000)]
    assert sorted(names) == sorted(f"r{number}" for number in range(60))
    assert lost_predictions(settings) == 0


def test_without_a_disk_answers_go_to_the_database_and_without_both_they_are_counted(
    settings: Settings, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is away, the service serves on and says what becomes of its answers; people are told, and it is recorded
    once that can be."""
    monkeypatch.setattr(prediction_log, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(prediction_log, "MEMORY_BYTES", write_ahead.SEGMENT_BYTES)
    settings.predictions_dir.write_text("no folder")
    make_champion(settings, operation.register(Spec(key="a" * 16)))
    running = RunningService(settings)
    with ScoringClient(settings) as client:
        client.refresh()
        raw = client._http
        ask(raw, "by-memory", {})
        wait_for(lambda: "by-memory" in logged(settings))
        with without_state_database(settings):
            ask(raw, "waits-in-memory", {})
            assert "answers are in memory alone" in str(raw.get("/health").json()["errors"])
            wait_for(lambda: "make room on the disk" in str(running.scoring.predictions._untold))
            with monkeypatch.context() as patch:
                patch.setattr(running.scoring.predictions._wal, "most_memory", 0)
                patch.setattr(write_ahead, "KEPT_OPEN_S", 0.0)
                for number in range(3):
                    ask(raw, f"unlogged-{number}", {})
            assert metrics_of(raw)["alphaops_predictions_dropped_total"] == 3
            assert "answers are not logged" in str(raw.get("/health").json()["errors"])
        wait_for(lambda: "waits-in-memory" in logged(settings))
        causes = {"the log of predictions", "the disk of the log of predictions"}
        wait_for(lambda: {e.subject for e in newest_events(settings, 100) if e.kind == "predictions_lost"} == causes)
        settings.predictions_dir.unlink()
        wait_for(lambda: any(settings.predictions_dir.glob("*/.spare.*")))
        ask(raw, "logged", {})
        wait_for(lambda: set(logged(settings)) == {"by-memory", "waits-in-memory", "logged"})
        assert lost_predictions(settings) == 3
        wait_for(lambda: raw.get("/health").json()["errors"] == [])
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", lambda *given: 0)
            ask(raw, "lost", {})
        ask(raw, "logged-after", {})
        wait_for(lambda: "logged-after" in logged(settings))
        assert lost_predictions(settings) == 4
    running.stop()


def test_a_request_on_which_the_champion_fails_is_logged(
    settings: Settings, operation: Operation, raw: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `failed`, without scores: of a day and of given features. What the client has done wrong is not its fault."""
    ask(raw, "good", {})

    def broken(*given: object) -> None:
        raise ZeroDivisionError("broken")

    (names,) = {tuple(FeatureStore(settings).load(operation.feature_version, start=str(NEWEST)).columns)}
    row = {"instrument": "X", "features": dict.fromkeys(names, 0.5)}
    with monkeypatch.context() as patch:
        patch.setattr(ModelArtefact, "predict_matrix", broken)
        for name, body in {"day": {"date": str(DAYS[100].date())}, "rows": {"rows": [row]}}.items():
            answer = raw.post("/v1/score", json=body, headers={"X-Request-ID": name})
            assert answer.status_code == 500 and "under the request id" in answer.text and "broken" not in answer.text
        for body in ({"date": "1980-01-01"}, {"rows": [{"instrument": "X", "features": {"KMID": 1.0}}]}):
            assert raw.post("/v1/score", json=body).status_code in (404, 422)
    ask(raw, "good-again", {"date": str(DAYS[100].date())})
    wait_for(lambda: len(logged(settings)) == 4)
    rows = logged(settings)
    assert {name: row.arm for name, row in rows.items()} == {
        "good": "champion",
        "day": "failed",
        "rows": "failed",
        "good-again": "champion",
    }
    failed = rows["day"], rows["rows"]
    assert [(row.model_version, row.date, row.instruments) for row in failed] == [
        (1, DAYS[100].date(), 0),
        (1, None, 0),
    ]
    assert all(row.latency_ms > 0 for row in failed) and lost_predictions(settings) == 0
    assert set(served_scores(settings, ALL)["arm"]) == {"champion"}
    since = rows["good"].at - timedelta(hours=1)
    assert [count_of_arm(settings, 1, arm, since) for arm in ("champion", "failed", "canary")] == [2, 2, 0]


def test_a_killed_service_has_logged_all_that_it_answered(
    operation: Operation, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed amid requests of four clients: the next process finds each answer, and brings it to the database once."""
    make_champion(settings, operation.register(Spec(key="a" * 16)))
    monkeypatch.setenv("MLOPS_PREDICTIONS__SHIP_S", "0.3")
    answered: list[str] = []

    def ask_until_it_dies(client_number: int) -> None:
        with ScoringClient(settings) as client:
            try:
                for number in range(100_000):
                    name = f"{client_number}-{number}"
                    body = (
                        {} if number % 3 else {"instruments": INSTRUMENTS[: number % 7], "date": str(DAYS[90].date())}
                    )
                    headers = {"X-Request-ID": name}
                    client._http.post("/v1/score", json=body, headers=headers).raise_for_status()
                    answered.append(name)
            except httpx.TransportError:
                pass

    with running_service(settings, dict(os.environ)) as service:
        threads = [threading.Thread(target=ask_until_it_dies, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(answered) > 300)
        service.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
    before = len(logged(settings))
    with running_service(settings, dict(os.environ)):
        wait_for(lambda: not [each for each in settings.predictions_dir.iterdir() if each.is_dir()][1:])
        wait_for(lambda: set(answered) <= set(logged(settings)))
    rows = predictions(settings, ALL, 100_000)
    names = [each.prediction.request_id for each in rows if "-" in each.prediction.request_id]
    assert len(names) == len(set(names)) <= len(answered) + 4, "at most what was answered as it died"
    assert before < len(rows)
    assert lost_predictions(settings) == 0
    frame = served_scores(settings, PredictionFilter(date=NEWEST))
    assert sorted(frame["instrument"]) == sorted(INSTRUMENTS) and isinstance(frame, pd.DataFrame)
