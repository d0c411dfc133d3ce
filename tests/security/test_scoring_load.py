"""A client of the scoring service with a valid token stands in nobody's way and holds nothing for long."""

import asyncio
import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from mlops_tasks.config import ServingSettings
from mlops_tasks.serving import service
from mlops_tasks.serving.app import REFRESHES_AT_ONCE
from mlops_tasks.serving.connections import limited_protocol
from mlops_tasks.serving.metrics import ServiceMetrics
from mlops_tasks.serving.scored import DayPlan
from tests.registry.conftest import migrated_mlflow, vintage_template
from tests.registry.trainings import DAYS
from tests.security.served import LIMITS, TOKEN, Served, seconds_until_closed, serve

__all__ = ["migrated_mlflow", "vintage_template"]

HEAD = b"POST /v1/score HTTP/1.1\r\nHost: x\r\n" + TOKEN
LATE_S = 12
"""Well beyond every limit; a limit that is missed by this much is none."""


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path, vintage_template: tuple[Path, str, str]
) -> Iterator[Served]:
    """One service for all tests of this module."""
    yield from serve(tmp_path_factory.mktemp("home"), migrated_mlflow, vintage_template)


class SlowDisk:
    """Dates other than the newest take until they are let go; counts what was loaded."""

    def __init__(self, served: Served, patch: pytest.MonkeyPatch) -> None:
        self.loaded: list[str] = []
        self.go = threading.Event()
        self._honest = served.running.scoring._score_day
        patch.setattr(served.running.scoring, "_score_day", self)

    def __call__(self, plan: DayPlan) -> pd.Series:
        self.loaded.append(str(plan.date))
        assert plan.newest or self.go.wait(60)
        return self._honest(plan)


def test_cold_dates_are_loaded_beside_the_newest_not_before_it(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """While they load the newest day is answered; each is loaded once, only so many wait, the rest come again later."""
    disk = SlowDisk(served, monkeypatch)
    days = [str(day.date()) for day in DAYS[70:74]]

    def ask(day: str) -> tuple[int, str | None]:
        with served.client() as client:
            answer = client.post("/v1/score", json={"date": day})
            return answer.status_code, answer.headers.get("retry-after")

    with ThreadPoolExecutor(6) as pool, served.client() as honest:
        waiting = [pool.submit(ask, day) for day in (days[0], days[1], days[0], days[0])]
        while len(served.running.scoring.day_scores._others.found) < 2:
            time.sleep(0.01)
        for _ in range(20):
            assert honest.post("/v1/score", json={}).json()["date"] == "2020-06-30"
        assert ask(days[2]) == (503, "1")
        assert ask(days[3]) == (503, "1")
        assert not any(future.done() for future in waiting)
        disk.go.set()
        assert [future.result() for future in waiting] == [(200, None)] * 4
    assert sorted(disk.loaded) == days[:2]
    assert ask(days[2]) == (200, None)
    assert served.metric('alphaops_busy_total{kind="cold_date"}') >= 2


def test_other_dates_never_push_the_newest_out_and_unknown_ones_load_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After many dates the newest is still in memory; days without trading are refused from the calendar."""
    disk = SlowDisk(served, monkeypatch)
    disk.go.set()
    with served.client() as client:
        for day in DAYS[75:90]:
            assert client.post("/v1/score", json={"date": str(day.date())}).status_code == 200
        for day in ("2020-06-28", "1980-01-01", "9999-12-31", "0001-01-01"):
            assert client.post("/v1/score", json={"date": day}).status_code == 404
        assert client.post("/v1/score", json={}).status_code == 200
        assert client.post("/v1/score", json={"date": "2020-06-30"}).status_code == 200
    assert disk.loaded == [str(day.date()) for day in DAYS[75:90]]
    assert len(served.running.scoring.day_scores._others.found) == 4


def test_only_so_many_large_bodies_are_taken_in_and_small_requests_pass_by(served: Served) -> None:
    """One more is told to come again; the places are free when the slow ones are out of time."""
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{    \r\n"
    held = [served.connect(HEAD + b"Content-Length: 900000\r\n\r\n{"), served.connect(chunked)]
    time.sleep(0.2)
    with served.client() as client:
        large = b"{}" + b" " * 100_000
        answer = client.post("/v1/score", content=large)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert client.post("/v1/score", json={}).status_code == 200
        assert all(seconds_until_closed(each) < LATE_S for each in held)
        assert client.post("/v1/score", content=large).status_code == 200


@pytest.mark.parametrize("kind", ["features", "refresh"])
def test_only_so_many_slow_requests_are_under_way_and_the_newest_day_passes_by(
    served: Served, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Features that are scored, and looks at the champion: one more is told to come again, until one is done."""
    scoring, go, inside = served.running.scoring, threading.Event(), list[object]()
    assert scoring.slots.active is not None
    row = {"instrument": "S", "features": dict.fromkeys(scoring.slots.active.model.artefact.feature_names, 0.5)}
    monkeypatch.setattr(service, "FEW_ROWS", 0)  # none is scored where it arrives
    path, most, slow, body = {
        "features": ("/v1/score", LIMITS["requests_at_once"], "score_features", {"rows": [row]}),
        "refresh": ("/v1/refresh", REFRESHES_AT_ONCE, "refresh", {}),
    }[kind]
    honest = getattr(scoring, slow)

    def wait(*given: object) -> object:
        if threading.current_thread().name != "alias poller":  # the service's own look takes nobody's place
            inside.append(given)
            assert go.wait(LATE_S)
        return honest(*given)

    def ask() -> tuple[int, str | None]:
        with served.client() as client:
            answer = client.post(path, json=body)
            return answer.status_code, answer.headers.get("retry-after")

    monkeypatch.setattr(scoring, slow, wait)
    name = f'alphaops_busy_total{{kind="{kind}"}}'
    before = served.metric(name)
    with ThreadPoolExecutor(most) as pool, served.client() as honest_client:
        waiting = [pool.submit(ask) for _ in range(most)]
        while len(inside) < most:
            time.sleep(0.01)
        assert ask() == (503, "1")
        assert honest_client.post("/v1/score", json={}).status_code == 200
        go.set()
        assert [future.result() for future in waiting] == [(200, None)] * most
    assert ask() == (200, None)
    assert served.metric(name) > before


SLOW = {
    "a connection without a byte": ("headers", b""),
    "an unfinished request line": ("headers", b"POST /v1/sc"),
    "unfinished headers": ("headers", HEAD + b"X-A: b\r\n"),
    "empty lines": ("headers", b"\r\n"),
    "a body that does not come": ("body", HEAD + b"Content-Length: 100\r\n\r\n"),
    "a large body that does not come": ("body", HEAD + b"Content-Length: 900000\r\n\r\n{"),
    "a body behind a refusal": ("body", b"POST /v1/score HTTP/1.1\r\nContent-Length: 100\r\n\r\n"),
    "chunks that do not end": ("body", HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"),
    "nothing after an answer": ("idle", b"GET /health HTTP/1.1\r\nHost: x\r\n" + TOKEN + b"\r\n"),
}


@pytest.mark.parametrize("case", SLOW)
def test_who_keeps_the_service_waiting_is_cut_off_and_counted(served: Served, case: str) -> None:
    """Within seconds, also when a byte comes now and then."""
    reason, first = SLOW[case]
    name = f'alphaops_cut_connections_total{{reason="{reason}"}}'
    before = served.metric(name)
    still, dripping = served.connect(first), served.connect(first)
    stop = threading.Event()

    def drip() -> None:
        try:
            while not stop.wait(0.2):
                dripping.sendall(b"\r\n" if first[-4:] == b"\r\n\r\n" and reason != "body" else b"a")
        except OSError:
            pass

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        assert seconds_until_closed(still) < LATE_S
        assert seconds_until_closed(dripping) < LATE_S
    finally:
        stop.set()
        thread.join()
    assert served.metric(name) >= before + 1


OVERSIZED = {
    "a header without end": HEAD + b"X-A: ",
    "headers without end": HEAD,
    "a path without end": b"GET /",
    "trailers without end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n",
    "a body behind a refusal": b"POST /v1/score HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n",
}


@pytest.mark.parametrize("case", OVERSIZED)
def test_headers_and_bodies_without_end_are_cut_off(served: Served, case: str) -> None:
    """No more than a few megabytes of it are taken, in less than any time limit."""
    connection = served.connect(OVERSIZED[case])
    part = b"X-B: c\r\n" * 4000 if case.endswith(("s without end",)) else b"a" * 32_000
    sent = 0
    with pytest.raises(OSError):
        while sent < 50_000_000:
            connection.sendall(part)
            sent += len(part)
    assert sent < 20_000_000  # what lies in the buffers of the machine included


def test_a_later_request_has_the_limits_of_the_first(served: Served) -> None:
    """Headers without end after an answer are too long at once, not only when the connection has been idle."""
    name = 'alphaops_cut_connections_total{reason="oversized"}'
    before = served.metric(name)
    connection = served.connect(b"GET /health HTTP/1.1\r\nHost: x\r\n" + TOKEN + b"\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    with contextlib.suppress(OSError):
        connection.sendall(HEAD + b"X-A: ")
        for _ in range(50):
            connection.sendall(b"a" * 32_000)
    assert seconds_until_closed(connection) < LATE_S
    assert served.metric(name) == before + 1


def test_a_connection_whose_body_comes_after_the_refusal_is_idle(served: Served) -> None:
    """And ends as every idle one does."""
    name = 'alphaops_cut_connections_total{reason="idle"}'
    before = served.metric(name)
    connection = served.connect(b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 401")
    connection.sendall(b"later")
    assert seconds_until_closed(connection) < LATE_S
    assert served.metric(name) > before


class FullSocket(asyncio.Transport):
    """Of a client that takes nothing: what is written stays, also when the connection is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closing, self.aborted = False, asyncio.Event()
        self.written = b""

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.written += data

    def close(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.aborted.set()


class Lines(logging.Handler):
    """What is logged while it is attached."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())


def test_malformed_requests_are_counted_and_not_logged(served: Served) -> None:
    """A line for each would let a stranger fill the disk."""
    name = 'alphaops_cut_connections_total{reason="malformed"}'
    before, lines = served.metric(name), Lines()
    loggers = [logging.getLogger(each) for each in ("", "uvicorn", "uvicorn.error")]
    for each in loggers:
        each.addHandler(lines)
    try:
        for sent in (b"nonsense\r\n\r\n", b"GET /live HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"):
            assert served.connect(sent).recv(65536).startswith(b"HTTP/1.1 ")
    finally:
        for each in loggers:
            each.removeHandler(lines)
    assert served.metric(name) == before + 1
    assert lines.seen == []


def test_a_path_with_a_slash_too_many_leads_nowhere(served: Served) -> None:
    """The answer would name where to send the key to, and that is what the request called the service."""
    with served.client() as client:
        for path in ("/health/", "/v1/score/"):
            answer = client.get(path, headers={"Host": "elsewhere.example"})
            assert answer.status_code == 404 and "location" not in answer.headers


UNSEEN = {
    "fields behind a body": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    "headers behind a request that is not answered yet": b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n",
}


@pytest.mark.parametrize("case", UNSEEN)
def test_fields_where_no_limit_of_time_or_body_holds_are_cut_off_as_headers_are(case: str) -> None:
    """A megabyte of them takes fifteen in memory, and nobody needs a key to send them."""
    fields, asked = b"a:b\r\n" * 1000, []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope)
        await asyncio.Event().wait()

    async def connect() -> int:
        metrics = ServiceMetrics()
        made = limited_protocol(ServingSettings(), metrics)
        config = uvicorn.Config(app, lifespan="off")
        config.load()
        protocol, socket_of_client = made(config=config, server_state=ServerState(), app_state={}), FullSocket()
        protocol.connection_made(socket_of_client)
        protocol.data_received(UNSEEN[case])
        await asyncio.sleep(0)
        sent = 0
        while not socket_of_client.aborted.is_set() and sent < 2_000_000:
            protocol.data_received(fields)
            sent += len(fields)
        assert b'reason="oversized"} 1.0' in metrics.render()
        return sent

    assert asyncio.run(connect()) < 50_000
    assert len(asked) == 1 and len(asked[0]["headers"]) <= 1


@pytest.mark.parametrize(
    ("sent", "status"), [(b"nonsense\r\n\r\n", b"400"), (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", b"200")]
)
def test_a_last_answer_that_nobody_takes_is_let_go(sent: bytes, status: bytes) -> None:
    """The connection is closed, and the little that is left of its answer would keep it for ever."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})

    async def connect() -> bytes:
        made = limited_protocol(ServingSettings(answer_timeout_s=0.1), ServiceMetrics())
        config = uvicorn.Config(app, lifespan="off")
        config.load()
        protocol, socket_of_client = made(config=config, server_state=ServerState(), app_state={}), FullSocket()
        protocol.connection_made(socket_of_client)
        protocol.data_received(sent)
        async with asyncio.timeout(30):
            await socket_of_client.aborted.wait()
        return socket_of_client.written

    assert asyncio.run(connect()).startswith(b"HTTP/1.1 " + status)


def test_who_leaves_answers_unread_is_cut_off(served: Served) -> None:
    """What waits for it in memory is let go."""
    name = 'alphaops_cut_connections_total{reason="answer"}'
    before = served.metric(name)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", served.port))
    connection.settimeout(LATE_S)
    body = json.dumps({"instruments": [f"{number:010d}" for number in range(60_000)]}).encode()
    with pytest.raises(ConnectionError):
        for _ in range(20):  # the answers are as long, and a machine takes three or four megabytes of them unread
            connection.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert served.metric(name) > before


def test_requests_are_not_piled_up_on_one_connection(served: Served) -> None:
    """Thousands that are sent at once are not kept until their turn."""
    connection = served.connect((HEAD + b"Content-Length: 2\r\n\r\n{}") * 3000)
    answers = b""
    try:
        while part := connection.recv(65536):
            answers += part
    except OSError:
        pass
    assert answers.count(b"HTTP/1.1 200") < 3000


def test_crowds_of_silent_connections_keep_nobody_out(served: Served) -> None:
    """With more connections than allowed, the one that waited longest goes; requests are answered all the while."""
    name = 'alphaops_cut_connections_total{reason="crowded"}'
    before = served.metric(name)
    silent = [served.connect() for _ in range(40)]
    for _ in range(20):
        with served.client() as client:
            assert client.post("/v1/score", json={}).status_code == 200
        silent += [served.connect(b"GET /he"), served.connect(HEAD + b"Content-Length: 5\r\n\r\n")]
    assert served.metric("alphaops_connections") <= 12
    assert served.metric(name) > before
    for each in silent:
        each.close()
