"""Handshakes, frames and messages that no honest client sends, to the stream of a real Airflow: it refuses them and
goes on."""

import base64
import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.plugins.api_server import Airflow
from tests.plugins.runs import Runs
from tests.plugins.streams import address, open_stream, run_topic
from tests.plugins.test_stream_load import sockets_of
from tests.waiting import wait_for

STREAM = "/mlops/v1/stream"
EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HEADER = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)
NUMBER = st.one_of(
    st.integers(),
    st.sampled_from([2**31, 2**63, -(2**63), 10**400, "1e3", "NaN", "\0", "٣", ""]),
    st.text(max_size=8),
)
VALID = {
    "Host": "x",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
}
OTHER = st.dictionaries(
    st.sampled_from(
        [*VALID, "Origin", "Cookie", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Content-Length"]
    ),
    HEADER,
    max_size=3,
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Bytes like frames: any opcode, reserved bits, masked or not, a length that is true or not."""
    made = b""
    for _ in range(draw(st.integers(1, 3))):
        payload = draw(st.binary(max_size=200))
        first, masked = draw(st.integers(0, 255)), draw(st.booleans())
        length = draw(st.sampled_from([len(payload), len(payload) + 1, 126, 127]))
        made += bytes([first, 128 * masked | min(length, 127)])
        if length == 126:
            made += struct.pack(">H", draw(st.sampled_from([0, len(payload), 2**16 - 1])))
        elif length >= 127:
            made += struct.pack(">Q", draw(st.sampled_from([0, len(payload), 2**31, 2**63, 2**64 - 1])))
        made += (bytes(4) if masked else b"") + payload
    return made


@pytest.fixture
def unbroken(airflow: Airflow, runs: Runs) -> Iterator[None]:
    """After it the server has said of no error, holds no connection more, and streams as before."""
    log, before = Path(airflow.settings.home / "api_server.log"), sockets_of(airflow)
    start = log.stat().st_size
    yield
    said = log.read_bytes()[start:].decode(errors="replace")
    assert "Traceback" not in said and "Exception in ASGI" not in said, said[-4000:]
    wait_for(lambda: sockets_of(airflow) <= before + 2, 120)
    topic = run_topic(runs.finished().run_id)
    with open_stream(airflow) as stream:
        assert next(stream.subscribe(topic).events(topic))["sequence"] == 1


@contextlib.contextmanager
def connected(airflow: Airflow, path: str, headers: dict[str, str]) -> Iterator[tuple[socket.socket, bytes]]:
    """A connection on which this was asked for, and the first bytes of the answer; empty if it was closed."""
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    with socket.create_connection(("127.0.0.1", airflow.settings.stack.airflow_port), timeout=120) as made:
        made.sendall("\r\n".join(lines).encode("latin-1"))
        try:
            yield made, made.recv(12)
        except ConnectionError:
            yield made, b""


def test_no_handshake_breaks_a_stream(airflow: Airflow, runs: Runs, unbroken: None) -> None:
    """Whatever query, header or token it has, the answer is no 5xx."""
    token = airflow.token("viewer")

    @EXAMPLES
    @given(st.text(max_size=20), NUMBER, OTHER, st.one_of(st.just(token), HEADER))
    def send(name: str, value: object, other: dict[str, str], bearer: str) -> None:
        asked = "&".join(f"{quote(each, safe='', errors='replace')}" for each in (name, str(value)))
        headers = {"Authorization": f"Bearer {bearer}", **VALID, **other}
        with connected(airflow, f"{STREAM}?{asked}", headers) as (_, answer):
            assert answer == b"" or answer.startswith((b"HTTP/1.1 1", b"HTTP/1.1 2", b"HTTP/1.1 3", b"HTTP/1.1 4"))

    send()


def test_no_frame_breaks_a_stream(airflow: Airflow, runs: Runs, unbroken: None) -> None:
    """Broken frames, false lengths, reserved bits end it or are waited for in vain."""
    token = airflow.token("viewer")

    @EXAMPLES
    @given(frames())
    def send(said: bytes) -> None:
        key = {"Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode()}
        with connected(airflow, STREAM, {"Authorization": f"Bearer {token}", **VALID, **key}) as (made, answer):
            assert answer in (b"HTTP/1.1 101", b"HTTP/1.1 429")
            made.sendall(said)
            made.shutdown(socket.SHUT_WR)
            made.settimeout(60)
            with contextlib.suppress(ConnectionError):
                while made.recv(65536):
                    pass

    send()


def messages(run_id: str) -> st.SearchStrategy[str]:
    """Texts like messages: right and wrong kinds, topics and numbers, in JSON and beside it."""
    word = st.one_of(st.sampled_from(["subscribe", "unsubscribe", "alerts", f"runs/{run_id}", "runs/\0"]), st.text())
    value = st.one_of(word, NUMBER, st.none(), st.booleans(), st.floats(), st.lists(word, max_size=2))
    names = st.one_of(st.sampled_from(["type", "topic", "after"]), st.text(max_size=5))
    like = st.fixed_dictionaries(
        {"type": st.sampled_from(["subscribe", "unsubscribe"]), "topic": word}, optional={"after": value}
    )
    return st.one_of(st.text(), st.one_of(like, st.dictionaries(names, value), value).map(json.dumps))


def test_no_message_breaks_a_stream(airflow: Airflow, runs: Runs, unbroken: None) -> None:
    """Each is answered, or ends its stream with the reason, by 1008; never by an error of the server's."""
    token, run = airflow.token("viewer"), runs.open()

    @EXAMPLES
    @given(st.lists(messages(run.run_id), min_size=1, max_size=4))
    def send(said: list[str]) -> None:
        with connect(address(airflow), additional_headers={"Authorization": f"Bearer {token}"}) as stream:
            try:
                for text in said:
                    stream.send(text)
                stream.send(json.dumps({"type": "unsubscribe", "topic": "the last"}))
                while json.loads(stream.recv(timeout=60)) != {"type": "unsubscribed", "topic": "the last"}:
                    pass
            except ConnectionClosed:
                assert stream.close_code == 1008

    send()


def test_long_binary_and_many_messages_end_a_stream(airflow: Airflow, runs: Runs, unbroken: None) -> None:
    """With the reason."""
    for said, reason in ((b"\x00", "send {"), ("x" * 1_000_000, "send {"), ('{"type"', "send {")):
        with open_stream(airflow) as stream:
            stream.connection.send(said)
            with pytest.raises(ConnectionClosed):
                stream.message()
            assert stream.connection.close_code == 1008
            assert (stream.connection.close_reason or "").startswith(reason)
    with open_stream(airflow) as stream, contextlib.suppress(ConnectionClosed):
        for _ in range(2000):
            stream.ask("unsubscribe", "alerts")
        while True:
            stream.message()
    assert (stream.connection.close_code, stream.connection.close_reason) == (1008, "you send too many messages")
