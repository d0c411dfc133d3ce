"""Many streams at once: each user has so many, all of them cost one look at the database, and Airflow goes on."""

import asyncio
import base64
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import websockets
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from mlops_tasks.config import Settings, StackSettings
from tests.operation import free_ports
from tests.plugins.api_server import Airflow, start_airflow
from tests.plugins.conftest import SEND_TIMEOUT_S
from tests.plugins.runs import FINISHED, Runs
from tests.plugins.streams import Stream, address, open_stream, run_topic

PER_USER = 32
SUBSCRIBERS = 500


def opened(airflow: Airflow, token: str) -> ClientConnection | tuple[int, str | None, str]:
    """A stream, or how it was refused: status, Retry-After, detail."""
    headers = {"Authorization": f"Bearer {token}"}
    try:
        return connect(address(airflow), additional_headers=headers, open_timeout=120)
    except InvalidStatus as error:
        answer = error.response
        detail = json.loads(answer.body)["detail"] if answer.body else ""
        return answer.status_code, answer.headers.get("Retry-After"), detail


def rest_seconds(airflow: Airflow, requests: int) -> list[float]:
    """How long the same request of Airflow's own API takes, again and again."""
    with airflow.client("admin") as client:
        found = []
        for _ in range(requests):
            began = time.perf_counter()
            client.get("/api/v2/dags").raise_for_status()
            found.append(time.perf_counter() - began)
    return sorted(found)


def threads_of(airflow: Airflow) -> int:
    """Of the server's process."""
    status = Path(f"/proc/{airflow.pid}/status").read_text()
    return int(status.partition("Threads:")[2].split()[0])


def test_a_user_has_so_many_streams_and_airflow_answers_beside_them(airflow: Airflow, runs: Runs) -> None:
    """Of a viewer's 60 streams 32 open and get every event once; the others are told why, and those of others open."""
    run = runs.open()
    topic = run_topic(run.run_id)
    quiet = rest_seconds(airflow, 20)
    token = airflow.token("viewer")
    with ExitStack() as closing, ThreadPoolExecutor(20) as pool:
        asked = list(pool.map(lambda _: opened(airflow, token), range(60)))
        streams = [Stream(closing.enter_context(each)) for each in asked if isinstance(each, ClientConnection)]
        refused = Counter(each for each in asked if isinstance(each, tuple))
        detail = f"you have {PER_USER} streams open; close one, or ask for events instead"
        assert (len(streams), refused) == (PER_USER, {(429, "30", detail): 60 - PER_USER})
        streams.append(closing.enter_context(open_stream(airflow, "admin")))
        for stream in streams:
            stream.subscribe(topic)
        before = threads_of(airflow)
        busy = rest_seconds(airflow, 20)
        run.iterate(1, 5)
        run.add(("finished", FINISHED))
        for stream in streams:
            assert [event["sequence"] for event in stream.events(topic)] == list(range(1, 10))
        assert threads_of(airflow) <= before + 2
    assert busy[10] < 5 * quiet[10] + 0.2
    again = opened(airflow, token)
    assert isinstance(again, ClientConnection), "the places are free again"
    again.close()


def raw_stream(airflow: Airflow, token: str, run_id: str) -> socket.socket:
    """A subscriber who reads nothing: a small window, and no answer to pings."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.settimeout(120)
    made.connect(("127.0.0.1", airflow.settings.stack.airflow_port))
    key = base64.b64encode(os.urandom(16)).decode()
    made.sendall(
        f"GET /mlops/v1/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    assert made.recv(12) == b"HTTP/1.1 101"
    said = json.dumps({"type": "subscribe", "topic": run_topic(run_id)}).encode()
    made.sendall(bytes([0x81, 0x80 | len(said)]) + bytes(4) + said)  # one masked frame, by a mask of zeros
    return made


def sockets_of(airflow: Airflow) -> int:
    """Open ones of the server's process."""
    links = []
    for path in Path(f"/proc/{airflow.pid}/fd").iterdir():
        try:
            links.append(str(path.readlink()))
        except OSError:
            continue
    return sum(link.startswith("socket:") for link in links)


def memory_mb(airflow: Airflow) -> float:
    """Of the server's process, without shared pages."""
    said = Path(f"/proc/{airflow.pid}/status").read_text()
    return int(said.partition("RssAnon:")[2].split()[0]) / 1024


def test_a_reader_that_takes_nothing_is_cut_off(airflow: Airflow, runs: Runs) -> None:
    """With its connection, although it never closes, and holds no memory meanwhile; who reads gets everything."""
    run = runs.open()
    topic = run_topic(run.run_id)
    run.add(*(("warning", {"explanation": os.urandom(40_000).hex()}) for _ in range(60)))
    before, memory = sockets_of(airflow), memory_mb(airflow)
    slow = [raw_stream(airflow, airflow.token("viewer"), run.run_id) for _ in range(10)]
    with open_stream(airflow, "admin") as quick:
        assert [event["sequence"] for event in quick.subscribe(topic).take(topic, 63)] == list(range(1, 64))
        assert memory_mb(airflow) - memory < 40, "what all of them were to read is 50 MB"
        until = time.monotonic() + 30 * SEND_TIMEOUT_S
        while sockets_of(airflow) > before + 1:
            assert time.monotonic() < until
            time.sleep(0.2)
        run.add(("finished", FINISHED))
        assert [event["kind"] for event in quick.events(topic)] == ["finished"]
    for each in slow:
        each.close()


@pytest.fixture(scope="module")
def generous(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A server of its own that lets one user open as many streams as all may, and ends what is idle."""
    ports = free_ports(3)
    stack = StackSettings(airflow_port=ports[0], mlflow_port=ports[1], scoring_port=ports[2])
    settings = Settings(home=tmp_path_factory.mktemp("generous"), stack=stack)
    settings_file = settings.home / "settings.yaml"
    settings_file.write_text("streams: {per_user: 600, idle_s: 150, lifetime_s: 300}\n")
    with start_airflow(settings) as server:
        yield server


@pytest.mark.slow
def test_500_subscribers_do_not_stall_airflow(generous: Airflow, runs: Runs) -> None:
    """All get every event, the database is asked once for all, and quiet streams are ended, half-open ones too."""
    own = Runs(generous.settings, runs.at)
    run, silent = own.open(), own.open()
    topic = run_topic(run.run_id)
    token = generous.token("viewer")
    half_open = raw_stream(generous, token, silent.run_id)
    quiet = rest_seconds(generous, 40)

    async def follow() -> list[float]:
        headers = {"Authorization": f"Bearer {token}"}
        place = asyncio.Semaphore(50)

        async def one() -> websockets.ClientConnection:
            async with place:
                made = await websockets.connect(address(generous), additional_headers=headers, open_timeout=300)
                await made.send(json.dumps({"type": "subscribe", "topic": topic}))
                return made

        streams = await asyncio.gather(*(one() for _ in range(SUBSCRIBERS)))
        busy = asyncio.create_task(asyncio.to_thread(rest_seconds, generous, 40))
        for number in range(1, 11):
            await asyncio.to_thread(run.iterate, number, number)
        seen = await asyncio.gather(*(_sequences(stream, 13) for stream in streams))
        assert seen == [list(range(1, 14))] * SUBSCRIBERS
        await asyncio.wait_for(asyncio.gather(*(stream.wait_closed() for stream in streams)), 400)
        assert {(stream.close_code, stream.close_reason) for stream in streams} <= {
            (1013, "nothing has happened for a long time; connect again"),
            (1013, "the stream has lasted long enough; connect again"),
        }
        return await busy

    busy = asyncio.run(follow())
    assert busy[20] < 5 * quiet[20] + 0.2, (quiet[20], busy[20])
    assert busy[-1] < 5, "Airflow stalled"
    assert half_open.recv(1 << 20) is not None
    until = time.monotonic() + 60
    while sockets_of(generous) > 20 and time.monotonic() < until:
        time.sleep(1)
    assert sockets_of(generous) <= 20


async def _sequences(stream: websockets.ClientConnection, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        message = json.loads(await stream.recv())
        found += [event["sequence"] for event in message.get("events", [])]
    return found
