"""The vintage diff against planted edits."""

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mlops_tasks.columns import BAR_FIELDS, CLOSE, DATETIME, FACTOR, INSTRUMENT, PRICES, VOLUME, VWAP
from mlops_tasks.config import Settings
from mlops_tasks.data.revisions.diff import (
    CHANGES_FILE,
    PLOT_FILE,
    VintageDiff,
    diff_bars,
    diff_path,
    diff_vintages,
    find_diff,
    read_diff,
)
from mlops_tasks.data.vintages import Vintage, canonical_bars, write_vintage
from mlops_tasks.errors import StoreError
from tests.data.market import make_bars

LAST = pd.Timestamp("2020-01-23")
"""Last of the 30 days of `market()`."""
VENDOR_NAMES = {"Date": DATETIME, "Symbol": INSTRUMENT} | {name.capitalize(): name for name in (*PRICES, VOLUME)}


def market(days: int = 30, instruments: int = 4) -> pd.DataFrame:
    """Canonical bars of 30 sessions around a new year, without vwap; every tenth volume is missing."""
    bars = make_bars(days=days, instruments=instruments).rename(columns=VENDOR_NAMES)
    bars[VOLUME] = bars[VOLUME].where(np.arange(len(bars)) % 10 > 0)
    return canonical_bars(bars.assign(**{VWAP: np.nan, FACTOR: 1.0, DATETIME: pd.to_datetime(bars[DATETIME])}))


def changed(bars: pd.DataFrame, rows: Any, **fields: Any) -> pd.DataFrame:
    """A copy with some values of some rows replaced; a function is given the old ones."""
    copy = bars.copy()
    for name, value in fields.items():
        copy.loc[rows, name] = value(copy.loc[rows, name]) if callable(value) else value
    return copy


def times(ratio: float) -> Any:
    """Multiply by it."""
    return lambda values: values * ratio


def apply(old: pd.DataFrame, found: VintageDiff, appended: pd.DataFrame) -> pd.DataFrame:
    """The old bars with every listed change made, and the rows after their last day."""
    columns = ["date", INSTRUMENT, "field", "new", "class"]
    changes = found.changes[columns].astype({INSTRUMENT: "str", "field": "str", "class": "str"})
    gone = changes[changes["class"] == "removed"].drop_duplicates(["date", INSTRUMENT])
    cells = changes[changes["class"] != "removed"]
    long = old.melt([DATETIME, INSTRUMENT], list(BAR_FIELDS), "field").set_index([DATETIME, INSTRUMENT, "field"])
    new = cells.set_index(["date", INSTRUMENT, "field"])["new"]
    value = pd.concat([long["value"][~long.index.isin(new.index)], new])
    wide = value.unstack().reindex(columns=list(BAR_FIELDS))
    wide.index.names = [DATETIME, INSTRUMENT]
    kept = wide[~wide.index.isin(pd.MultiIndex.from_frame(gone[["date", INSTRUMENT]]))]
    return canonical_bars(pd.concat([kept.reset_index(), appended], ignore_index=True))


edits = st.lists(
    st.tuples(st.integers(0, 119), st.sampled_from(BAR_FIELDS), st.sampled_from([0.0, 1.5, 1e9, np.nan])),
    max_size=12,
    unique_by=lambda edit: edit[:2],
)


@hypothesis_settings(max_examples=40)
@given(
    edits=edits,
    removed=st.sets(st.integers(0, 119), max_size=5),
    missing=st.sets(st.integers(0, 119), max_size=5),
    later=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_a_diff_finds_exactly_what_was_planted_and_makes_the_new_from_the_old(
    edits: list[tuple[int, str, float]], removed: set[int], missing: set[int], later: int, seed: int
) -> None:
    """Each edit is listed with instrument, field, date, old and new, and nothing else is; applied, it gives the new."""
    whole = market(days=30 + later)
    past = whole[whole[DATETIME] <= LAST].reset_index(drop=True)
    old = past.drop(index=list(missing))
    new = past.drop(index=list(removed))
    expected = set()
    for row, field, value in edits:
        if row in removed or row in missing:
            continue
        before = new.loc[row, field]
        new.loc[row, field] = value
        if before != value and not (np.isnan(before) and np.isnan(value)):
            expected.add((new.loc[row, INSTRUMENT], field, new.loc[row, DATETIME], str(before), str(value)))
    appended = whole[whole[DATETIME] > LAST]
    vendor = pd.concat([new, appended], ignore_index=True).sample(frac=1, random_state=seed)
    last = old[DATETIME].max()
    found = diff_bars(old, canonical_bars(vendor))
    rows = found.changes[~found.changes["class"].isin(["added", "removed"])]
    told = {
        (str(one[INSTRUMENT]), str(one["field"]), pd.Timestamp(one["date"]), str(one["old"]), str(one["new"]))
        for one in rows.to_dict("records")
    }
    assert told == expected
    summary = found.summary()
    assert summary["rows"]["removed"] == len(removed - missing)
    assert summary["rows"]["added"] == len({r for r in missing - removed if past.loc[r, DATETIME] <= last})
    assert summary["append_only"] == found.changes.empty
    assert json.loads(json.dumps(summary)) == summary
    after = canonical_bars(vendor)
    pd.testing.assert_frame_equal(apply(old, found, after[after[DATETIME] > last]), after)


@hypothesis_settings(max_examples=20)
@given(seed=st.integers(0, 2**16))
def test_equal_bars_differ_in_nothing_whatever_their_order(seed: int) -> None:
    """A vintage against itself, shuffled or with another sign of zero, has no change."""
    bars = changed(market(), [3, 70], volume=0.0)
    other = canonical_bars(changed(bars, [3, 70], volume=-0.0).sample(frac=1, random_state=seed))
    found = diff_bars(bars, other)
    assert found.changes.empty and found.universe.empty and found.jumps.empty and found.append_only
    assert found.summary()["appended_from"] is None


CASES = {
    "a correction": ({"rows": [40], "close": times(1.01)}, {"restated": {"close"}}),
    "last digits": ({"rows": slice(None), "close": times(1 + 1e-8)}, {"rounded": {"close"}}),
    "volume in lots": ({"rows": slice(30, 59), "volume": times(0.01)}, {"scaled": {"volume"}}),
    "prices in cents": (
        {"rows": slice(30, 59)} | {name: times(100.0) for name in PRICES},
        {"scaled": set(PRICES)},
    ),
    "a new dividend, by factor": ({"rows": slice(30, 59), "factor": times(0.995)}, {"readjusted": {"factor"}}),
    "a late dividend, by factor": ({"rows": slice(30, 50), "factor": times(0.995)}, {"readjusted": {"factor"}}),
    "a split from its day on": ({"rows": slice(50, 59), "factor": times(2.0)}, {"readjusted": {"factor"}}),
    "a factor in the middle": ({"rows": slice(40, 50), "factor": times(0.995)}, {"refactored": {"factor"}}),
    "factors at will": (
        {"rows": slice(30, 59), "factor": lambda old: old * np.linspace(0.5, 2, len(old))},
        {"refactored": {"factor"}},
    ),
    "a split without a factor": (
        {"rows": slice(30, 59), "volume": times(2.0)} | {name: times(0.5) for name in PRICES},
        {"readjusted": {*PRICES, "volume"}},
    ),
    "rounded after a split": (
        {"rows": slice(30, 59)} | {name: lambda old: (old / 3).round(2) for name in PRICES},
        {"readjusted": set(PRICES)},
    ),
    "one price by a constant": ({"rows": slice(30, 59), "close": times(0.5)}, {"restated": {"close"}}),
    "noise": (
        {"rows": slice(30, 59)}
        | {name: lambda old: old * (1 + 0.002 * np.sin(np.arange(len(old)))) for name in PRICES},
        {"restated": set(PRICES), "rounded": set()},
    ),
    "a vwap at last": ({"rows": slice(None), "vwap": 5.0}, {"filled": {"vwap"}}),
    "a lost volume": ({"rows": [41], "volume": np.nan}, {"emptied": {"volume"}}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_change_is_named_by_what_makes_it(name: str) -> None:
    """Corrections, units, re-adjustments and noise are told apart."""
    fields, expected = CASES[name]
    rows = fields["rows"]
    old = market()
    found = diff_bars(old, changed(old, rows, **{k: v for k, v in fields.items() if k != "rows"}))
    classes = found.changes.groupby("class", observed=True)["field"].agg(set).to_dict()
    assert classes == {kind: names for kind, names in expected.items() if names}


def test_instruments_sharing_one_series_are_named() -> None:
    """Where a source writes one instrument's values into others, the summary names them, by field."""
    old = market(instruments=6)
    values = old.loc[old[INSTRUMENT] == "S00", CLOSE].to_numpy()
    victims = old[INSTRUMENT].isin(["S02", "S03", "S05"])
    summary = diff_bars(old, changed(old, victims, close=np.tile(values, 3))).summary()
    assert summary["shared_series"]["close"] == {"count": 3, "first": ["S02", "S03", "S05"]}
    assert summary["shared_series"]["volume"]["count"] == 0


def test_a_jump_that_was_none_is_named() -> None:
    """A move that the new vintage has and the old had not is told with its date; one that both have is not."""
    old = changed(market(), slice(10, 29), close=times(3.0))
    summary = diff_bars(old, changed(old, slice(48, 59), close=times(0.25))).summary()["jumps"]
    assert (summary["rows"], summary["instruments"]) == (1, 1)
    assert summary["days"][0]["date"] == str(old.loc[48, DATETIME].date())
    assert summary["days"][0]["median_move"] == pytest.approx(-0.75, abs=0.02)


def test_calendar_instruments_and_universe_of_the_past() -> None:
    """Trading days that came and went, instruments that came and went, and changed membership are counted and named."""
    old = market()
    day = old.loc[8, DATETIME]
    new = old[(old[DATETIME] != day) & (old[INSTRUMENT] != "S01")]
    saturday = pd.Timestamp("2019-12-14")
    new = canonical_bars(
        pd.concat([new, new[new[DATETIME] == LAST].assign(**{DATETIME: saturday}), _renamed(old, "S00", "NEW")])
    )
    spells = pd.DataFrame(
        {
            INSTRUMENT: ["S00", "S01", "S02", "S03"],
            "first_date": pd.to_datetime(["2019-12-10", "2019-12-10", "2019-12-20", "2020-02-01"]),
            "last_date": pd.to_datetime([LAST, LAST, LAST, "2020-03-01"]),
        }
    )
    after = spells.drop(index=1).assign(last_date=pd.to_datetime(["2099-12-31", "2020-01-10", "2020-04-01"]))
    found = diff_bars(old, new, (spells, after))
    summary = found.summary()
    assert summary["calendar"] == {
        "added": {"count": 1, "first": ["2019-12-14"]},
        "removed": {"count": 0, "first": []},
    }
    assert summary["instruments"]["added"]["first"] == ["NEW"]
    assert summary["instruments"]["removed"]["first"] == ["S01"]
    assert summary["rows"]["removed_with_instrument"] == 30
    assert summary["rows"]["removed"] == 30 + 3
    assert found.universe[[INSTRUMENT, "class"]].to_numpy().tolist() == [["S01", "removed"], ["S02", "changed"]]
    only_old = diff_bars(old, canonical_bars(old[old[DATETIME] != day])).summary()["calendar"]
    assert only_old["removed"] == {"count": 1, "first": [str(day.date())]}


def _renamed(bars: pd.DataFrame, name: str, into: str) -> pd.DataFrame:
    return bars[bars[INSTRUMENT] == name].assign(**{INSTRUMENT: into})


def test_new_days_and_new_instruments_are_appended() -> None:
    """Later days, and an instrument that begins in them, leave the past alone; coverage names who is missing."""
    whole = market(days=32, instruments=12)
    old = whole[whole[DATETIME] <= LAST].reset_index(drop=True)
    late = _renamed(whole[whole[DATETIME] > LAST], "S00", "NEW")
    absent = (whole[INSTRUMENT] == "S05") & (whole[DATETIME] == whole[DATETIME].max())
    found = diff_bars(old, canonical_bars(pd.concat([whole[~absent], late])))
    summary = found.summary()
    assert found.append_only and found.changes.empty
    assert (summary["appended_from"], summary["old_last_date"]) == ("2020-01-24", "2020-01-23")
    appended = summary["appended"]
    assert (appended["rows"], appended["instruments"], appended["days"]) == (25, 13, 2)
    assert appended["lowest_coverage"] == {
        "date": "2020-01-27",
        "share": pytest.approx(11 / 12),
        "expected": 12,
        "missing": 1,
        "first": ["S05"],
    }
    assert abs(appended["scale"]["close"]) < 0.1


def test_nobody_is_expected_on_a_holiday_of_its_exchange() -> None:
    """A day that is a session elsewhere only does not count as missing bars."""
    old = market(days=4, instruments=12)
    old = old.assign(**{DATETIME: old[DATETIME].map(dict(zip(old[DATETIME].unique(), US_DAYS, strict=True)))})
    shares = _renamed(old, "S00", "S00").assign(**{DATETIME: pd.Timestamp("2019-12-25")})
    found = diff_bars(old, canonical_bars(pd.concat([old, shares])), calendar="XNYS").summary()
    assert found["appended"]["lowest_coverage"]["share"] == 1.0
    every_day = diff_bars(old, canonical_bars(pd.concat([old, shares])), calendar="24/7").summary()
    assert every_day["appended"]["lowest_coverage"]["share"] == pytest.approx(1 / 12)


US_DAYS = pd.to_datetime(["2019-12-19", "2019-12-20", "2019-12-23", "2019-12-24"])


def test_a_changed_unit_of_new_days_shows_in_their_scale() -> None:
    """Volume in lots from one day on is a median ratio of 10^-2."""
    whole = market(days=31, instruments=20)
    old = whole[whole[DATETIME] <= LAST].reset_index(drop=True)
    scale = diff_bars(old, changed(whole, whole[DATETIME] > LAST, volume=times(0.01))).summary()["appended"]["scale"]
    assert scale["volume"] == pytest.approx(-2, abs=0.3)
    assert scale["close"] == pytest.approx(0, abs=0.1)


def test_different_markets_are_not_compared() -> None:
    """With no instrument in common nothing is listed, however many rows there are."""
    old = market()
    new = old.assign(**{INSTRUMENT: "X" + old[INSTRUMENT]})
    found = diff_bars(old, new)
    assert not found.summary()["same_market"] and not found.append_only and found.changes.empty


def write(settings: Settings, bars: pd.DataFrame) -> Vintage:
    """A vintage of canonical bars."""
    return write_vintage(settings, bars, None, {"source": "planted"})


def test_years_that_are_equal_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the vintages of two days the bars of the year before are not looked at."""
    settings = Settings(home=tmp_path)
    whole = market(days=32)
    old, new = write(settings, whole[whole[DATETIME] <= LAST]), write(settings, whole)
    read, years = Vintage.bars, []
    monkeypatch.setattr(
        Vintage, "bars", lambda self, *a, start=None, **k: (years.append(start), read(self, *a, start=start, **k))[1]
    )
    found = diff_vintages(settings, old.data_version, new.data_version)
    assert years and {str(start)[:4] for start in years} == {"2020"}
    assert found.append_only
    assert (found.summary()["rows"]["common"], found.summary()["rows"]["appended"]) == (120, 8)


def test_a_diff_is_found_again(tmp_path: Path) -> None:
    """What was found is kept beside its summary and a plot, and read back as it was, the bars not looked at again."""
    settings = Settings(home=tmp_path)
    old, new = write(settings, market()), write(settings, changed(market(), [25, 40], close=times(1.1)))
    found = diff_vintages(settings, old.data_version, new.data_version)
    in_memory = diff_bars(old.bars(), new.bars()).changes
    pd.testing.assert_frame_equal(found.changes.astype("str"), in_memory.astype("str"))
    assert (diff_path(settings, old.data_version, new.data_version) / PLOT_FILE).read_bytes().startswith(b"\x89PNG")
    for path in [*old.path.rglob("*.parquet"), *new.path.rglob("*.parquet")]:
        path.write_bytes(b"damaged")
    again = diff_vintages(settings, old.data_version, new.data_version)
    assert again.summary() == found.summary() == read_diff(settings, old.data_version, new.data_version)
    pd.testing.assert_frame_equal(again.changes.astype("str"), found.changes.astype("str"))
    assert find_diff(settings, new.data_version, old.data_version) is None
    assert read_diff(settings, new.data_version, old.data_version) is None


def test_a_readjustment_through_years_is_one_even_where_equal_years_lie_before(tmp_path: Path) -> None:
    """Whether a ratio holds from the first row on is told over all years, read or not."""
    settings = Settings(home=tmp_path)
    bars = market()
    late = bars[~((bars[INSTRUMENT] == "S02") & (bars[DATETIME] < "2020-01-01"))]
    in_2020 = (late[INSTRUMENT] == "S02") & (late[DATETIME] < "2020-01-15")
    old = write(settings, late)
    new = write(settings, changed(late, in_2020, factor=0.98))
    assert set(diff_vintages(settings, old.data_version, new.data_version).changes["class"]) == {"readjusted"}
    other = (late[INSTRUMENT] == "S01") & late[DATETIME].between("2020-01-01", "2020-01-15")
    third = write(settings, changed(late, other, factor=0.98))
    assert set(diff_vintages(settings, old.data_version, third.data_version).changes["class"]) == {"refactored"}


def test_a_diff_that_finds_no_room_leaves_nothing(tmp_path: Path) -> None:
    """A full disk is a clear error, and no folder is left that a later run would take for a diff."""
    settings = Settings(home=tmp_path)
    old, new = write(settings, market()), write(settings, changed(market(), [3], close=1.0))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, before[1]))
    try:
        with pytest.raises(StoreError, match="no room to write"):
            diff_vintages(settings, old.data_version, new.data_version)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    folder = diff_path(settings, old.data_version, new.data_version)
    assert not list(folder.parent.iterdir())
    assert len(diff_vintages(settings, old.data_version, new.data_version).changes) == 1
    assert len(pd.read_parquet(folder / CHANGES_FILE)) == 1


def test_an_unknown_version_is_named(tmp_path: Path) -> None:
    """A version that is not on disk is an error that says how to get it."""
    settings = Settings(home=tmp_path)
    old = write(settings, market())
    with pytest.raises(StoreError, match="no complete vintage 0123"):
        diff_vintages(settings, old.data_version, "0123")
