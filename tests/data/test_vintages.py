"""Vintages: the version is the content, and nothing else."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mlops_tasks.columns import BAR_FIELDS, CLOSE, DATETIME, FACTOR, INSTRUMENT, VOLUME
from mlops_tasks.config import DataSettings, Settings
from mlops_tasks.data.qlib.data_provider import QlibDataProvider
from mlops_tasks.data.sources import read_source
from mlops_tasks.data.sources.membership import FIRST_DATE, LAST_DATE
from mlops_tasks.data.vintages import (
    Vintage,
    canonical_bars,
    current_vintage,
    digest_years,
    load_vintage,
    own_spans,
    publish,
    version_of,
    write_vintage,
)
from mlops_tasks.errors import StoreError
from tests.data.market import make_bars, save


def vintage_of(folder: Path, bars: pd.DataFrame, universe: str | None = None) -> Vintage:
    """A vintage of vendor bars, with a membership file's text if there is one."""
    settings = Settings(home=folder / "home", data=DataSettings(allowed_folders=(str(folder),)))
    path = save(bars, folder / "source" / "bars.parquet")
    members = folder / "members.txt"
    if universe is not None:
        members.write_text(universe)
    parsed = read_source(settings, str(path), None if universe is None else str(members))
    provenance = {"source": str(path), "received": len(bars), "quarantined": 0}
    return write_vintage(settings, canonical_bars(parsed.frame), parsed.universe, provenance)


def version_in(folder: Path) -> str:
    """The data version of a source folder, nothing written."""
    frame = read_source(Settings(home=folder, data=DataSettings(source=str(folder))), str(folder), None).frame
    return version_of(digest_years(canonical_bars(frame)), "all")


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("Volume", "int64"),
        ("Volume", "float32"),
        ("Symbol", "category"),
        ("Date", "datetime64[ms]"),
        ("Date", "datetime64[ns]"),
    ],
)
def test_the_version_is_not_of_types_that_keep_the_values(column: str, kind: str, tmp_path: Path) -> None:
    """The same values in another type are the same bars."""
    save(make_bars(), tmp_path / "a" / "bars.parquet")
    save(make_bars().astype({column: kind}), tmp_path / "b" / "bars.parquet")
    assert version_in(tmp_path / "a") == version_in(tmp_path / "b")


def test_bars_come_back_as_they_were_written(tmp_path: Path) -> None:
    """Reading gives the canonical bars to the last bit, any slice of days and fields included."""
    bars = make_bars().assign(factor=2.0)
    bars.loc[3, "Volume"] = None
    vintage = vintage_of(tmp_path, bars.sample(frac=1, random_state=1))
    back = vintage.bars()
    pd.testing.assert_frame_equal(back, canonical_bars(back), check_exact=True)
    assert (vintage.rows, vintage.instruments, vintage.first_date) == (120, 4, "2019-12-10")
    np.testing.assert_array_equal(back[CLOSE], bars["Close"] / 2)
    part = vintage.bars([CLOSE], start="2019-12-30", end="2020-01-03")
    days = back[DATETIME].between("2019-12-30", "2020-01-03")
    pd.testing.assert_frame_equal(part, back.loc[days, [DATETIME, INSTRUMENT, CLOSE]].reset_index(drop=True))
    assert vintage.bars([CLOSE], start="2030-01-01", end="2030-02-01").empty
    adjusted = vintage.adjusted_bars()
    np.testing.assert_array_equal(adjusted[CLOSE], back[CLOSE] * 2)
    np.testing.assert_array_equal(adjusted[VOLUME], back[VOLUME] / 2)
    assert list(vintage.calendar()) == sorted(pd.to_datetime(bars["Date"]).unique())


def test_without_a_membership_every_instrument_belongs_from_first_to_last_bar(tmp_path: Path) -> None:
    """The default universe is each instrument's own span."""
    bars = make_bars()
    vintage = vintage_of(tmp_path, bars[~((bars["Symbol"] == "S02") & (bars["Date"] < "2020-01-01"))])
    spans = vintage.members().set_index(INSTRUMENT)
    assert spans.loc["S02", FIRST_DATE] == pd.Timestamp("2020-01-02")
    assert spans.loc["S00", FIRST_DATE] == pd.Timestamp("2019-12-10")
    pd.testing.assert_frame_equal(vintage.members(), own_spans(vintage.bars()))


@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spells=st.lists(
        st.tuples(st.sampled_from(["S00", "S01", "S03", "GONE"]), st.integers(-5, 40), st.integers(0, 20)),
        min_size=1,
        max_size=8,
    ).filter(lambda spells: any(name != "GONE" for name, *_ in spells))
)
def test_membership_is_that_of_the_spells(
    tmp_path_factory: pytest.TempPathFactory, spells: list[tuple[str, int, int]]
) -> None:
    """A pair is a member if and only if some spell covers its day, overlapping and repeated spells included."""
    folder = tmp_path_factory.mktemp("members")
    origin = pd.Timestamp("2019-12-10")
    dated = [(n, origin + pd.Timedelta(days=a), origin + pd.Timedelta(days=a + length)) for n, a, length in spells]
    text = "".join(f"{n}\t{a.date()}\t{b.date()}\n" for n, a, b in dated)
    vintage = vintage_of(folder, make_bars(), text)
    index = pd.MultiIndex.from_frame(vintage.bars()[[DATETIME, INSTRUMENT]])
    expected = [any(name == n and a <= day <= b for n, a, b in dated) for day, name in index]
    assert vintage.membership_mask(index).tolist() == expected
    assert vintage.membership_mask(index[::-3]).tolist() == expected[::-3]
    for since, until in ((0, 40), (3, 12), (-30, 90), (12, 3)):
        first, last = origin + pd.Timedelta(days=since), origin + pd.Timedelta(days=until)
        inside = [day for day in vintage.calendar() if first <= day <= last]
        known = [(a, b) for name, a, b in set(dated) if name != "GONE"]
        assert vintage.member_days(first, last) == sum(a <= day <= b for a, b in known for day in inside)
    assert "GONE" not in set(vintage.members()[INSTRUMENT])
    assert set(vintage.members()[LAST_DATE]) <= {b for _, _, b in dated}


def test_unchanged_years_have_the_same_bytes(tmp_path: Path) -> None:
    """A vintage with more days of the last year has byte-identical files for the years before."""
    bars = make_bars()
    older = vintage_of(tmp_path / "a", bars[bars["Date"] < "2020-01-10"])
    newer = vintage_of(tmp_path / "b", bars)
    one, two = (v.path / "bars" / "2019.parquet" for v in (older, newer))
    assert one.read_bytes() == two.read_bytes()
    assert older.data_version != newer.data_version
    assert older.manifest["years"]["2019"] == newer.manifest["years"]["2019"]


def test_a_vintage_comes_into_use_in_one_step(tmp_path: Path) -> None:
    """Publishing is the only thing that changes what is in use, and doing it twice changes nothing."""
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(StoreError, match="no vintage is in use yet; run sync_market_data"):
        current_vintage(settings)
    vintage = vintage_of(tmp_path, make_bars())
    with pytest.raises(StoreError, match="no vintage is in use yet"):
        current_vintage(settings)
    assert publish(settings, vintage.data_version)
    assert not publish(settings, vintage.data_version)
    assert current_vintage(settings).data_version == vintage.data_version


def test_an_unknown_version_is_named(tmp_path: Path) -> None:
    """A version that is not there is an error that says how to get it."""
    with pytest.raises(StoreError, match=r"no complete vintage 0123; restore it with .*alphaops checkout"):
        load_vintage(Settings(home=tmp_path), "0123")
    with pytest.raises(StoreError, match="no complete vintage"):
        publish(Settings(home=tmp_path), "0123")


def test_the_provider_gives_standard_frames(tmp_path: Path) -> None:
    """Frames are indexed by (datetime, instrument), sorted, adjusted or raw, of all instruments or members only."""
    bars = make_bars().assign(factor=4.0)
    vintage = vintage_of(tmp_path, bars, "S01\t2019-12-20\t2020-01-03\n")
    frame = QlibDataProvider(vintage).adjusted([CLOSE, VOLUME])
    assert frame.index.names == [DATETIME, INSTRUMENT] and frame.index.is_monotonic_increasing
    raw = QlibDataProvider(vintage).raw()
    assert tuple(raw.columns) == BAR_FIELDS
    np.testing.assert_array_equal(frame[CLOSE], raw[CLOSE] * raw[FACTOR])
    members = QlibDataProvider(vintage, "members").raw([CLOSE])
    assert set(members.index.get_level_values(INSTRUMENT)) == {"S01"}
    assert members.index.get_level_values(DATETIME).min() == pd.Timestamp("2019-12-20")


def test_importing_vintages_is_cheap() -> None:
    """Neither Qlib, DVC, Great Expectations nor the exchange calendars are imported with the vintages."""
    code = "import sys, mlops_tasks.data.vintages; print(*sys.modules)"
    modules = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not modules & {"qlib", "dvc", "great_expectations", "exchange_calendars", "mlflow", "torch"}
