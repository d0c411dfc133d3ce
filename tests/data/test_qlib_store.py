"""Qlib's store: what Qlib reads back is the vintage."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mlops_tasks.columns import BAR_FIELDS, CLOSE, DATETIME, FACTOR, INSTRUMENT, VOLUME, VWAP
from mlops_tasks.config import Settings
from mlops_tasks.data.qlib_files import feature_folder
from mlops_tasks.data.qlib_store import init_qlib, qlib_store_path, write_qlib_store
from mlops_tasks.data.vintages import Vintage, canonical_bars, write_vintage
from mlops_tasks.errors import StoreError

DAYS = pd.bdate_range("2019-12-16", periods=25)


def vintage_with(settings: Settings, present: dict[str, list[int]], universe: pd.DataFrame | None = None) -> Vintage:
    """A vintage in which each instrument has bars on the given days (positions in DAYS), with a split in the middle."""
    rng = np.random.default_rng(len(present))
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


def expected(vintage: Vintage) -> pd.DataFrame:
    return vintage.adjusted_bars().set_index([INSTRUMENT, DATETIME]).drop(columns=VWAP).astype("float32")


@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    present=st.dictionaries(
        st.sampled_from(["AAA", "brk.b", "^GSPC#2", "SH600000", "NA", "NAN", "CON", "nul", "TRUE", "0005"]),
        st.sets(st.integers(0, 24), min_size=1).map(sorted),
        min_size=1,
        max_size=6,
    )
)
def test_qlib_reads_the_vintage_back(tmp_path_factory: pytest.TempPathFactory, present: dict[str, list[int]]) -> None:
    """For any gaps, listings and names, Qlib's features equal the adjusted bars in float32, and are NaN elsewhere."""
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    vintage = vintage_with(settings, present)
    write_qlib_store(settings, vintage)
    features = read_back(settings, vintage)
    real = features[features[CLOSE].notna()]
    assert sorted(real.index.get_level_values(0).unique()) == sorted(present)
    truth = expected(vintage)
    aligned = real.reindex(truth.index)
    assert len(real) == len(truth)
    np.testing.assert_array_equal(aligned.to_numpy(), truth.to_numpy())


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
        "from pathlib import Path; from mlops_tasks.config import Settings; "
        "from mlops_tasks.data.qlib_store import init_qlib; "
        f"init_qlib(Settings(home=Path({str(settings.home)!r})), {vintage.data_version!r}); "
        "from qlib.config import C; "
        "print(C.exp_manager['kwargs']['uri'], C.trade_unit, C.limit_threshold, C.deal_price)"
    )
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run([sys.executable, "-c", code], cwd=work, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"sqlite:///{settings.home}/qlib/experiments.db", "1", "None", "close"]
    assert not list(work.iterdir())
