"""Callbacks on a finished sync: each is told once of every version that comes into use, whatever happens to it."""

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from mlops_tasks.config import FeatureSettings, Settings, load_settings
from mlops_tasks.data import callbacks
from mlops_tasks.data.callbacks import FinishedSync, forget, on_finished_sync, tell_callbacks
from mlops_tasks.data.vintages import current_version, publish
from mlops_tasks.errors import ConfigError, StageError
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import read_json
from mlops_tasks.process import run_stage
from mlops_tasks.state.history import newest_alerts
from tests.data.market import make_bars, save, sync

LISTENER = "tests.data.listener:listen"
DAYS = sorted(make_bars()["Date"].unique())

told: list[FinishedSync] = []
"""What `note` was called with."""

BROKEN: list[str] = []
"""While it holds a reason, `fragile` raises."""


def note(finished: FinishedSync) -> None:
    """Remember the call; the version is in use by then."""
    assert current_version(finished.settings) == finished.data_version
    told.append(finished)


def fragile(finished: FinishedSync) -> None:
    """Fail as long as it is broken."""
    if BROKEN:
        raise RuntimeError(BROKEN[0])
    note(finished)


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    """Each test begins and ends without callbacks."""
    told.clear()
    BROKEN.clear()
    yield
    for function in list(callbacks._registered.values()):
        forget(function)


def sync_until(day: str, folder: Path, bars: pd.DataFrame | None = None) -> str:
    """Sync the bars up to a day; the data version."""
    frame = make_bars() if bars is None else bars
    return str(sync(save(frame[frame["Date"] <= day], folder / f"{day}.parquet"))["data_version"])


def calls() -> list[tuple[str, str | None]]:
    """The versions that were told, each with the one before it."""
    return [(each.data_version, each.previous_version) for each in told]


def test_each_version_that_comes_into_use_is_told_once(home: Path, tmp_path: Path) -> None:
    """A new version is told with the one before; the same bars again are not; a return to older bars is."""
    on_finished_sync(note)
    old = sync_until(DAYS[-2], tmp_path)
    assert sync_until(DAYS[-2], tmp_path) == old
    new = sync_until(DAYS[-1], tmp_path)
    assert calls() == [(old, None), (new, old)]
    assert [each.last_date for each in told] == DAYS[-2:]
    publish_again(home, old)
    assert calls()[2:] == [(old, new)]


def publish_again(home: Path, data_version: str) -> None:
    """Bring an older version back into use, which the policy would block."""
    publish(Settings(home=home), data_version)
    assert tell_callbacks(Settings(home=home)) == {}


def test_the_difference_is_what_changed_since_the_last_version(home: Path, tmp_path: Path) -> None:
    """One planted restatement is told as that cell, new days as appended; the first version differs from nothing."""
    on_finished_sync(note)
    bars = make_bars()
    sync_until(DAYS[-3], tmp_path)
    restated = bars.copy()
    restated.loc[10, "Close"] *= 1.001
    sync_until(DAYS[-1], tmp_path, restated)
    first, second = told
    assert first.difference() is None
    difference = second.difference()
    assert difference is not None
    (cell,) = difference.changes.to_dict("records")
    assert (cell["instrument"], cell["field"], str(cell["date"])[:10]) == ("S00", "close", DAYS[10])
    assert difference.summary()["rows"]["appended"] == 8
    assert second.vintage().rows == 120


def test_a_failing_callback_undoes_nothing_and_is_called_until_it_succeeds(home: Path, tmp_path: Path) -> None:
    """The others are called, the version is in use, people are told once; later syncs call the failed one again, which
    then learns all that it missed."""
    on_finished_sync(fragile)
    on_finished_sync(note)
    first = sync_until(DAYS[-3], tmp_path)
    BROKEN.append("the disk of the consumer is full")
    second = sync_until(DAYS[-2], tmp_path)
    assert sync_until(DAYS[-2], tmp_path) == second == current_version(Settings(home=home))
    assert calls() == [(first, None), (first, None), (second, first)]
    (alert,) = newest_alerts(Settings(home=home), 5)
    assert (alert.kind, alert.subject) == ("callback_failed", "tests.data.test_callbacks:fragile")
    assert f"{second} is in use" in alert.message and "the disk of the consumer is full" in alert.message
    assert "every further sync calls it again" in alert.message
    third = sync_until(DAYS[-1], tmp_path)
    BROKEN.clear()
    assert sync_until(DAYS[-1], tmp_path) == third
    assert calls()[3:] == [(third, second), (third, first)]
    sync_until(DAYS[-1], tmp_path)
    assert len(told) == 5


def test_order_and_names(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the settings come first, then the registered ones in order; one in both is called once, one defined
    again in its new form, and one taken back not at all."""
    order: list[str] = []

    def define(name: str, text: str) -> callbacks.Callback:
        def function(finished: FinishedSync) -> None:
            order.append(text)

        function.__qualname__ = name
        return on_finished_sync(function)

    for name, text in [("b", "old b"), ("a", "a"), ("b", "new b")]:
        define(name, text)
    forget(define("gone", "gone"))
    define("note", "note")
    monkeypatch.setenv("MLOPS_DATA__ON_SYNC", "tests.data.test_callbacks:fragile,tests.data.test_callbacks:note")
    monkeypatch.setattr(sys.modules[__name__], "fragile", lambda finished: order.append("fragile"))
    sync_until(DAYS[-1], tmp_path)
    assert order == ["fragile", "note", "new b", "a"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("tests.no_such_module:f", "No module named 'tests.no_such_module'"), ("tests.data.market:f", "no attribute 'f'")],
)
def test_a_wrong_name_is_told_and_keeps_nobody_waiting(
    name: str, said: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads nowhere is a failed callback: the alert says which and why."""
    monkeypatch.setenv("MLOPS_DATA__ON_SYNC", f"{name},tests.data.test_callbacks:note")
    version = sync_until(DAYS[-1], tmp_path)
    assert calls() == [(version, None)]
    (alert,) = newest_alerts(Settings(home=home), 5)
    assert alert.subject == name and said in alert.message


def test_what_is_no_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting without a colon, and a function that has no name to note deliveries by."""
    monkeypatch.setenv("MLOPS_DATA__ON_SYNC", "tests.data.test_callbacks.note")
    with pytest.raises(ConfigError, match=r"data\.on_sync"):
        load_settings()
    with pytest.raises(ConfigError, match="no stable name"):
        on_finished_sync(lambda finished: None)


def test_a_callback_that_syncs_is_told_so(home: Path, tmp_path: Path) -> None:
    """A sync inside a callback fails that callback at once, where waiting for itself would last for ever."""

    @on_finished_sync
    def sync_again(finished: FinishedSync) -> None:
        sync_until(DAYS[-1], tmp_path)

    on_finished_sync(note)
    old = sync_until(DAYS[-2], tmp_path)
    (alert,) = newest_alerts(Settings(home=home), 5)
    assert f"{old} is in use" in alert.message and "ran a sync of the same home" in alert.message
    assert calls() == [(current_version(Settings(home=home)), None)]


@pytest.fixture
def published(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A version in use that nobody was told of, and a callback that is named in the settings since."""
    version = sync_until(DAYS[-1], tmp_path)
    monkeypatch.setenv("MLOPS_DATA__ON_SYNC", LISTENER)
    return version


def publish_stage(version: str) -> None:
    """The last stage of a sync, in a process of its own as a task runs it."""
    run_stage("data.publish_vintage", {"data_version": version}, time_limit_s=120)


def test_a_callback_that_is_killed_is_called_again(home: Path, published: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is in use all the same; the stage's next try calls it again, and further ones do not."""
    monkeypatch.setenv("KILLED_IN", published)
    with pytest.raises(StageError, match=f"exit status {-signal.SIGKILL}"):
        publish_stage(published)
    assert current_version(Settings(home=home)) == published
    monkeypatch.delenv("KILLED_IN")
    for _ in range(2):
        publish_stage(published)
    assert (home / "heard").read_text().splitlines() == [f"{published} None"] * 2
    assert read_json(home / "data" / "callbacks" / "delivered.json") == {LISTENER: published}


def test_two_syncs_at_once_tell_a_version_once(home: Path, published: str) -> None:
    """Whoever comes second waits and finds the delivery noted."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(publish_stage, [published, published]))
    assert (home / "heard").read_text().splitlines() == [f"{published} None"]


def test_features_can_be_computed_on_sync(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped callback brings the configured set of each vintage into the store, without Airflow."""
    monkeypatch.setenv("MLOPS_DATA__ON_SYNC", "mlops_tasks.features.tasks:compute_on_sync")
    versions = [sync_until(day, tmp_path) for day in DAYS[-2:]]
    store = FeatureStore(Settings(home=home))
    stored = [store.find(version, FeatureSettings().feature_set) for version in versions]
    assert [store.get(each).rows for each in stored if each] == [116, 120]
