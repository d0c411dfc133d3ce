"""However many streams follow training runs, one reader asks the database, no stream holds events of its own or lasts
for ever, there are only so many, and a database that goes away for a while ends none that waits."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.state.alerts import raise_alert
from mlops_tasks.state.database import engine
from tests.dags.test_dags import in_airflow
from tests.operation import without_state_database
from tests.plugins.runs import FINISHED, OpenRun, Runs


@pytest.fixture
def broadcast(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The plugin's module, which lies where Airflow finds it."""
    monkeypatch.syspath_prepend(str(PROJECT / "plugins"))
    from mlops_api import broadcast

    yield broadcast
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlops_api"]:
        del sys.modules[name]


@pytest.fixture
def run(tmp_path: Path) -> OpenRun:
    """An open run with three events."""
    return Runs(Settings(home=tmp_path), datetime(2026, 3, 2, tzinfo=UTC)).open()


async def collect(broadcaster: Any, run: OpenRun, after: int) -> list[int]:
    """Numbers of a stream's events up to the end."""
    async with broadcaster.follow(run.run_id) as feed:
        return [message.sequence async for message in broadcaster.messages(feed, after)]


def test_a_hundred_streams_ask_the_database_as_often_as_one(broadcast: Any, run: OpenRun) -> None:
    """From wherever they begin each gets every event once, in order; queries do not grow with the streams."""
    asked: list[str] = []

    def note(*about: Any) -> None:
        asked.append(about[2])

    event.listen(engine(run.settings.state_database), "before_cursor_execute", note)

    async def follow(count: int) -> None:
        broadcaster = broadcast.Broadcaster(lambda: run.settings)
        streams = [asyncio.create_task(collect(broadcaster, run, run.sequence)) for _ in range(count)]
        first = run.sequence + 1
        while (feed := broadcaster.feeds.get(run.run_id)) is None or feed.followers < count:
            await asyncio.sleep(0.01)
        asked.clear()
        began = time.monotonic()
        for number in range(1, 4):
            await asyncio.to_thread(run.iterate, number, number)
            while feed.head < run.sequence:
                await asyncio.sleep(0.01)
        looks = [query for query in asked if "sequence >" in query]
        assert 1 <= len(looks) <= (time.monotonic() - began) / broadcast.POLL_S + 2
        if count == 100:
            await asyncio.to_thread(run.add, ("finished", FINISHED))
            assert await asyncio.gather(*streams) == [list(range(first, first + 4))] * count
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)

    asyncio.run(follow(1))
    asyncio.run(follow(100))


def test_streams_behind_by_any_number_get_every_event_once(broadcast: Any, run: OpenRun) -> None:
    """More events than are kept in memory, followed from several places while new ones come."""
    run.iterate(1, 1200)

    async def follow() -> None:
        broadcaster = broadcast.Broadcaster(lambda: run.settings)
        starts = (0, 1, 499, 700, 1202, 1203, 5000)
        streams = [asyncio.create_task(collect(broadcaster, run, after)) for after in starts]
        while (feed := broadcaster.feeds.get(run.run_id)) is None:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(run.iterate, 1201, 1800)
        while feed.head < run.sequence:
            await asyncio.sleep(0.01)
        assert len(feed.recent) == broadcast.KEPT, "a long run takes no more memory than a short one"
        for number in range(1801, 1803):
            await asyncio.to_thread(run.iterate, number, number)
            await asyncio.sleep(0.3)
        await asyncio.to_thread(run.add, ("cancelled", {}))
        found = await asyncio.gather(*streams)
        assert not broadcaster.feeds, "nothing is kept of a run that nobody follows"
        assert found == [list(range(after + 1, 1807)) for after in starts]

    asyncio.run(follow())


def test_streams_go_on_when_the_database_is_back(
    broadcast: Any, run: OpenRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a run and of alerts: what is recorded later arrives, and the trouble is told once, not at every look."""
    from mlops_api import alert_feed

    monkeypatch.setattr(broadcast, "POLL_S", 0.05)
    monkeypatch.setattr(alert_feed, "POLL_S", 0.05)

    def told() -> list[str]:
        said = [record.getMessage().partition(" cannot be read")[0] for record in caplog.records]
        return sorted(each for each in said if each.startswith("new "))

    async def first_alert(feed: Any) -> str:
        with feed.follow():
            async for message in feed.messages(0):
                return json.loads(message.text)["kind"]
        raise AssertionError("the stream has ended")

    async def follow() -> None:
        broadcaster, feed = broadcast.Broadcaster(lambda: run.settings), alert_feed.AlertFeed(lambda: run.settings)
        before = feed._news
        streams = [asyncio.create_task(collect(broadcaster, run, run.sequence)), asyncio.create_task(first_alert(feed))]
        while not (run.run_id in broadcaster.feeds and feed._news is not before and feed._news._waiters):
            await asyncio.sleep(0.01)
        with without_state_database(run.settings):
            while len(told()) < 2:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # several looks more
        await asyncio.to_thread(run.add, ("cancelled", {}))
        await asyncio.to_thread(raise_alert, run.settings, kind="leak_found", subject="f1", message="it knows")
        assert await asyncio.wait_for(asyncio.gather(*streams), 30) == [[run.sequence], "leak_found"]

    asyncio.run(follow())
    assert told() == ["new events of alerts", "new training events"]


LIMITS = {"total": 2, "idle_s": 0.4, "lifetime_s": 4.0}
LASTING = """
import asyncio, json, sys
from mlops_tasks.config import PROJECT
sys.path.insert(0, str(PROJECT / "plugins"))
from mlops_api import stream, stream_limits
from mlops_api.broadcast import Message
from mlops_tasks.errors import StoreError
from starlette.exceptions import WebSocketException

stream.ADMISSION_S = stream_limits.ADMISSION_S = 0.3
stream.CLOSE_S, stream_limits.REMEMBERED = 0.2, 2
revoked, asked = set(), []

async def user_of(token):
    asked.append(token)
    if token in revoked:
        raise WebSocketException(1008, "the token is not valid any more")
    return token

stream_limits.user_who_may_see = user_of  # Airflow's own answer

class Silent:
    def __init__(self, user):
        self.headers, self.cookies, self.sent = {"authorization": f"Bearer {user}"}, {}, 0

    async def receive(self):
        await asyncio.Event().wait()

    async def send_text(self, text):
        self.sent += 1

    async def send_denial_response(self, answer):
        self.denied = [answer.status_code, answer.body.decode()]

class Deaf:
    # A client that never takes the reason why it is closed.
    def __init__(self):
        self.transport, self.aborted = self, asyncio.Event()

    async def _receive(self):
        await asyncio.Event().wait()

    async def close(self, code, reason):
        await asyncio.Event().wait()

    def abort(self):
        self.aborted.set()

async def quiet(after):
    await asyncio.Event().wait()
    yield

async def busy(after):
    while True:
        await asyncio.sleep(0.05)
        after += 1
        yield Message(after, False, "")

async def broken(after):
    raise StoreError("no database at postgresql://ann:secret@db/x")
    yield

async def ended(user, messages):
    async with asyncio.timeout(30):
        return await stream.Stream(Silent(user), messages, 0).run()

async def places():
    made = [stream.limits.place(Silent(user)) for user in ("ann", "bob", "eve")]
    for place in made[:2]:
        await place.__aenter__()
    refused = []
    try:
        await made[2].__aenter__()
    except stream_limits.TooManyStreamsError as error:
        refused = [error.status, str(error)]
    for place in made[:2]:
        await place.__aexit__(None, None, None)
    async with stream.limits.place(Silent("eve")), stream.limits.place(Silent("eve")):
        return [*refused, list(asked), len(stream.limits._admitted)]

async def refused():
    silent = Silent("ann")
    await stream.stream_events(silent, "a-run")
    return silent.denied

async def cut_off():
    deaf = Deaf()
    await stream._close(deaf, stream.TOO_QUIET)
    async with asyncio.timeout(30):
        return await deaf.aborted.wait()

async def main():
    found = {"places": await places(), "quiet": await ended("ann", quiet), "busy": await ended("ann", busy)}
    found |= {"broken": await ended("ann", broken), "refused": await refused(), "deaf": await cut_off()}
    asyncio.get_running_loop().call_later(0.5, revoked.add, "joe")
    found["revoked"] = await ended("joe", busy)
    return found

print(json.dumps(asyncio.run(main())))
"""


def test_no_stream_lasts_for_ever_and_there_are_only_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is refused whoever asks, before anything is looked up, until a place is free; a user's token is
    looked up once for all streams, and not remembered for ever. A quiet run's stream ends, a busy one's too in the end,
    that of a user who may not see any more at the next look, and one whose events cannot be read. Without a database
    none begins, and who does not take the reason is cut off."""
    (tmp_path / "settings.yaml").write_text(json.dumps({"streams": LIMITS}))
    monkeypatch.setenv("MLOPS_STATE_URL", "postgresql+psycopg2://ann:secret@127.0.0.1:1/x")
    found = in_airflow(tmp_path, LASTING)
    status, said, asked, remembered = found["places"]
    assert (status, said) == (503, "2 streams are open; ask for events instead, or try again later")
    assert asked == ["ann", "bob", "eve"] and remembered == 2
    assert found["broken"] == [1011, "events cannot be read; connect again later"]
    assert found["refused"] == [503, '{"detail":"the state database does not answer; ask again later"}']
    assert found["deaf"]
    assert found["quiet"] == [1013, "nothing has happened for a long time; connect again"]
    assert found["busy"] == [1013, "the stream has lasted long enough; connect again"]
    assert found["revoked"] == [1008, "the token is not valid any more"]
