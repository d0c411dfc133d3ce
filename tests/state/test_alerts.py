"""Alerts reach the record always and the webhook where there is one."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr

from mlops_tasks.config import AlertSettings, Settings
from mlops_tasks.state.alerts import raise_alert
from mlops_tasks.state.history import newest_alerts

REJECTED = {"kind": "vintage_rejected", "subject": "s1", "message": "row 5: open=-3.5"}


class Channel(ThreadingHTTPServer):
    """A webhook's server; `answers` are the statuses to come, 200 when they are used up."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[dict[str, str]] = []
        self.answers: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/t0ken"


class Handler(BaseHTTPRequestHandler):
    server: Channel

    def do_POST(self) -> None:
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def channel() -> Iterator[Channel]:
    """A running webhook."""
    with Channel() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def settings_with(home: Path, url: str | None) -> Settings:
    return Settings(home=home, alerts=AlertSettings(webhook_url=None if url is None else SecretStr(url), timeout_s=2))


def test_an_alert_is_recorded_and_told_once(tmp_path: Path, channel: Channel) -> None:
    """Equal alerts, as retries raise them, are one row and one call; another message is another alert."""
    settings = settings_with(tmp_path, channel.url)
    assert [raise_alert(settings, **REJECTED) for _ in range(3)] == [True, False, False]
    assert raise_alert(settings, **(REJECTED | {"message": "row 6: open=0"}))
    assert [row.message for row in newest_alerts(settings, 5)] == ["row 6: open=0", "row 5: open=-3.5"]
    assert [sent["message"] for sent in channel.received] == ["row 5: open=-3.5", "row 6: open=0"]
    assert channel.received[0]["text"] == "vintage_rejected s1: row 5: open=-3.5"


def test_a_deaf_webhook_costs_no_alert_and_no_secret(
    tmp_path: Path, channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused call is logged without its address, and the alert is recorded all the same."""
    channel.answers = [503]
    assert raise_alert(settings_with(tmp_path, channel.url), **REJECTED)
    assert raise_alert(settings_with(tmp_path / "b", "http://127.0.0.1:9/hook/t0ken"), **REJECTED)
    assert "HTTPStatusError 503" in caplog.text and "ConnectError" in caplog.text
    assert "t0ken" not in caplog.text
    assert len(newest_alerts(settings_with(tmp_path / "b", None), 5)) == 1


def test_without_a_webhook_an_alert_is_a_record(tmp_path: Path) -> None:
    """No address configured: nothing is called, the record is there."""
    settings = settings_with(tmp_path, None)
    assert raise_alert(settings, **REJECTED)
    assert [row.kind for row in newest_alerts(settings, 5)] == ["vintage_rejected"]


def test_the_address_is_never_shown(tmp_path: Path) -> None:
    """Neither the settings' repr nor their JSON holds the webhook's address."""
    settings = settings_with(tmp_path, "http://127.0.0.1:9/hook/t0ken")
    assert "t0ken" not in repr(settings) and "t0ken" not in settings.model_dump_json()
