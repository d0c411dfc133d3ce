"""However many streams follow training runs, one reader asks the database, and no stream holds events of its own."""

import asyncio
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.state.database import engine
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
        for number in range(1201, 1204):
            await asyncio.to_thread(run.iterate, number, number)
            await asyncio.sleep(0.3)
        await asyncio.to_thread(run.add, ("cancelled", {}))
        found = await asyncio.gather(*streams)
        assert not broadcaster.feeds, "nothing is kept of a run that nobody follows"
        assert found == [list(range(after + 1, 1208)) for after in starts]

    asyncio.run(follow())
