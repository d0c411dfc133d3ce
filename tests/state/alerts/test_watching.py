"""A look at what is watched: rules, the dead man's switch, and the databases that it works on."""

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from pydantic import SecretStr

from mlops_tasks.config import AlertSettings, Settings
from mlops_tasks.data.exchanges.calendars import last_closed_session
from mlops_tasks.state import database
from mlops_tasks.state.alerts import delivery, raise_alert
from mlops_tasks.state.alerts.delivery import finish
from mlops_tasks.state.alerts.episodes import Key, Observation, Standing
from mlops_tasks.state.alerts.journal import events_of, newest_events, running_episodes
from mlops_tasks.state.alerts.watching import look
from mlops_tasks.state.database import session, upgrade
from mlops_tasks.state.history import newest_alerts
from mlops_tasks.state.rows import content_digest
from mlops_tasks.state.tables import ScoreBatch
from tests.postgres import DATABASES, settings_on
from tests.state.alerts.receivers import Channel

FRIDAY = date(2024, 5, 31)


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path, channel: Channel) -> Iterator[Settings]:
    """Settings of an empty database of its own, whose alerts go to a channel."""
    alerts = AlertSettings(webhook_url=SecretStr(channel.url), timeout_s=2)
    with settings_on(request.param, tmp_path, alerts=alerts) as made:
        yield made
        assert finish(10)


def new_york(at: datetime, delay: timedelta) -> date:
    """The newest session of New York."""
    return last_closed_session("XNYS", at, delay)


def scored(settings: Settings, day: date, days_later: float) -> None:
    """Scores of a day, recorded so long after it."""
    row = ScoreBatch(date=day, model_version=1, alias="champion", instruments=50, digest=str(day))
    row.recorded_at = datetime.combine(day, time(), UTC) + timedelta(days=days_later)
    row.content_digest = content_digest(row)
    with session(settings) as active:
        active.add(row)


def test_the_days_scores_are_missed_though_nothing_runs(
    settings: Settings, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weekend of looks without any run, vintage or schedule: one alert, twelve hours after Monday's close; restarts
    and further processes repeat none. When the scores come it is over."""
    scored(settings, FRIDAY, 1)
    close = datetime(2024, 6, 3, 20, tzinfo=UTC)  # Monday's, New York

    def after_close(hours: float) -> None:
        moment = close + timedelta(hours=hours)
        monkeypatch.setattr(delivery, "now", lambda: moment)
        look(settings, [], (), moment, new_york)
        assert finish(10)

    for hours in range(-48, 14, 4):
        after_close(hours)
        assert len(channel.received) == (hours >= 12), hours
    (told,) = channel.received
    assert told["kind"] == "scores_overdue" and told["severity"] == "critical"
    assert (
        "the scores of 2024-06-03 are missing 720 minutes after its close; the newest are of 2024-05-31" in told["text"]
    )
    after_close(15)
    assert [sent["step"] for sent in channel.received] == ["opened", "escalated"]
    scored(settings, date(2024, 6, 3), 1)
    after_close(16)
    assert [sent["step"] for sent in channel.received] == ["opened", "escalated", "resolved"]


def test_nothing_is_due_of_a_market_of_the_past(settings: Settings, channel: Channel) -> None:
    """A source that ends years ago was never followed; nor is one without any scores."""
    monday = datetime(2024, 6, 3, 12, tzinfo=UTC)
    look(settings, [], (), monday, new_york)
    scored(settings, date(2020, 6, 1), 1400)
    look(settings, [], (), monday, new_york)
    assert newest_events(settings, 5) == [] and channel.received == []


def test_a_key_has_one_open_episode_whoever_writes(settings: Settings, channel: Channel) -> None:
    """Eight writers at once: one episode, numbered without a gap, told once."""
    seen = [Observation(Key("service_stale", "data"), Standing.BREACHED, "old")]
    at = datetime.now(UTC)
    newest_alerts(settings, 1)
    acts: list[Any] = [
        lambda: look(settings, seen, ("service_stale",), at, new_york),
        lambda: raise_alert(settings, kind="vintage_rejected", subject="s", message="row 5"),
    ]
    threads = [threading.Thread(target=act) for act in acts * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert finish(20)
    for key in (Key("service_stale", "data"), Key("vintage_rejected", "s")):
        assert [(event.sequence, event.step) for event in events_of(settings, key)] == [(1, "opened")]
    assert sorted(sent["kind"] for sent in channel.received) == ["service_stale", "vintage_rejected"]
    assert set(running_episodes(settings)) == {("service_stale", "data"), ("vintage_rejected", "s")}


def test_wrong_rules_stop_no_other_alert(
    settings: Settings, channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    """They are an alert themselves, until they are right; what the rules watched stays open meanwhile."""
    own, moment = settings.home / "alerts.yaml", datetime.now(UTC)
    seen = [Observation(Key("k", "s"), Standing.BREACHED, "m"), Observation(Key("mine", "x"), Standing.BREACHED, "m")]
    look(settings, seen, (), moment, new_york)
    own.write_text("mine: {type: guess}\n")
    look(settings, [], (), moment + timedelta(hours=49), new_york)
    assert finish(10)
    assert sorted(sent["kind"] for sent in channel.received) == ["k", "mine", "rules_wrong"]
    assert {key.kind for key in running_episodes(settings)} == {"k", "mine", "rules_wrong"}
    assert "no alert rule is evaluated" in caplog.text and "mine" in caplog.text
    own.unlink()
    look(settings, [], (), moment + timedelta(hours=49.1), new_york)
    assert finish(10) and {key.kind for key in running_episodes(settings)} == set()


def test_alerts_of_an_older_database_are_kept(settings: Settings, channel: Channel) -> None:
    """As episodes that are over and told, in their order; and back again."""
    upgrade(settings)
    engine = database.engine(settings.state_database)
    at = "2024-06-03 12:00:00+00:00" if engine.dialect.name == "postgresql" else "2024-06-03 12:00:00.000000"
    with engine.connect() as connection, connection.begin():
        config = database._alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0008")
        for number, (subject, message) in enumerate([("a", "one"), ("b", "two"), ("a", "three")]):
            connection.execute(
                sa.text(
                    "INSERT INTO alert (content_digest, recorded_at, kind, subject, message) "
                    "VALUES (:digest, :at, 'leak_found', :subject, :message)"
                ),
                {"digest": str(number), "at": at, "subject": subject, "message": message},
            )
    upgrade(settings)
    kept = newest_alerts(settings, 9)
    assert [(row.subject, row.message, row.recorded_at) for row in kept] == [
        ("a", "three", datetime(2024, 6, 3, 12, tzinfo=UTC)),
        ("b", "two", datetime(2024, 6, 3, 12, tzinfo=UTC)),
        ("a", "one", datetime(2024, 6, 3, 12, tzinfo=UTC)),
    ]
    assert running_episodes(settings) == {}
    assert raise_alert(settings, kind="leak_found", subject="a", message="four") and finish(10)
    assert [(event.episode, event.step) for event in events_of(settings, Key("leak_found", "a"))][-1] == (3, "opened")
    assert [sent["message"] for sent in channel.received] == ["four"]
    with engine.connect() as connection, connection.begin():
        config = database._alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0008")
        found = connection.execute(sa.text("SELECT subject, message FROM alert ORDER BY id")).all()
    assert [tuple(row) for row in found] == [("a", "one"), ("b", "two"), ("a", "three"), ("a", "four")]
