"""However many streams follow training runs, one reader asks the database, no stream holds events of its own or lasts
for ever, there are only so many, and a database that goes away for a while ends none that waits."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
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


async def frames(broadcaster: Any, topic: str, after: int) -> AsyncIterator[Any]:
    """What a stream is sent of a topic, up to the end."""
    news = asyncio.Event()
    feed = await broadcaster.follow(topic, news)
    try:
        while True:
            news.clear()
            frame = await broadcaster.frame(feed, after)
            if frame is not None:
                yield frame
                after = frame.last
            if feed.ended if frame is None else frame.ended:
                return
            if frame is None:
                await news.wait()
    finally:
        broadcaster.leave(feed, news)


async def collect(broadcaster: Any, run: OpenRun, after: int) -> list[int]:
    """Numbers of a stream's events up to the end."""
    found = [json.loads(frame.text) async for frame in frames(broadcaster, topic_of(run), after)]
    return [event["sequence"] for message in found for event in message["events"]]


def topic_of(run: OpenRun) -> str:
    """The topic of a run."""
    return f"runs/{run.run_id}"


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
        while (feed := broadcaster.feeds.get(topic_of(run))) is None or len(feed.followers) < count:
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
        asked.clear()
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
        while (feed := broadcaster.feeds.get(topic_of(run))) is None:
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
    monkeypatch.setattr(broadcast, "POLL_S", 0.05)

    async def first_alert(broadcaster: Any) -> str:
        async for frame in frames(broadcaster, "alerts", 0):
            kind: str = json.loads(frame.text)["events"][0]["kind"]
            return kind
        raise AssertionError("the stream has ended")

    async def follow() -> None:
        broadcaster = broadcast.Broadcaster(lambda: run.settings)
        streams = [asyncio.create_task(collect(broadcaster, run, run.sequence))]
        streams += [asyncio.create_task(first_alert(broadcaster))]  # type: ignore[arg-type]
        while {topic_of(run), "alerts"} - broadcaster.feeds.keys():
            await asyncio.sleep(0.01)
        with without_state_database(run.settings):
            while not caplog.records:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # several looks more
        await asyncio.to_thread(run.add, ("cancelled", {}))
        await asyncio.to_thread(raise_alert, run.settings, kind="leak_found", subject="f1", message="it knows")
        assert await asyncio.wait_for(asyncio.gather(*streams), 30) == [[run.sequence], "leak_found"]

    asyncio.run(follow())
    said = [record.getMessage().partition(" cannot be read")[0] for record in caplog.records]
    assert [each for each in said if each.startswith("new ")] == ["new events"]


def test_a_database_at_rest_is_not_asked(broadcast: Any, run: OpenRun) -> None:
    """Where nothing was written there is nothing new; what is written then comes all the same, whichever topic opened
    meanwhile."""
    asked: list[str] = []

    def note(*about: Any) -> None:
        asked.append(about[2])

    async def follow() -> None:
        broadcaster = broadcast.Broadcaster(lambda: run.settings)
        for _ in range(3):
            stream = asyncio.create_task(collect(broadcaster, run, run.sequence))
            await asyncio.sleep(0.6)
            asked.clear()
            await asyncio.sleep(5 * broadcast.POLL_S)
            assert asked == []
            await asyncio.to_thread(run.iterate, 1, 1)
            while broadcaster.feeds[topic_of(run)].head < run.sequence:
                await asyncio.sleep(0.01)
            stream.cancel()
            await asyncio.gather(stream, return_exceptions=True)

    event.listen(engine(run.settings.state_database), "before_cursor_execute", note)
    asyncio.run(asyncio.wait_for(follow(), 60))


def test_streams_at_one_number_share_a_text_of_bounded_length(broadcast: Any, run: OpenRun) -> None:
    """However long events are, a message with several is not longer than it may be."""
    run.add(*(("warning", {"explanation": "x" * 100_000}) for _ in range(8)))

    async def follow() -> None:
        broadcaster = broadcast.Broadcaster(lambda: run.settings)
        feed = await broadcaster.follow(topic_of(run), asyncio.Event())
        await asyncio.to_thread(run.add, *(("warning", {"explanation": "x" * 100_000}) for _ in range(8)))
        while feed.head < run.sequence:
            await asyncio.sleep(0.01)
        for after in (3, run.sequence - 8):  # one that is read from the database, and one from memory
            found = []
            async for frame in frames(broadcaster, topic_of(run), after):
                assert len(frame.text) < 300_000
                found += [event["sequence"] for event in json.loads(frame.text)["events"]]
                if frame.last == run.sequence:
                    break
            assert found == list(range(after + 1, run.sequence + 1))
        assert feed.frame(run.sequence - 1) is feed.frame(run.sequence - 1)

    asyncio.run(follow())


LIMITS = {"total": 2, "idle_s": 0.4, "lifetime_s": 4.0, "heartbeat_s": 0.25, "send_timeout_s": 0.2}
LASTING = """
import asyncio, json, sys
from mlops_tasks.config import PROJECT
sys.path.insert(0, str(PROJECT / "plugins"))
from mlops_api import broadcast, connection, stream, stream_limits
from mlops_api.messages.stream import Frame
from mlops_tasks.errors import StoreError
from starlette.exceptions import WebSocketException

connection.ADMISSION_S = stream_limits.ADMISSION_S = 0.3
stream_limits.REMEMBERED = 2
revoked, asked = set(), []

async def user_of(token):
    asked.append(token)
    if token in revoked:
        raise WebSocketException(1008, "the token is not valid any more")
    return token

stream_limits.user_who_may_see = user_of  # Airflow's own answer

class Silent:
    def __init__(self, user):
        self.headers, self.cookies, self.sent = {"authorization": f"Bearer {user}"}, {}, []
        self.says = [json.dumps({"type": "subscribe", "topic": "alerts"})]

    async def receive(self):
        if self.says:
            return {"type": "websocket.receive", "text": self.says.pop()}
        await asyncio.Event().wait()

    async def send_text(self, text):
        self.sent.append(json.loads(text)["type"])

class Stuck(Silent):
    async def send_text(self, text):
        await asyncio.Event().wait()

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

class Broadcaster:
    feed = broadcast.Feed("alerts", 0, False)

    async def follow(self, topic, follower):
        return self.feed

    def leave(self, feed, follower):
        pass

class Quiet(Broadcaster):
    async def frame(self, feed, after):
        return None

class Busy(Broadcaster):
    async def frame(self, feed, after):
        await asyncio.sleep(0.05)
        return Frame(after + 1, False, '{"type": "events"}')

class Broken(Broadcaster):
    async def frame(self, feed, after):
        raise StoreError("no database at postgresql://ann:secret@db/x")

async def ended(silent, broadcaster):
    async with asyncio.timeout(30):
        most = stream.settings().streams
        return await connection.Connection(silent, broadcaster, stream.limits, most).run()

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

async def cut_off():
    deaf = Deaf()
    await connection.close(deaf, connection.TOO_QUIET, 0.2)
    async with asyncio.timeout(30):
        return await deaf.aborted.wait()

async def main():
    ann = Silent("ann")
    found = {"places": await places(), "quiet": await ended(ann, Quiet()), "sent": ann.sent}
    found |= {"busy": await ended(Silent("ann"), Busy()), "broken": await ended(Silent("ann"), Broken())}
    found |= {"no database": await ended(Silent("ann"), stream.broadcaster), "stuck": await ended(Stuck("ann"), Busy())}
    found["deaf"] = await cut_off()
    asyncio.get_running_loop().call_later(0.5, revoked.add, "joe")
    found["revoked"] = await ended(Silent("joe"), Busy())
    return found

print(json.dumps(asyncio.run(main())))
"""


def test_no_stream_lasts_for_ever_and_there_are_only_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is refused whoever asks, before anything is looked up, until a place is free; a user's token is
    looked up once for all streams, and not remembered for ever. A quiet run's stream ends, a busy one's too in the end,
    that of a user who may not see any more at the next look, and one whose events cannot be read. Who reads nothing is
    told so, and who does not take the reason is cut off."""
    (tmp_path / "settings.yaml").write_text(json.dumps({"streams": LIMITS}))
    monkeypatch.setenv("MLOPS_STATE_URL", "postgresql+psycopg2://ann:secret@127.0.0.1:1/x")
    found = in_airflow(tmp_path, LASTING)
    status, said, asked, remembered = found["places"]
    assert (status, said) == (503, "2 streams are open; ask for events instead, or try again later")
    assert asked == ["ann", "bob", "eve"] and remembered == 2
    unreadable = [1011, "events cannot be read; connect again later"]
    assert found["broken"] == found["no database"] == unreadable
    assert found["stuck"] == [1008, "you read too slowly"]
    assert found["deaf"]
    assert found["quiet"] == [1013, "nothing has happened for a long time; connect again"]
    assert found["sent"][:2] == ["subscribed", "heartbeat"]
    assert found["busy"] == [1013, "the stream has lasted long enough; connect again"]
    assert found["revoked"] == [1008, "the token is not valid any more"]
