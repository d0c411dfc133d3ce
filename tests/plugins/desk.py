"""A day of a desk in the home of the API server's tests, with texts that would be markup, and taken back afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage, write_vintage
from mlops_tasks.state.alerts import raise_alert
from mlops_tasks.state.alerts.handling import open_episodes, resolve
from tests.operation import bars
from tests.overview import desk
from tests.plugins.reports import EVIL

CHAMPION = 72
"""Numbers that no other test gives."""


@dataclass(frozen=True)
class Day:
    """What happened."""

    vintage: Vintage
    blocked: str
    """The data version that waits for an approval."""
    champion: int


@contextmanager
def happened(settings: Settings) -> Iterator[Day]:
    """A vintage, scores, a champion, the gate, drift, alerts and experiments, until the block ends."""
    vintage = desk.publish_bars(settings, source=f"vendor/{EVIL.replace('/', '')}")
    for version in (CHAMPION - 1, CHAMPION):
        desk.serve(settings, version, indexed=False)
    desk.score(settings, CHAMPION)
    desk.keep(settings, "k73", CHAMPION, f"its gain is not proven {EVIL}", wait={"days": 4, "next_day": "2026-02-06"})
    desk.drift(settings, CHAMPION, beyond=3)
    desk.experiment(settings, "desk_orders", "running")
    desk.experiment(settings, "desk_costs", "stopped")
    blocked = write_vintage(settings, bars(desk.DAYS[:-1], desk.NAMES), None, {"source": "s", "quarantined": 0})
    raise_alert(settings, kind="vintage_blocked", subject=blocked.data_version, message=f"it ends earlier {EVIL}")
    yield Day(vintage, blocked.data_version, CHAMPION)
    (settings.data_dir / "current.json").unlink()
    for episode in open_episodes(settings):
        resolve(settings, episode.key, "the tests")
