"""What is raised is an episode, told in the background, once."""

import logging
import time
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from mlops_tasks.config import AlertSettings, Settings
from mlops_tasks.state.alerts import raise_alert, raise_daily_alert, raising
from mlops_tasks.state.alerts.delivery import finish
from mlops_tasks.state.alerts.episodes import Key, resolved
from mlops_tasks.state.alerts.journal import advance, events_of, silence
from mlops_tasks.state.history import newest_alerts
from mlops_tasks.state.tables import now
from tests.state.alerts.receivers import Channel

REJECTED = {"kind": "vintage_rejected", "subject": "s1", "message": "row 5: open=-3.5"}
FAILED = {"kind": "run_failed", "cause": "r1", "message": "first"}
AWAY = "postgresql+psycopg2://x@127.0.0.1:1/x"


def settings_with(home: Path, url: str | None) -> Settings:
    return Settings(home=home, alerts=AlertSettings(webhook_url=None if url is None else SecretStr(url), timeout_s=2))


def test_an_alert_is_recorded_and_told_once(tmp_path: Path, channel: Channel) -> None:
    """Equal alerts, as retries raise them, are one step and one call; another message is said too."""
    settings = settings_with(tmp_path, channel.url)
    assert [raise_alert(settings, **REJECTED) for _ in range(3)] == [True, False, False]
    assert raise_alert(settings, **(REJECTED | {"message": "row 6: open=0"}))
    assert finish(10)
    assert [row.message for row in newest_alerts(settings, 5)] == ["row 6: open=0", "row 5: open=-3.5"]
    assert [sent["message"] for sent in channel.received] == ["row 5: open=-3.5", "row 6: open=0"]
    assert [sent["step"] for sent in channel.received] == ["opened", "updated"]
    assert channel.received[0]["text"] == "vintage_rejected s1: row 5: open=-3.5"
    assert channel.received[0]["severity"] == "critical"
    assert len(set(channel.keys)) == 2 and channel.keys[0] == channel.received[0]["id"]


def test_what_happens_again_after_its_end_is_a_new_episode(tmp_path: Path, channel: Channel) -> None:
    """The same words open the next episode once a person has ended the first, which is told, too."""
    settings, key = settings_with(tmp_path, channel.url), Key("vintage_rejected", "s1")
    assert raise_alert(settings, **REJECTED)
    assert advance(settings, key, lambda episode, silenced: resolved(episode, "ann", silenced), now())
    assert raise_alert(settings, **REJECTED)
    assert finish(10)
    assert [(sent["step"], sent["text"][:6]) for sent in channel.received] == [
        ("opened", "vintag"),
        ("resolved", "over: "),
        ("opened", "vintag"),
    ]
    assert [(event.episode, event.sequence, event.by) for event in events_of(settings, key)] == [
        (1, 1, ""),
        (1, 2, "ann"),
        (2, 3, ""),
    ]


def test_a_deaf_webhook_costs_no_alert_no_time_and_no_secret(
    tmp_path: Path, channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused call is logged without its address, and the alert is recorded all the same, without waiting."""
    caplog.set_level(logging.DEBUG)
    channel.answers, channel.before = [503], lambda: time.sleep(0.5)
    deaf = settings_with(tmp_path, channel.url)
    newest_alerts(deaf, 1)  # makes the database
    began = time.monotonic()
    assert raise_alert(deaf, **REJECTED)
    assert time.monotonic() - began < 0.4
    assert raise_alert(settings_with(tmp_path / "b", "http://127.0.0.1:9/hook/t0ken"), **REJECTED)
    assert finish(10)
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


def test_a_cause_is_told_once_a_day(tmp_path: Path, channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the message; the next day it is told again in the same episode."""
    settings = settings_with(tmp_path, channel.url)
    assert [raise_daily_alert(settings, **(FAILED | {"message": text})) for text in "aab"] == [True, False, False]
    tomorrow = now() + timedelta(days=1)
    monkeypatch.setattr(raising, "now", lambda: tomorrow)
    assert [raise_daily_alert(settings, **(FAILED | {"message": text})) for text in "cd"] == [True, False]
    assert finish(10)
    assert [sent["message"] for sent in channel.received] == ["a", "c"]
    assert {event.episode for event in events_of(settings, Key("run_failed", "r1"))} == {1}


def test_while_the_database_is_away_sinks_are_told_and_the_record_follows(tmp_path: Path, channel: Channel) -> None:
    """Once a process and day, with one token; what the record then owes to a sink that has told is nothing."""
    settings = settings_with(tmp_path, channel.url)
    away = settings.model_copy(update={"state_url": AWAY})
    away.__dict__.pop("state_database", None)
    assert [raise_daily_alert(away, **FAILED) for _ in range(2)] == [True, False]
    assert len(channel.received) == 1
    assert not raise_daily_alert(settings, **FAILED)
    assert finish(10)
    (event,) = events_of(settings, Key("run_failed", "r1"))
    assert channel.keys == [event.token]
    assert not raise_daily_alert(settings, **FAILED) and len(channel.received) == 1


def test_what_is_silenced_is_recorded_and_not_told(tmp_path: Path, channel: Channel) -> None:
    """A silence of a subject, or of a whole kind, ends by itself or by another one of no time."""
    settings = settings_with(tmp_path, channel.url)
    silence(settings, Key("vintage_rejected", ""), timedelta(hours=1), "ann", "the vendor is at it")
    assert raise_alert(settings, **REJECTED)
    silence(settings, Key("vintage_rejected", ""), timedelta(0), "ann", "done")
    silence(settings, Key("vintage_rejected", "s2"), timedelta(hours=1), "ann", "known")
    assert raise_alert(settings, **(REJECTED | {"subject": "s2"}))
    assert raise_alert(settings, **(REJECTED | {"subject": "s3"}))
    assert finish(10)
    assert [sent["subject"] for sent in channel.received] == ["s3"]
    assert len(newest_alerts(settings, 9)) == 3
