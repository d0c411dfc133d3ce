"""What an orchestrator and a log collector see of the service."""

import json
import logging
import threading

import httpx
import pandas as pd
import pytest

from mlops_tasks.config import ServingSettings, Settings
from mlops_tasks.errors import StoreError
from mlops_tasks.serving.access_log import LINES_A_SECOND, AccessLog
from mlops_tasks.serving.caller import SCOPE, Caller
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.keys import Holder
from mlops_tasks.serving.scored import DayPlan
from tests.operation import make_champion
from tests.registry.conftest import OFTEN_S, Operation
from tests.registry.trainings import Spec
from tests.serving.conftest import RunningService
from tests.waiting import wait_for

POLL_S = OFTEN_S

ACCESS = "mlops_tasks.serving.access_log"


@pytest.fixture
def raw(client: ScoringClient) -> httpx.Client:
    """The client's own HTTP connection."""
    return client._http


class SlowDisk:
    """Scores of days take until it is let go."""

    def __init__(self, service: RunningService, patch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self._honest = service.scoring._score_day
        patch.setattr(service.scoring, "_score_day", self)

    def __call__(self, plan: DayPlan) -> pd.Series:
        assert self.go.wait(60)
        return self._honest(plan)


def test_a_key_has_a_few_lines_a_second(caplog: pytest.LogCaptureFixture) -> None:
    """The rest is counted, by key; what came too often has no line."""
    moment = 1000.0
    access = AccessLog(ServingSettings(), lambda: moment)

    def ask(name: str, status: int) -> None:
        caller = Caller(Holder(name, frozenset()), "r1")
        access.tell({SCOPE: caller, "method": "GET", "path": "/health"}, status)

    with caplog.at_level(logging.INFO, ACCESS):
        for _ in range(LINES_A_SECOND + 7):
            ask("loud", 404)
            ask("loud", 429)
        ask("calm", 404)
        assert len(caplog.records) == LINES_A_SECOND + 1
        moment += 1
        ask("calm", 404)
    lines = [json.loads(record.getMessage()) for record in caplog.records[-2:]]
    assert (lines[0]["key"], lines[0]["suppressed"], lines[1]["key"]) == ("loud", 7, "calm")


@pytest.mark.parametrize("error", [RuntimeError, StoreError])
def test_a_failure_names_its_request(
    service: RunningService,
    raw: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[Exception],
) -> None:
    """In the answer, in its header, and beside the error in the log; no word of the error goes out."""

    def fail() -> None:
        raise error("an inner matter")

    monkeypatch.setattr(service.scoring, "health", fail)
    answer = raw.get("/health", headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine")
    assert "request id mine" in answer.json()["detail"] and "inner" not in answer.text
    assert "request mine failed" in caplog.text and "an inner matter" in caplog.text


def state(raw: httpx.Client) -> tuple[int, int, str]:
    ready = raw.get("/ready")
    return raw.get("/live").status_code, ready.status_code, ready.json()["status"]


def test_a_service_lives_before_it_is_ready(
    operation: Operation, service: RunningService, raw: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ready means that the newest day's scores are there, which takes a while."""
    assert state(raw) == (200, 503, "no model is in service")
    disk = SlowDisk(service, monkeypatch)
    make_champion(operation.settings, operation.register(Spec(key="a" * 16)))
    wait_for(lambda: state(raw) == (200, 503, "no scores of the newest day"))
    disk.go.set()
    wait_for(lambda: state(raw) == (200, 200, "ready"))


@pytest.mark.parametrize(("which", "statuses"), [("none", []), ("errors", [404, 422]), ("all", [200, 404, 422])])
def test_requests_of_known_clients_are_lines_of_json(
    settings: Settings, operation: Operation, caplog: pytest.LogCaptureFixture, which: str, statuses: list[int]
) -> None:
    """Those that the setting asks for, with the request's id and the key's name; a stranger's is never one."""
    serving = ServingSettings.model_validate({"poll_s": 60.0, "access_log": which})
    running = RunningService(settings.model_copy(update={"serving": serving}))
    with caplog.at_level(logging.INFO, ACCESS), ScoringClient(settings) as client:
        raw = client._http
        httpx.get(f"{settings.scoring_url}/live", headers={"Authorization": "Bearer wrong"})
        httpx.get(f"{settings.scoring_url}/live")
        raw.get("/metrics?secret=1")
        raw.get("/nothing")
        raw.post("/v1/score", content=b"{", headers={"X-Request-ID": "mine"})
    running.stop()
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == ACCESS]
    assert [line["status"] for line in lines] == statuses
    assert {line["key"] for line in lines} <= {"admin"} and "secret" not in str(lines)
    if lines:
        assert {**lines[-1], "at": "", "ms": 0} == {
            "at": "",
            "request_id": "mine",
            "key": "admin",
            "method": "POST",
            "path": "/v1/score",
            "status": 422,
            "ms": 0,
        }
