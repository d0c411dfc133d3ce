"""Qlib's store: what Qlib reads back is the vintage."""

import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import BAR_FIELDS, CLOSE, DATETIME, FACTOR, INSTRUMENT, VOLUME, VWAP
from mlops_tasks.config import Settings
from mlops_tasks.data.qlib.files import feature_folder
from mlops_tasks.data.qlib.store import init_qlib, prune_stores, qlib_store_path, remember_store, write_qlib_store
from mlops_tasks.data.revisions.diff import diff_vintages
from mlops_tasks.data.vintages import Vintage, canonical_bars, publish, vintage_path, write_vintage
from mlops_tasks.errors import StoreError
from tests import programs
from tests.data.market import tree

DAYS = pd.bdate_range("2019-12-16", periods=25)


def vintage_with(settings: Settings, present: dict[str, list[int]], universe: pd.DataFrame | None = None) -> Vintage:
    """A vintage in which each instrument has bars on the given days (positions in DAYS), with a split in the middle."""
    rng = np.random.default_rng(5)
    rows = [(DAYS[day], name, day) for name, days in present.items() for day in days]
    frame = pd.DataFrame(rows, columns=[DATETIME, INSTRUMENT, "day"])
    prices = rng.uniform(5, 500, len(frame))
    fields = {name: prices * scale for name, scale in {"open": 1.0, "high": 1.1, "low": 0.9, "close": 1.01}.items()}
    fields |= {VOLUME: rng.integers(1, 10**9, len(frame)), VWAP: np.nan, FACTOR: np.where(frame["day"] > 12, 3.0, 1.0)}
    bars = canonical_bars(frame.assign(**fields))
    return write_vintage(settings, bars, universe, {"source": "test", "received": len(bars), "quarantined": 0})


def read_back(settings: Settings, vintage: Vintage, market: str = "all") -> pd.DataFrame:
    """Qlib's own reading of the store."""
    from qlib.data import D

    init_qlib(settings, vintage.data_version)
    fields = [name for name in BAR_FIELDS if name != VWAP]
    return D.features(D.instruments(market), [f"${name}" for name in fields]).set_axis(fields, axis=1)


def test_a_bin_is_start_index_then_values(tmp_path: Path) -> None:
    """The file is float32 little-endian: the first bar's place in the calendar, then a value a day, NaN in gaps."""
    settings = Settings(home=tmp_path)
    vintage = vintage_with(settings, {"A": list(range(10)), "B": [3, 4, 7]})
    folder = write_qlib_store(settings, vintage)
    content = np.fromfile(folder / "features" / "b" / "close.day.bin", dtype="<f4")
    close = vintage.adjusted_bars().query("instrument == 'B'")[CLOSE].to_numpy(dtype="float32")
    np.testing.assert_array_equal(content, np.array([3, close[0], close[1], np.nan, np.nan, close[2]], dtype="float32"))
    assert not (folder / "features" / "b" / "vwap.day.bin").exists()
    days = (folder / "calendars" / "day.txt").read_text().split()
    assert days == [str(day.date()) for day in DAYS[:10]]


def test_change_is_the_move_since_the_bar_before(tmp_path: Path) -> None:
    """Qlib's `$change` is close over the close of the bar before, over a suspension too; NaN for the first bar."""
    settings = Settings(home=tmp_path)
    vintage = vintage_with(settings, {"A": list(range(10)), "B": [3, 4, 7]})
    init_qlib(settings, vintage.data_version)
    from qlib.data import D

    found = D.features(["A", "B"], ["$change"])["$change"].dropna()
    closes = vintage.adjusted_bars().set_index([INSTRUMENT, DATETIME])[CLOSE].astype("float32").astype(float)
    expected = closes.groupby(level=0).pct_change().dropna()
    assert len(expected) == 11
    np.testing.assert_array_equal(found.reindex(expected.index), expected.astype("float32"))


def test_a_store_of_an_older_layout_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was right before its layout changed is neither read nor added to."""
    settings = Settings(home=tmp_path / "home")
    with monkeypatch.context() as before:
        before.setattr("mlops_tasks.data.qlib.store.LAYOUT", 1)
        first, second, third = three_days(settings)
        for vintage in (first, second):
            store = qlib_store_path(settings, vintage.data_version)
            for file in store.rglob("change.day.bin"):
                file.unlink()
            remember_store(settings, store)
    for vintage in (second, third):
        assert tree(write_qlib_store(settings, vintage)) == rebuilt(tmp_path / vintage.data_version, vintage)


def test_the_universe_is_point_in_time(tmp_path: Path) -> None:
    """Qlib's market `universe` yields rows of membership spells only, `all` every bar."""
    settings = Settings(home=tmp_path)
    spells = pd.DataFrame({INSTRUMENT: ["A", "A", "GONE"], "first_date": DAYS[[2, 8, 0]], "last_date": DAYS[[4, 9, 5]]})
    vintage = vintage_with(settings, {"A": list(range(12)), "B": [0, 1]}, spells)
    write_qlib_store(settings, vintage)
    features = read_back(settings, vintage, "universe")
    assert list(features.index) == [("A", DAYS[day]) for day in (2, 3, 4, 8, 9)]
    assert len(read_back(settings, vintage)) == 14


def test_writing_twice_changes_nothing(tmp_path: Path) -> None:
    """A store that is there is left as it is."""
    settings = Settings(home=tmp_path)
    vintage = vintage_with(settings, {"A": [0, 1, 2]})
    folder = write_qlib_store(settings, vintage)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert write_qlib_store(settings, vintage) == folder == qlib_store_path(settings, vintage.data_version)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_a_store_that_is_missing_is_written_when_it_is_read(tmp_path: Path) -> None:
    """Stores are derived: Qlib is given the store of any vintage there is, and of no other."""
    settings = Settings(home=tmp_path)
    vintage = vintage_with(settings, {"A": [0, 1, 2]})
    assert read_back(settings, vintage).shape == (3, 6)
    with pytest.raises(StoreError, match=r"no complete vintage 0123"):
        init_qlib(settings, "0123")


def three_days(settings: Settings) -> list[Vintage]:
    """Vintages of one, two and three days with their diffs, stores of the first two, the second one in use."""
    bars = vintage_with(settings, {"A": [0, 1, 2], "B": [0, 1, 2]}).bars()
    cut = (bars[bars[DATETIME] <= day].reset_index(drop=True) for day in DAYS[:3])
    vintages = [write_vintage(settings, part, None, {}) for part in cut]
    for old, new in itertools.pairwise(vintages):
        assert diff_vintages(settings, old.data_version, new.data_version).append_only
    for vintage in vintages[:2]:
        write_qlib_store(settings, vintage)
        publish(settings, vintage.data_version)
    return vintages


def rebuilt(folder: Path, vintage: Vintage) -> dict[str, bytes]:
    """The files of the store that is written from nothing."""
    other = Settings(home=folder)
    shutil.copytree(vintage.path, vintage_path(other, vintage.data_version))
    return tree(write_qlib_store(other, vintage))


def test_an_older_store_becomes_the_new_one(tmp_path: Path) -> None:
    """The store before the one in use is moved, a day is added, and nothing tells it from a rebuilt one."""
    settings = Settings(home=tmp_path / "home")
    first, second, third = three_days(settings)
    file = qlib_store_path(settings, first.data_version) / "features" / "a" / "close.day.bin"
    inode = file.stat().st_ino
    store = write_qlib_store(settings, third)
    assert (store / "features" / "a" / "close.day.bin").stat().st_ino == inode
    assert not qlib_store_path(settings, first.data_version).exists()
    assert tree(qlib_store_path(settings, second.data_version)) == rebuilt(tmp_path / "second", second)
    assert tree(store) == rebuilt(tmp_path / "third", third)


@pytest.mark.parametrize(
    "damage",
    ["short file", "long file", "no file", "no folder", "no list", "strange list", "empty calendar", "no vintage"],
)
def test_a_torn_store_is_not_added_to(damage: str, tmp_path: Path) -> None:
    """Where an older store is not what it should be, the new one is written from its vintage."""
    settings = Settings(home=tmp_path / "home")
    first, _, third = three_days(settings)
    store = qlib_store_path(settings, first.data_version)
    file = store / "features" / "b" / "open.day.bin"
    if damage in {"short file", "long file"}:
        os.truncate(file, 4 if damage == "short file" else 12)
    elif damage == "no file":
        file.unlink()
    elif damage == "no folder":
        shutil.rmtree(file.parent)
    elif damage == "no list":
        (store / "instruments" / "all.txt").unlink()
    elif damage == "strange list":
        (store / "instruments" / "all.txt").write_text("A\t2001-01-01\t2001-01-01\n")
    elif damage == "empty calendar":
        (store / "calendars" / "day.txt").write_text("")
    else:
        shutil.rmtree(first.path)
    assert tree(write_qlib_store(settings, third)) == rebuilt(tmp_path / "rebuilt", third)
    assert not [path for path in store.parent.iterdir() if path.name.startswith(".")]


def test_a_store_that_is_read_is_neither_recycled_nor_removed(tmp_path: Path) -> None:
    """What a process reads through `init_qlib` stays as it is until that process ends; then it may go."""
    settings = Settings(home=tmp_path / "home")
    first, _, third = three_days(settings)
    store = qlib_store_path(settings, first.data_version)
    before = tree(store)
    code = (
        "from pathlib import Path; from mlops_tasks.config import Settings; "
        "from mlops_tasks.data.qlib.store import init_qlib; "
        f"init_qlib(Settings(home=Path({str(settings.home)!r})), {first.data_version!r}); "
        "print('reads', flush=True); input()"
    )
    reader = programs.start(code)
    assert reader.stdout is not None and reader.stdout.readline() == "reads\n"
    assert tree(write_qlib_store(settings, third)) == rebuilt(tmp_path / "third", third)
    publish(settings, third.data_version)
    os.utime(store / "calendars" / "day.txt", (0, 0))
    prune_stores(settings)
    assert tree(store) == before
    reader.kill()
    reader.communicate()
    prune_stores(settings)
    assert not store.exists()


def test_instruments_that_qlib_cannot_tell_apart_are_named(tmp_path: Path) -> None:
    """Two names that become one folder are refused, not mixed."""
    settings = Settings(home=tmp_path)
    with pytest.raises(StoreError, match=r"instruments AbC and aBc are the same folder to Qlib \(abc\): rename one"):
        write_qlib_store(settings, vintage_with(settings, {"AbC": [0, 1], "aBc": [0]}))
    assert not list((settings.data_dir / "qlib").iterdir())


def test_folder_names_are_those_that_qlib_derives() -> None:
    """Windows' device names get Qlib's prefix, everything is lower case."""
    from qlib.utils import code_to_fname

    for name in ("AAPL", "CON", "con", "COM1", "LPT9", "CONS", "nul", "SH600000"):
        assert feature_folder(name) == code_to_fname(name).lower()


def test_qlibs_recorder_writes_below_home(tmp_path: Path) -> None:
    """Qlib's recorder keeps a database below home and writes nothing into the working directory."""
    settings = Settings(home=tmp_path / "home")
    vintage = vintage_with(settings, {"A": [0, 1, 2]})
    write_qlib_store(settings, vintage)
    code = (
        "import os, sys; os.chdir(sys.argv[1]); "
        "from pathlib import Path; from mlops_tasks.config import Settings; "
        "from mlops_tasks.data.qlib.store import init_qlib; "
        f"init_qlib(Settings(home=Path({str(settings.home)!r})), {vintage.data_version!r}); "
        "from qlib.config import C; "
        "print(C.exp_manager['kwargs']['uri'], C.trade_unit, C.limit_threshold, C.deal_price)"
    )
    work = tmp_path / "work"
    work.mkdir()
    done = programs.run(code, work)
    assert done.stdout.split() == [f"sqlite:///{settings.home}/qlib/experiments.db", "1", "None", "close"]
    assert not list(work.iterdir())
