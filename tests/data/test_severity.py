"""A finding costs what it is about and no more; true events stay."""

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.cli import main
from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, INSTRUMENT, PRICES, VOLUME
from mlops_tasks.config import Settings
from mlops_tasks.data.exchanges.calendars import sessions
from mlops_tasks.data.tasks import read_source_task, validate_bars_task
from mlops_tasks.data.validation.expectations import load_suites
from mlops_tasks.data.validation.quarantine import quarantine_info, render_quarantine
from mlops_tasks.data.validation.releases import load_releases
from mlops_tasks.data.validation.rules import Rules, Validation, check_vintage, validate
from mlops_tasks.data.vintages import load_vintage
from mlops_tasks.errors import StoreError, VintageRejectedError
from tests.data.market import make_bars, parsed_frame, save, sync

RULES = Rules(load_suites())
DAYS, INSTRUMENTS = 120, 12
OHLC = ["Open", "High", "Low", "Close"]
QUARANTINE = Path("quarantine")


def market(days: int = DAYS, instruments: int = INSTRUMENTS, seed: int = 0) -> pd.DataFrame:
    """Good bars, parsed; row `i * days + d` is day d of the i-th instrument."""
    return parsed_frame(make_bars(days=days, instruments=instruments, seed=seed))


def accepted(frame: pd.DataFrame, rules: Rules = RULES) -> Validation:
    """The validation of a frame that must become a vintage."""
    validation = validate(frame, rules)
    assert validation.received == int(validation.accepted.sum()) + validation.quarantined
    check_vintage(validation, rules, QUARANTINE)
    return validation


# Rows without a trade


def test_an_empty_row_of_tomorrow_opens_no_session(settings: Settings, tmp_path: Path) -> None:
    """The case: one instrument's row of the next session is blank. It alone is left out; the rest is published."""
    bars = make_bars(days=320, instruments=6, start="2023-01-03")
    tomorrow = sessions("XNYS", bars["Date"].max(), "2024-12-31")[1]
    blank = pd.DataFrame({"Date": [str(tomorrow)], "Symbol": ["S04"]})
    result = sync(save(pd.concat([bars, blank], ignore_index=True), tmp_path / "bars.csv"))
    assert (result["received"], result["quarantined"], result["rules"]) == (1921, 1, {"no_trade": 1})
    assert result["last_date"] == bars["Date"].max()


def blank_tomorrow_of_all(bars: pd.DataFrame) -> pd.DataFrame:
    day = str(sessions("XNYS", bars["Date"].max(), "2021-12-31")[1])
    return pd.concat([bars, pd.DataFrame({"Date": day, "Symbol": bars["Symbol"].unique()})], ignore_index=True)


def zero_tomorrow_of_most(bars: pd.DataFrame) -> pd.DataFrame:
    day = str(sessions("XNYS", bars["Date"].max(), "2021-12-31")[1])
    zeros = pd.DataFrame({"Date": day, "Symbol": bars["Symbol"].unique()[:9]}).assign(
        **dict.fromkeys(OHLC, 0), Volume=0
    )
    return pd.concat([bars, zeros], ignore_index=True)


def carried_tomorrow_of_all(bars: pd.DataFrame) -> pd.DataFrame:
    day = str(sessions("XNYS", bars["Date"].max(), "2021-12-31")[1])
    last = bars.groupby("Symbol")["Close"].last()
    flat = pd.DataFrame({"Date": day, "Symbol": last.index, "Volume": 0}).assign(
        **{name: last.to_numpy() for name in OHLC}
    )
    return pd.concat([bars, flat], ignore_index=True)


def blank_next_month(bars: pd.DataFrame) -> pd.DataFrame:
    days = sessions("XNYS", bars["Date"].max(), "2021-12-31")[1:23].astype(str)
    grid = pd.MultiIndex.from_product([days, bars["Symbol"].unique()], names=["Date", "Symbol"]).to_frame(index=False)
    return pd.concat([bars, grid.assign(Volume=0)], ignore_index=True)


def dense_grid_with_weekends(bars: pd.DataFrame) -> pd.DataFrame:
    """As a pivoted table is unpivoted: every day of the span for every name, blank without a trade."""
    days = pd.date_range(bars["Date"].min(), bars["Date"].max()).strftime("%Y-%m-%d")
    grid = pd.MultiIndex.from_product([bars["Symbol"].unique(), days], names=["Symbol", "Date"]).to_frame(index=False)
    late = (bars["Symbol"] == "S03") & (bars["Date"] < bars["Date"][60])
    return grid.merge(bars[~late], how="left", on=["Symbol", "Date"])


@pytest.mark.parametrize(
    "add",
    [
        blank_tomorrow_of_all,
        zero_tomorrow_of_most,
        carried_tomorrow_of_all,
        blank_next_month,
        dense_grid_with_weekends,
    ],
)
def test_rows_without_a_price_are_left_out_and_nothing_else(add: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """However many there are, every bar stays, and no session, gap or calendar comes of them."""
    bars = make_bars(days=DAYS, instruments=INSTRUMENTS)
    frame = parsed_frame(add(bars))
    validation = accepted(frame)
    priced = (frame[CLOSE] > 0) & (frame[VOLUME] > 0)
    assert (validation.accepted == priced).all() and set(validation.rules) == {"no_trade"}
    assert set(validation.warnings) == {"no_trade"}, "neither a gap nor a session"
    assert validation.measures.calendar_counts() == {"XNYS": INSTRUMENTS}


def test_one_halted_row_costs_that_row(settings: Settings, tmp_path: Path) -> None:
    """The case: open, high and low are 0, the close is carried on and nothing was traded."""
    bars = make_bars(days=320, instruments=4, start="2023-01-03")
    bars.loc[3 * 320 + 150, ["Open", "High", "Low", "Volume"]] = 0
    result = sync(save(bars, tmp_path / "bars.csv"))
    assert (result["received"], result["quarantined"], result["rules"]) == (1280, 1, {"no_trade": 1})


@pytest.mark.parametrize(
    "cells",
    [
        {"open": 0.0, "high": 0.0, "low": 0.0, VOLUME: 0.0},
        {"open": 0.0, "high": 0.0, "low": 0.0, CLOSE: 0.0, VOLUME: 0.0},
        {"open": np.nan, "high": np.nan, "low": np.nan, VOLUME: 0.0},
        {"open": 0.0, "high": 0.0, "low": 0.0, CLOSE: np.nan, VOLUME: np.nan},
        {"open": 0.0, "high": 0.0, "low": 0.0, VOLUME: np.nan},
    ],
)
@pytest.mark.parametrize("halted", [slice(30, 40), slice(10, 100), slice(90, 119)])
def test_a_long_halt_costs_its_days_and_not_the_instrument(cells: dict[str, float], halted: slice) -> None:
    """Written with zeros or blanks, in the middle, for most of its life or up to its end: every traded bar stays."""
    frame = market()
    frame.loc[halted, list(cells)] = list(cells.values())
    validation = accepted(frame, replace(RULES, max_rejected_share=0.0))
    count = halted.stop - halted.start + 1
    assert validation.rules == {"no_trade": count} and not validation.rejected_instruments
    assert not validation.accepted[halted.start : halted.stop + 1].any() and validation.quarantined == count


def test_flat_days_without_volume_are_bars_with_a_warning() -> None:
    """A suspension as A-share vendors write it is no finding about prices, and no session is incomplete for it."""
    frame = market()
    rows = [first + day for first in range(0, 8 * DAYS, DAYS) for day in range(40, 60)]
    for row in rows:
        frame.loc[row, [*PRICES]], frame.loc[row, VOLUME] = frame.loc[row - row % DAYS + 39, CLOSE], 0.0
    validation = accepted(frame)
    assert validation.quarantined == 0 and set(validation.warnings) == {"no_trades"}


def test_a_traded_row_with_a_zero_price_is_a_bad_row() -> None:
    """A volume says that there was a price: the row is bad, and counts."""
    frame = market()
    frame.loc[50, "low"] = 0.0
    validation = accepted(frame)
    assert validation.rules == {"low_positive": 1} and len(validation.bad_rows) == 1


# The end of an instrument


@pytest.mark.parametrize("tail", ["blank", "zero", "carried"])
@pytest.mark.parametrize("traded", [20, 60, 100])
def test_a_tail_after_the_last_trade_is_a_delisting(tail: str, traded: int) -> None:
    """The history up to the last trade stays; where the rows end is where the instrument ends."""
    frame = market()
    rows = slice(traded, DAYS - 1)
    if tail == "blank":
        frame.loc[rows, [*PRICES, VOLUME]] = np.nan
    elif tail == "zero":
        frame.loc[rows, [*PRICES, VOLUME]] = 0.0
    else:
        frame.loc[rows, [*PRICES]], frame.loc[rows, VOLUME] = frame.loc[traded - 1, CLOSE], 0.0
    validation = accepted(frame)
    kept = DAYS if tail == "carried" else traded
    assert validation.accepted[:DAYS].sum() == kept and validation.accepted[DAYS:].all()
    last = validation.measures.instruments["last_date"][0]
    assert last == frame[DATETIME][kept - 1]


# Subtractive adjustment


def subtracted(frame: pd.DataFrame, first: int, rows: int, below: float) -> None:
    """Lower an instrument's prices, so that its first `rows` rows are below zero."""
    instrument = slice(first, first + DAYS - 1)
    shift = frame.loc[first + rows - 1, "low"] + below
    frame.loc[first : first + rows - 1, list(PRICES)] -= shift + 10 * np.arange(rows)[::-1, None] / rows
    frame.loc[instrument, FACTOR] = 1.0


@pytest.mark.parametrize(("first", "rows"), [(0, 40), (0, 3), (5 * DAYS, 12), (11 * DAYS, 115)])
def test_prices_below_zero_cost_their_instrument_and_say_why(first: int, rows: int) -> None:
    """Few days or nearly all: the instrument alone goes, its rows are no bad rows, the adjustment is named."""
    frame = market()
    subtracted(frame, first, rows, 1.0)
    validation = accepted(frame, replace(RULES, max_rejected_share=0.0))
    name = frame[INSTRUMENT][first]
    assert set(validation.rejected_instruments) == {name}
    assert "subtractive_adjustment" in validation.rejected_instruments[name]
    (told,) = [line for line in validation.first_lines(["instrument"]) if "subtractive_adjustment" in line]
    assert f"instrument {name}: " in told and "the adjustment subtracts" in told and "below_zero=" in told


def test_the_case_below_zero_is_published_without_its_instrument(settings: Settings, tmp_path: Path) -> None:
    """The case: one of four instruments is below zero for 40 days; the other three are the vintage."""
    bars = make_bars(days=320, instruments=4, start="2023-01-03")
    bars["Symbol"] = bars["Symbol"].map({f"S0{i}": f"SH60000{9 if i == 3 else i}" for i in range(4)})
    bars.loc[960:999, OHLC] -= 80
    result = sync(save(bars, tmp_path / "bars.csv"))
    assert (result["received"], result["accepted"], result["quarantined"]) == (1280, 960, 320)
    assert load_vintage(settings, result["data_version"]).instrument_names() == ["SH600000", "SH600001", "SH600002"]


def test_one_cell_below_zero_is_a_bad_cell() -> None:
    """A sign in one cell, or a -1 for a missing one, says nothing about the adjustment."""
    frame = market()
    frame.loc[50, "low"] *= -1
    frame.loc[[51, 52], "open"] = -1.0
    validation = accepted(frame)
    assert {rule: validation.rules[rule] for rule in ("low_positive", "open_positive")} == {
        "low_positive": 1,
        "open_positive": 2,
    }
    assert validation.quarantined == 3 and not validation.rejected_instruments


# Keys


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("part", [slice(50, 50), slice(0, DAYS - 1), slice(0, INSTRUMENTS * DAYS - 1)])
def test_a_file_that_is_there_twice_changes_nothing(copies: int, part: slice) -> None:
    """Exact repeats of a row, an instrument or the whole panel are left out; the first ones stay as they were."""
    frame = market()
    frame.loc[::7, "vwap"] = np.nan
    whole = pd.concat([frame, *[frame.loc[part]] * copies], ignore_index=True)
    validation, plain = accepted(whole), accepted(frame)
    repeats = len(whole) - len(frame)
    assert validation.rules == {"repeated_row": repeats} == {k: v for k, v in validation.warnings.items() if v}
    assert validation.accepted[: len(frame)].all() and not validation.accepted[len(frame) :].any()
    pd.testing.assert_frame_equal(validation.measures.sessions, plain.measures.sessions)
    pd.testing.assert_frame_equal(validation.measures.rows[: len(frame)], plain.measures.rows, check_categorical=False)


def test_rivals_cost_both_rows_wherever_they_stand() -> None:
    """Another value of any field is a rival; a blank row of the same key is none."""
    frame = market()
    rivals = frame.loc[[50, 700]].assign(**{VOLUME: [1.0, 2.0]})
    blank = frame.loc[[90]].assign(**dict.fromkeys([*PRICES, VOLUME], np.nan))
    whole = pd.concat([rivals, frame, blank], ignore_index=True)
    validation = accepted(whole)
    assert validation.rules == {"unique_keys": 4, "no_trade": 1}
    assert set(np.flatnonzero(~validation.accepted)) == {0, 1, 52, 702, len(whole) - 1}


# Dates


@pytest.mark.parametrize("day", ["2042-03-04", "1970-01-01", "2021-01-15", "2019-01-02"])
def test_a_stray_date_costs_its_row(day: str) -> None:
    """A row years or months away from all others opens no session and stretches no calendar."""
    frame = market()
    frame.loc[50, DATETIME] = pd.Timestamp(day)
    validation = accepted(frame)
    assert validation.rules == {"stray_date": 1} and not validation.accepted[50]
    assert len(validation.measures.sessions) == DAYS


def test_a_history_that_goes_on_after_years_is_no_stray_date() -> None:
    """Two stretches of one instrument, and a panel of one, are what they are."""
    frame = market(instruments=1)
    frame.loc[:59, DATETIME] -= pd.Timedelta(days=7 * 360)
    frame.loc[:59, DATETIME] = sessions("XNYS", frame[DATETIME][0], "2019-12-31")[:60]
    validation = accepted(frame)
    assert validation.quarantined == 0 and "gap" in validation.warnings


# Shares, and all at once


def test_a_bad_instrument_uses_up_no_share_of_the_rows() -> None:
    """A fifth of all rows is bad, all of one instrument of five: it costs the instrument."""
    frame = market(instruments=5)
    frame.loc[0 : DAYS - 1, "high"] = 1.0
    validation = accepted(frame)
    assert validation.rejected_instruments == {"S00": ["own_bad_rows"]} and len(validation.bad_rows) == 0


def test_every_reason_and_every_finding_is_told_at_once() -> None:
    """Bad rows, bad instruments, a bad newest session: one message names all of them, with remedies."""
    frame = market()
    frame.loc[range(50, 8 * DAYS, DAYS), "open"] = np.nan
    frame.loc[range(60, 8 * DAYS, DAYS), "high"] = 1.0
    for first in (9 * DAYS, 10 * DAYS):
        subtracted(frame, first, 5, 1.0)
    frame = frame.drop(index=range(DAYS - 1, 8 * DAYS, DAYS)).reset_index(drop=True)
    with pytest.raises(VintageRejectedError) as caught:
        check_vintage(validate(frame, RULES), RULES, QUARANTINE)
    told = str(caught.value)
    for words in (
        r"max_rejected_share allows 0\.50%",
        r"2 of 12 instruments \(16\.67%\)",
        "rule incomplete_session rejects the vintage",
        r"rule open_present: .*; remedy: .*; or: alphaops release --rule open_present --instrument S00",
        "rule high_not_below_low: ",
        r"instrument S09: rule subtractive_adjustment: .*the adjustment subtracts",
        r"session 2020-06-02 of XNYS: rule incomplete_session: ",
        "open_present 8",
    ):
        assert re.search(words, told), words


def test_holes_in_history_are_findings_of_that_history() -> None:
    """A session that nobody has, one that most lack and one whose rows are bad: warnings, or the rows of that day."""
    frame = market()
    frame.loc[range(30, 9 * DAYS, DAYS), "high"] = 1.0
    gone = [*range(50, INSTRUMENTS * DAYS, DAYS), *range(70, 9 * DAYS, DAYS)]
    validation = accepted(frame.drop(index=gone).reset_index(drop=True))
    assert validation.warnings["session_without_bars"] == 1 and validation.warnings["thin_session"] == 2
    assert validation.rules["high_not_below_low"] == 9 == validation.quarantined


def test_a_newest_session_of_bad_rows_is_unusable() -> None:
    """What is quarantined is missing: the vintage would end a day before its source."""
    frame = market()
    frame.loc[range(DAYS - 1, 9 * DAYS, DAYS), "high"] = 1.0
    validation = validate(frame, RULES)
    assert validation.fatal == {"incomplete_session": 1}


def test_dead_names_carried_on_for_weeks_are_no_newest_session() -> None:
    """All rows after the last trade repeat it at volume 0: the last traded session is the newest, and is judged."""
    frame = market()
    frame.loc[range(99, 9 * DAYS, DAYS), "high"] = 1.0
    for first in range(0, len(frame), DAYS):
        rows = slice(first + 100, first + DAYS - 1)
        frame.loc[rows, [*PRICES]], frame.loc[rows, VOLUME] = frame.loc[first + 98, CLOSE], 0.0
    validation = validate(frame, RULES)
    assert validation.rules["no_trade"] == 20 * INSTRUMENTS and validation.fatal == {"incomplete_session": 1}


def test_a_calendar_that_ended_long_ago_has_no_newest_session() -> None:
    """Ten instruments of another exchange ended in 2019, nine of them a day early: that is history."""
    frame = market()
    days = sessions("XSHG", "2019-01-02", "2019-10-31")[:DAYS]
    old = market(seed=1).assign(**{DATETIME: np.tile(days.astype("datetime64[ns]"), INSTRUMENTS)})
    old[INSTRUMENT] = pd.array(["SH60000" + name[1:] for name in old[INSTRUMENT]], dtype="str")
    old[INSTRUMENT] = old[INSTRUMENT].str.replace("SH60000", "SH6000")
    old = old.drop(index=range(DAYS - 1, 10 * DAYS, DAYS))
    validation = accepted(pd.concat([frame, old], ignore_index=True))
    assert validation.measures.calendar_counts() == {"XNYS": 12, "XSHG": 12} and validation.quarantined == 0


# Market-wide days


def moved(frame: pd.DataFrame, days: slice, ratio: float, columns: list[str]) -> pd.DataFrame:
    for first in range(0, len(frame), DAYS):
        frame.loc[first + days.start : first + days.stop, columns] *= ratio
    return frame


def crashed(frame: pd.DataFrame, day: int, falls: np.ndarray[Any, Any]) -> pd.DataFrame:
    """Each instrument falls by its own share in the session, and stays there."""
    for first, left in zip(range(0, len(frame), DAYS), 1 - falls, strict=True):
        opened = frame.loc[first + day, "open"]
        frame.loc[first + day : first + DAYS - 1, list(PRICES)] *= left
        frame.loc[first + day, ["open", "high"]] = opened, opened * 1.001
    return frame


@pytest.mark.parametrize("day", [30, 90, DAYS - 1])
@pytest.mark.parametrize("around", [0.19, 0.35, 0.5])
def test_a_crash_of_the_whole_market_stays(day: int, around: float) -> None:
    """Of 19, 35 or 50% in the middle of the market, in history or today: news, kept with a warning at most."""
    falls = np.clip(np.random.default_rng(3).normal(around, 0.12, INSTRUMENTS), 0.02, 0.9)
    validation = accepted(crashed(market(), day, falls))
    assert validation.quarantined == 0 and "common_price_unit" not in validation.fatal
    assert around < 0.3 or validation.warnings["common_jump"] == 1


def test_coins_that_fall_19_percent_at_once_stay() -> None:
    """Every day is a session, the open is the close before, the fall is 19% in the middle and twice as much in some."""
    coins = market(instruments=20)
    coins[DATETIME] = np.tile(np.arange(np.datetime64("2020-01-01"), np.datetime64("2020-04-30"))[:DAYS], 20)
    coins[DATETIME] = coins[DATETIME].astype("datetime64[ns]")
    falls = np.clip(np.random.default_rng(5).normal(0.19, 0.15, 20), 0.01, 0.8)
    validation = accepted(crashed(coins, 71, falls))
    assert validation.quarantined == 0 and validation.measures.calendar_counts() == {"24/7": 20}


@pytest.mark.parametrize("ratio", [100.0, 0.01, 10.0, 0.6, 1.5])
def test_a_price_scale_that_stays_rejects(ratio: float) -> None:
    """All prices times one ratio between two sessions, for good: another unit, or another adjustment."""
    validation = validate(moved(market(), slice(60, DAYS - 1), ratio, list(PRICES)), RULES)
    assert validation.fatal == {"common_price_unit": 1}
    (line,) = validation.first_lines(["vintage"])
    found = re.search(r"\(price_scale=([\d.]+), .*remedy: .*; or: alphaops release --rule common_price_unit", line)
    assert found and float(found[1]) == pytest.approx(ratio, rel=0.03)


@pytest.mark.parametrize("ratio", [100.0, 0.01, 1.5])
def test_a_price_scale_of_one_day_costs_that_day(ratio: float) -> None:
    """It comes back: the rows of the day are spikes and go, the vintage stays."""
    validation = accepted(moved(market(), slice(60, 60), ratio, list(PRICES)))
    assert validation.rules == {"price_spike": INSTRUMENTS}


@pytest.mark.parametrize(("ratio", "rejects"), [(100.0, True), (0.1, True), (0.6, False), (1.5, False), (0.03, False)])
def test_the_newest_session_is_judged_by_powers_of_ten(ratio: float, rejects: bool) -> None:
    """Nobody knows yet whether it comes back: near a power of ten it is a unit, all else is news until tomorrow."""
    validation = validate(moved(market(), slice(DAYS - 1, DAYS - 1), ratio, list(PRICES)), RULES)
    assert ("common_price_unit" in validation.fatal) == rejects
    assert validation.warnings["common_jump"] == 1


@pytest.mark.parametrize(
    ("days", "ratio", "rejects"),
    [
        (slice(60, DAYS - 1), 100.0, True),
        (slice(60, DAYS - 1), 0.001, True),
        (slice(60, 60), 0.01, False),
        (slice(60, 60), 0.03, False),
        (slice(60, 62), 0.02, False),
        (slice(DAYS - 1, DAYS - 1), 0.01, True),
        (slice(DAYS - 1, DAYS - 1), 0.03, False),
    ],
)
def test_a_session_that_hardly_traded_is_no_unit(days: slice, ratio: float, rejects: bool) -> None:
    """A volume that stays where it went is counted in another unit; one that comes back within days is news."""
    frame = market()
    frame[VOLUME] = (5000 * np.exp(np.random.default_rng(2).normal(0, 0.2, len(frame)))).round()
    validation = validate(moved(frame, days, ratio, [VOLUME]), RULES)
    assert (set(validation.fatal) == {"common_volume_unit"}) == rejects and bool(validation.fatal) == rejects
    assert validation.warnings["common_volume_change"] >= 1 and validation.quarantined in (0, days.start * INSTRUMENTS)


# Calendars


def also_on(frame: pd.DataFrame, day: str, instruments: int) -> pd.DataFrame:
    """The first instruments trade on one more day."""
    day_before = frame[DATETIME] == frame.loc[frame[DATETIME] < day, DATETIME].max()
    rows = frame[day_before & frame[INSTRUMENT].isin([f"S{i:02d}" for i in range(instruments)])]
    more = rows.assign(**{DATETIME: pd.Timestamp(day), VOLUME: rows[VOLUME] + 1})
    return pd.concat([frame, more], ignore_index=True)


@pytest.mark.parametrize("day", ["2020-03-14", "2019-12-25"])
@pytest.mark.parametrize("trading", [12, 10])
def test_a_day_on_which_nearly_all_trade_is_a_session(day: str, trading: int) -> None:
    """A special session that the exchange's list lacks: its bars stay, and who lacks it has a gap."""
    frame = also_on(market(), day, trading)
    validation = accepted(frame)
    assert validation.quarantined == 0 and validation.measures.calendar_counts() == {"XNYS": INSTRUMENTS}
    assert pd.Timestamp(day) in set(validation.measures.sessions[DATETIME])
    assert validation.warnings.get("gap", 0) == INSTRUMENTS - trading


@pytest.mark.parametrize("trading", [1, 4])
def test_a_day_on_which_few_trade_is_none(trading: int) -> None:
    """Their rows are quarantined, as a day of that row."""
    validation = accepted(also_on(market(), "2020-03-14", trading))
    assert validation.rules == {"on_session": trading}


def test_a_holiday_that_a_vendor_filled_is_no_session() -> None:
    """All carry the last price on with volume 0, on every holiday and weekend: these rows are left out alone."""
    frame = market()
    days = pd.date_range(frame[DATETIME].min(), frame[DATETIME].max())
    filled = [part.set_index(DATETIME).reindex(days) for _, part in frame.groupby(INSTRUMENT)]
    filled = [part.assign(**{VOLUME: part[VOLUME].fillna(0.0), CLOSE: part[CLOSE].ffill()}) for part in filled]
    filled = [part.assign(**{name: part[name].fillna(part[CLOSE]) for name in PRICES}).ffill() for part in filled]
    whole = pd.concat([part.rename_axis(DATETIME).reset_index() for part in filled], ignore_index=True)
    whole["parse_error"] = pd.array([None] * len(whole), dtype="str")
    validation = accepted(whole[frame.columns])
    assert validation.measures.calendar_counts() == {"XNYS": INSTRUMENTS}
    assert validation.rules == {"no_trade": len(whole) - len(frame)}


def test_a_made_market_of_weekdays_has_a_session_on_each() -> None:
    """Rows on all weekdays, holidays too, are a calendar of their own."""
    frame = market()
    days = pd.bdate_range("2019-12-10", periods=DAYS).to_numpy()
    frame[DATETIME] = np.tile(days.astype("datetime64[ns]"), INSTRUMENTS)
    validation = accepted(frame)
    assert validation.quarantined == 0 and not validation.warnings


def test_special_saturdays_of_an_exchange_by_its_suffix() -> None:
    """Shares of Mumbai, three of whose sessions no list has, beside shares of London and Tokyo."""
    parts = []
    for suffix, calendar in ((".NS", "XBOM"), (".L", "XLON"), (".T", "XTKS")):
        days = sessions(calendar, "2023-06-01", "2024-06-28")
        if suffix == ".NS":
            days = np.sort(
                np.concatenate([days, np.array(["2023-11-12", "2024-03-02", "2024-05-18"], "datetime64[D]")])
            )
            days = np.unique(days)
        bars = make_bars(days=len(days), instruments=6, start="2015-01-02")
        bars["Date"] = np.tile(days.astype(str), 6)
        parts.append(bars.assign(Symbol=bars["Symbol"] + suffix))
    validation = accepted(parsed_frame(pd.concat(parts, ignore_index=True)))
    assert validation.measures.calendar_counts() == {"XBOM": 6, "XLON": 6, "XTKS": 6}
    assert validation.quarantined == 0 and not validation.warnings


@pytest.mark.parametrize("calendar", ["auto", "XSHG"])
def test_a_panel_stamped_in_utc_is_rejected_by_that_name(calendar: str) -> None:
    """Every bar a day before its session: published, each would be known a day early."""
    frame = market()
    days = sessions("XSHG", "2020-01-02", "2020-12-31")[:DAYS] - 1
    frame[DATETIME] = np.tile(days.astype("datetime64[ns]"), INSTRUMENTS)
    rules = replace(RULES, calendar=calendar)
    validation = validate(frame, rules)
    assert len(validation.rejected_instruments) == INSTRUMENTS
    with pytest.raises(VintageRejectedError, match=r"look like UTC stamps.*calendar=XSHG") as caught:
        check_vintage(validation, rules, QUARANTINE)
    assert "12 of 12 instruments" in str(caught.value)


# Releases


def findings(source: Path) -> str:
    """What a validation says, rejected or not."""
    try:
        return str(validate_bars_task(staging=read_source_task(source=str(source))["staging"]))
    except VintageRejectedError as error:
        return str(error)


def command_of(text: str, rule: str) -> list[str]:
    """The first command of a message that releases from a rule, as a shell splits it."""
    found = re.search(rf'alphaops (release --rule {rule} [^\n]*?--reason "\.\.\.")', text)
    assert found, text
    return shlex.split(found[1])


def test_the_command_of_each_remedy_works_as_it_is_written(settings: Settings, tmp_path: Path) -> None:
    """A row, an instrument with a name that a shell would split, and a session are each let through by the very text of
    the message, until nothing rejects the vintage any more."""
    bars = make_bars(days=DAYS, instruments=INSTRUMENTS)
    bars["Symbol"] = bars["Symbol"].replace({"S01": "S&P(1)"})
    for first in range(0, len(bars), DAYS):
        bars.loc[first + 60 : first + DAYS - 1, OHLC] *= 100
    bars.loc[50, OHLC] *= 1.3
    bars.loc[DAYS + 20 : DAYS + 25, OHLC] -= 100
    source = save(bars, tmp_path / "bars.parquet")
    told = findings(source)
    assert "rule common_price_unit rejects the vintage" in told
    for rule in ("common_price_unit", "subtractive_adjustment", "price_spike"):
        assert main(command_of(told, rule)) == 0
    names = {(made.rule, made.instrument) for made in load_releases(settings)}
    assert names == {("common_price_unit", "XNYS"), ("subtractive_adjustment", "S&P(1)"), ("price_spike", "S00")}
    again = findings(source)
    assert "common_price_unit" not in again and "price_spike" not in again
    assert quarantine_info(settings)["report"]["released"].keys() >= {"common_price_unit", "subtractive_adjustment"}


def test_a_warning_can_be_released_and_is_told_no_more(settings: Settings, tmp_path: Path) -> None:
    """Of a row, an instrument and a session; each is bound to what it was given for."""
    bars = make_bars(days=DAYS, instruments=INSTRUMENTS)
    bars.loc[40, "Volume"] = 0
    bars.loc[DAYS + 41, "Volume"] = 0
    for first in range(0, len(bars), DAYS):
        bars.loc[first + 60, "Volume"] /= 100
    source = save(bars, tmp_path / "bars.parquet")
    findings(source)
    before = quarantine_info(settings)["report"]["warnings"]
    assert before["no_trades"] == 2 and before["common_volume_change"] == 2
    day = bars["Date"][60]
    told = ["--rule", "no_trades", "--instrument", "S00", "--reason", "halted"]
    assert main(["release", *told]) == 0
    assert main(["release", "--rule", "common_volume_change", "--reason", "a holiday"]) == 1, "which of two"
    assert main(["release", "--rule", "common_volume_change", "--date", day, "--reason", "a holiday"]) == 0
    findings(source)
    after = quarantine_info(settings)["report"]
    assert after["warnings"]["no_trades"] == 1 and after["warnings"]["common_volume_change"] == 1
    assert after["released"] == {"no_trades": 1, "common_volume_change": 1}


def test_of_rivals_one_is_released_by_its_row(settings: Settings, tmp_path: Path) -> None:
    """The message asks which; the other one stays in quarantine, even when both are released."""
    bars = make_bars(days=DAYS, instruments=4)
    other = bars.iloc[[50]].assign(Volume=1.0)
    source = save(pd.concat([bars, other], ignore_index=True), tmp_path / "bars.csv")
    findings(source)
    told = ["release", "--rule", "unique_keys", "--instrument", "S00", "--reason", "the exchange says so"]
    assert main(told) == 1
    for row in (481, 51):
        assert main([*told, "--row", str(row)]) == 0
        findings(source)
        report = quarantine_info(settings)["report"]
        assert report["rules"] == {"unique_keys": 1} and report["released"] == {"unique_keys": 1}


def test_the_list_of_the_quarantine_says_how_to_release(settings: Settings, tmp_path: Path) -> None:
    """Each row that is shown has its command; what nothing makes good has none."""
    bars = make_bars(days=DAYS, instruments=4)
    bars.loc[50, "Open"] = None
    bars.loc[60, "Date"] = None
    findings(save(bars, tmp_path / "bars.csv"))
    shown = render_quarantine(quarantine_info(settings))
    assert main(command_of(shown, "open_present")) == 0
    assert "--rule datetime_present" not in shown
    with pytest.raises(StoreError, match="a bar without a date has no place in a vintage"):
        from mlops_tasks.data.validation.quarantine import release

        release(settings, rule="datetime_present", instrument="S00", day=None, reason="why not")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda line: line.replace(",", ",1,", 1), "8 fields where the header has 7"),
        (lambda line: line.rsplit(",", 2)[0], "5 fields where the header has 7"),
        (lambda line: ",".join([*line.split(",")[:2], "x", "x", "x", "x", "100"]), "'x' is not a number"),
    ],
)
def test_a_row_that_cannot_be_read_is_a_bad_row_and_no_day_without_a_trade(
    spoil: Callable[[str], str], says: str, settings: Settings, tmp_path: Path
) -> None:
    """It has no price, as a halted day; but its line and what is wrong there are told, and it counts as bad."""
    path = save(make_bars(days=60), tmp_path / "bars.csv")
    lines = path.read_text().splitlines()
    lines[7] = spoil(lines[7])
    path.write_text("\n".join(lines) + "\n")
    read = read_source_task(source=str(path))
    report = validate_bars_task(staging=read["staging"])
    assert report["quarantined"] == 1 and report["received"] == 240
    told = render_quarantine(quarantine_info(settings))
    assert "parsable_cells" in told and says in told and "no_trade" not in told
