"""The outbox: told once, also when a process is killed while it tells, and none waits for another."""

import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from mlops_tasks.config import AlertSettings, EmailSettings, Settings
from mlops_tasks.state.alerts import delivery, raise_alert
from mlops_tasks.state.alerts.delivery import KEEP_TRYING, deliver, finish, is_owing, try_sink
from mlops_tasks.state.database import reading
from mlops_tasks.state.history import newest_alerts
from mlops_tasks.state.tables import AlertDelivery, now
from tests import programs
from tests.programs import Program
from tests.state.alerts.receivers import Channel, Mailbox

REJECTED = {"kind": "vintage_rejected", "subject": "s1", "message": "row 5: open=-3.5"}
RAISE = """
import sys
from mlops_tasks.config import load_settings
from mlops_tasks.state.alerts import raise_alert
raise_alert(load_settings(), kind="vintage_rejected", subject="s1", message="row 5: open=-3.5")
print("raised", flush=True)
"""


def settings_of(home: Path, channel: Channel, mailbox: Mailbox | None = None) -> Settings:
    plain = {"host": "127.0.0.1", "security": "none", "sender": "a@desk.test", "to": ["b@desk.test"]}
    email = None if mailbox is None else EmailSettings.model_validate({**plain, "port": mailbox.port})
    return Settings(home=home, alerts=AlertSettings(webhook_url=SecretStr(channel.url), email=email, timeout_s=2))


def tries(settings: Settings) -> list[tuple[str, int, str]]:
    """All that was tried, in order."""
    with reading(settings) as active:
        rows = active.scalars(select(AlertDelivery).order_by(AlertDelivery.id))
        return [(row.sink, row.attempt, row.outcome) for row in rows]


def process(settings: Settings) -> Program:
    """A stage's process that raises an alert and ends."""
    address = settings.alerts.webhook_url
    assert address is not None
    environment = {
        **os.environ,
        "MLOPS_HOME": str(settings.home),
        "MLOPS_ALERTS__WEBHOOK_URL": address.get_secret_value(),
        "MLOPS_ALERTS__TIMEOUT_S": "2",
    }
    return programs.start(RAISE, environment=environment)


def test_a_process_that_ends_at_once_has_told_before(tmp_path: Path, channel: Channel) -> None:
    """It does not wait where it raises, it waits where it ends."""
    channel.before = lambda: time.sleep(0.5)
    with process(settings_of(tmp_path, channel)) as child:
        assert child.wait(60) == 0
    assert len(channel.received) == 1


def test_what_a_killed_process_was_telling_is_told_by_another(
    tmp_path: Path, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while its claim lasts, and then with the same token, so that the receiver knows it."""
    settings = settings_of(tmp_path, channel)
    newest_alerts(settings, 1)
    with process(settings) as child:
        channel.before = lambda: os.kill(child.pid, signal.SIGKILL)
        assert child.wait(60) == -signal.SIGKILL
    channel.before = lambda: None
    assert [sent["subject"] for sent in channel.received] == ["s1"] and is_owing(settings)
    deliver(settings)
    assert finish(10) and len(channel.received) == 1
    later = now() + timedelta(seconds=6.1)
    monkeypatch.setattr(delivery, "now", lambda: later)
    deliver(settings)
    assert finish(10) and channel.keys[0] == channel.keys[1] and len(channel.keys) == 2
    assert tries(settings) == [("webhook", 1, "claimed"), ("webhook", 2, "claimed"), ("webhook", 2, "told")]
    assert not is_owing(settings)


def test_a_sink_that_hangs_delays_no_other(tmp_path: Path, channel: Channel, mailbox: Mailbox) -> None:
    """The letter is there while the webhook still thinks, and what comes meanwhile is told, too."""
    channel.before = lambda: time.sleep(0.7)
    settings = settings_of(tmp_path, channel, mailbox)
    newest_alerts(settings, 1)
    assert raise_alert(settings, **REJECTED) and raise_alert(settings, **(REJECTED | {"subject": "s2"}))
    until = time.monotonic() + 10
    while len(mailbox.letters) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(mailbox.letters) == 2 and not channel.received
    assert finish(10) and len(channel.received) == 2


def test_a_sink_that_fails_is_tried_again_after_a_pause_and_given_up_in_the_end(
    tmp_path: Path, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pauses grow up to half an interval; what was told meanwhile stays in order."""
    settings = settings_of(tmp_path, channel)
    clock = [now()]
    monkeypatch.setattr(delivery, "now", lambda: clock[0])
    channel.answers = [503] * 6
    assert raise_alert(settings, **REJECTED) and raise_alert(settings, **(REJECTED | {"subject": "s2"}))
    assert finish(10)
    pauses = []
    while not channel.received:
        waited = 0.0
        before = len(tries(settings))
        while len(tries(settings)) == before:
            clock[0] += timedelta(seconds=0.5)
            waited += 0.5
            deliver(settings)
            assert finish(10)
        pauses.append(waited)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    assert [sent["subject"] for sent in channel.received] == ["s1", "s2"]
    channel.answers = [503] * 6
    assert raise_alert(settings, **(REJECTED | {"subject": "s3"})) and finish(10) and is_owing(settings)
    clock[0] += KEEP_TRYING
    assert not is_owing(settings)


def test_a_letter_that_could_not_be_written_down_is_not_sent_twice(
    tmp_path: Path, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes away between the telling and its confirmation: the process itself remembers."""
    settings, write = settings_of(tmp_path, channel), delivery._write
    newest_alerts(settings, 1)

    def away(*_: object) -> None:
        raise OSError("the database is away")

    monkeypatch.setattr(delivery, "_write", away)
    assert raise_alert(settings, **REJECTED) and finish(10) and len(channel.received) == 1
    monkeypatch.setattr(delivery, "_write", write)
    later = now() + timedelta(seconds=6.1)
    monkeypatch.setattr(delivery, "now", lambda: later)
    deliver(settings)
    assert finish(10) and len(channel.received) == 1 and not is_owing(settings)


def test_a_test_reaches_people(tmp_path: Path, channel: Channel) -> None:
    """It is told as one, and is no episode."""
    settings = settings_of(tmp_path, channel)
    try_sink(settings, "webhook", "ann")
    assert [(sent["kind"], sent["message"]) for sent in channel.received] == [("test", "a test of this sink, by ann")]
    assert newest_alerts(settings, 1) == []


def test_what_a_receiver_does_not_take_keeps_nothing_else_back(
    tmp_path: Path, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up after five refusals; a receiver that is away for longer misses nothing."""
    monkeypatch.setattr(delivery, "_FIRST_PAUSE_S", 0.0)
    settings = settings_of(tmp_path, channel)
    channel.answers = [503] * 7 + [413] * 5
    for subject in ("too long", "s2"):
        raise_alert(settings, **(REJECTED | {"subject": subject}))
        assert finish(10)
    for _ in range(12):
        deliver(settings)
        assert finish(10)
    assert [sent["subject"] for sent in channel.received] == ["s2"] and not is_owing(settings)
    assert [outcome for _, _, outcome in tries(settings)].count("refused") == 5


def test_a_process_without_a_sink_leaves_it_to_those_that_have_one(tmp_path: Path, channel: Channel) -> None:
    """As a person's shell, which lacks the variable with the address."""
    raise_alert(Settings(home=tmp_path), **REJECTED)
    assert channel.received == []
    deliver(settings_of(tmp_path, channel))
    assert finish(10) and [sent["subject"] for sent in channel.received] == ["s1"]
