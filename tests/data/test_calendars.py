"""Calendars: known sessions and closes, the newest closed session, and which calendar rows follow."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_tasks.data.exchanges import calendars
from mlops_tasks.data.exchanges.calendar_ranking import FIRST, LAST, known_sessions, unranked
from mlops_tasks.data.exchanges.calendars import (
    ALWAYS,
    WEEKDAYS,
    check_calendar,
    followed_calendars,
    infer_calendars,
    instrument_calendars,
    last_closed_session,
    schedule,
    sessions,
)
from mlops_tasks.data.exchanges.ticker_suffixes import SUFFIXES, suggested_calendar
from mlops_tasks.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("XNYS", "2024-07-04"),
        ("XNYS", "2024-11-28"),
        ("XNYS", "2012-10-29"),
        ("XNYS", "2001-09-11"),
        ("XNYS", "2018-12-05"),
        ("XSHG", "2024-02-12"),
        ("XSHG", "2020-01-31"),
        ("XSHG", "2023-10-06"),
    ],
)
def test_known_holidays_are_no_sessions(name: str, day: str) -> None:
    """Feasts, a hurricane, days of mourning and moved holidays are left out."""
    assert len(sessions(name, day, day)) == 0


@pytest.mark.parametrize(("name", "year", "count"), [("XNYS", 2023, 250), ("XNYS", 2024, 252), ("XSHG", 2023, 242)])
def test_a_year_has_the_published_number_of_sessions(name: str, year: int, count: int) -> None:
    """The exchanges' own counts of trading days."""
    found = sessions(name, f"{year}-01-01", f"{year}-12-31")
    assert len(found) == count and found.dtype == "datetime64[D]" and (np.diff(found).astype(int) > 0).all()


def test_both_ends_are_included_and_any_kind_of_day_is_taken() -> None:
    """Text, date and datetime64 of any unit ask for the same days; a reversed range is empty."""
    expected = ["2024-07-03", "2024-07-05"]
    for first, last in [
        ("2024-07-03", "2024-07-05"),
        (date(2024, 7, 3), date(2024, 7, 5)),
        (np.datetime64("2024-07-03", "ns"), np.datetime64("2024-07-05", "s")),
    ]:
        assert sessions("XNYS", first, last).astype(str).tolist() == expected
    assert len(sessions("XNYS", "2024-07-05", "2024-07-03")) == 0


@pytest.mark.parametrize(
    ("name", "day", "close"),
    [
        ("XNYS", "2024-01-16", "2024-01-16T21:00:00"),
        ("XNYS", "2024-07-02", "2024-07-02T20:00:00"),
        ("XNYS", "2024-07-03", "2024-07-03T17:00:00"),
        ("XNYS", "2024-11-29", "2024-11-29T18:00:00"),
        ("XSHG", "2024-07-02", "2024-07-02T07:00:00"),
        (ALWAYS, "2024-02-29", "2024-03-01T00:00:00"),
    ],
)
def test_closes_follow_daylight_saving_and_half_days(name: str, day: str, close: str) -> None:
    """Closes are in UTC: an hour earlier in summer, three hours earlier on a half day."""
    assert schedule(name, day, day).closes.astype(str).tolist() == [close]


def test_always_is_every_day() -> None:
    """24/7 has 366 sessions in a leap year, weekends and feasts included."""
    assert len(sessions(ALWAYS, "2024-01-01", "2024-12-31")) == 366


def test_years_that_nobody_knows_yet_have_weekdays(caplog: pytest.LogCaptureFixture) -> None:
    """China publishes its holidays late: a later weekday is a session with the usual close, and the log says so."""
    calendars._years.cache_clear()
    week = schedule("XSHG", "2190-01-01", "2190-01-07")
    assert week.sessions.astype(str).tolist() == [f"2190-01-0{i}" for i in (1, 4, 5, 6, 7)]
    assert week.closes[0] == np.datetime64("2190-01-01T07:00:00")
    assert "XSHG: sessions are known up to" in caplog.text
    assert len(sessions("XSHG", "1980-01-01", "1980-01-31")) == 23


def test_sessions_cannot_be_changed_by_a_caller() -> None:
    """They are shared, so they are read only."""
    with pytest.raises(ValueError, match="read-only"):
        sessions("XNYS", "2024-07-01", "2024-07-05")[0] = np.datetime64("2024-07-04")


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2024-07-02T16:29", date(2024, 7, 1)),
        ("2024-07-02T16:30", date(2024, 7, 2)),
        ("2024-07-03T13:30", date(2024, 7, 3)),
        ("2024-07-04T18:00", date(2024, 7, 3)),
        ("2024-07-07T18:00", date(2024, 7, 5)),
        ("2024-03-11T16:30", date(2024, 3, 11)),
        ("2024-03-11T16:29", date(2024, 3, 8)),
    ],
)
def test_the_last_closed_session_waits_for_close_and_delay(at: str, expected: date) -> None:
    """Half an hour after New York's close, half days, holidays, weekends and daylight saving included."""
    moment = datetime.fromisoformat(at).replace(tzinfo=ZoneInfo("America/New_York"))
    assert last_closed_session("XNYS", moment, timedelta(minutes=30)) == expected
    assert last_closed_session("XNYS", moment.astimezone(UTC), timedelta(minutes=30)) == expected


def test_around_the_clock_yesterday_is_closed() -> None:
    """A day of 24/7 ends at midnight UTC; the delay comes on top."""
    delay = timedelta(minutes=10)
    assert last_closed_session(ALWAYS, datetime(2024, 1, 1, 0, 9, tzinfo=UTC), delay) == date(2023, 12, 30)
    assert last_closed_session(ALWAYS, datetime(2024, 1, 1, 0, 10, tzinfo=UTC), delay) == date(2023, 12, 31)


def test_a_moment_without_a_time_zone_is_refused() -> None:
    """A naive time could be any close."""
    with pytest.raises(ValueError, match="no time zone"):
        last_closed_session("XNYS", datetime(2024, 1, 1), timedelta())


def test_an_unknown_calendar_names_the_settings_and_the_known_ones() -> None:
    """The message is enough to correct the setting; a name means the same calendar for all instruments."""
    with pytest.raises(ConfigError, match=r"'NYSX' is unknown; set calendar\.name .* XNYS"):
        check_calendar("NYSX")
    with pytest.raises(ConfigError, match="'NYSX' is unknown"):
        sessions("NYSX", "2024-01-01", "2024-01-31")
    with pytest.raises(ConfigError, match="'NYSX' is unknown"):
        instrument_calendars("NYSX", np.zeros(1, "i8"), np.array(["2024-01-02"], "datetime64[D]"), 1)
    assert instrument_calendars("XSHG", np.zeros(0, "i8"), np.array([], "datetime64[D]"), 2) == ["XSHG", "XSHG"]


@given(
    names=st.lists(st.sampled_from([*calendars.EXCHANGES, calendars.ALWAYS]), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
    gaps=st.floats(0, 0.05),
)
def test_a_mixed_panel_is_told_apart(names: list[str], seed: int, gaps: float) -> None:
    """With suspensions, repeated rows, missing dates and a row on a holiday each instrument keeps its calendar."""
    rng = np.random.default_rng(seed)
    parts = []
    for code, name in enumerate(names):
        days = sessions(name, "2021-03-01", "2023-02-28")
        days = days[rng.random(len(days)) >= gaps]
        start = rng.integers(0, 100)
        days = np.concatenate([days[start:], days[start : start + 3], [np.datetime64("NaT"), "2022-12-25"]])
        parts.append((np.full(len(days), code), days.astype("datetime64[D]")))
    codes, days = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = rng.permutation(len(codes))
    assert infer_calendars(codes[order], days[order], len(names)) == names
    assert instrument_calendars("auto", codes, days, len(names)) == names


def test_the_fit_counts_days_off_session_and_sessions_without_a_row() -> None:
    """Against the plain definition, instrument by instrument, on random days."""
    rng = np.random.default_rng(5)
    pool = np.arange(np.datetime64("2022-01-20"), np.datetime64("2022-03-10"))
    days = rng.choice(pool, 400)
    codes = rng.integers(0, 40, 400)
    for code, found in enumerate(infer_calendars(codes, days, 40)):
        own = set(days[codes == code].tolist())
        expected = {
            name: set(sessions(name, min(own), max(own)).tolist()) for name in (*calendars.EXCHANGES, calendars.ALWAYS)
        }
        misfits = {name: (len(own - days), len(days - own)) for name, days in expected.items()}
        exchange = min(calendars.EXCHANGES, key=lambda name: misfits[name])
        assert found == min((exchange, calendars.ALWAYS), key=lambda name: sum(misfits[name]))


def test_an_absence_of_years_changes_no_calendar() -> None:
    """Shares with two short stretches of rows, years apart, keep their exchange's calendar."""
    for name in calendars.EXCHANGES:
        days = np.concatenate([sessions(name, "2004-01-02", "2004-03-31"), sessions(name, "2011-03-23", "2011-05-31")])
        assert infer_calendars(np.zeros(len(days), dtype=np.int64), days, 1) == [name]


def test_without_a_day_the_first_candidate_fits() -> None:
    """An instrument with nothing but missing days gets XNYS, beside others and alone."""
    days = np.array(["NaT", "2024-02-09", "2024-02-19"], "datetime64[D]")
    assert infer_calendars(np.array([1, 0, 0]), days, 2) == ["XSHG", "XNYS"]
    assert infer_calendars(np.array([0]), days[:1], 1) == ["XNYS"]


SOME_NAMES = {
    "VOD.L": "XLON",
    "0700.HK": "XHKG",
    "600519.SS": "XSHG",
    "000001.SZ": "XSHG",
    "600000.SH": "XSHG",
    "sh.600000": "XSHG",
    "BJ430047": "XSHG",
    "7203.T": "XTKS",
    "SHOP.TO": "XTSE",
    "MC.PA": "XPAR",
    "SAP.DE": "XETR",
    "BHP.AX": "XASX",
    "RELIANCE.NS": "XBOM",
    "005930.KS": "XKRX",
    "PETR4.SA": "BVMF",
    "AAPL.US": "XNYS",
    "BTC-USD": "24/7",
    "ETHUSDT": "24/7",
    "AAPL": None,
    "BRK.B": None,
    "T": None,
    "600000": None,
}


@pytest.mark.parametrize(("name", "calendar"), SOME_NAMES.items())
def test_a_name_speaks_for_its_exchange(name: str, calendar: str | None) -> None:
    """By suffix or prefix; share classes and plain names say nothing."""
    assert suggested_calendar(name) == calendar


def test_every_suffix_stands_for_a_known_calendar() -> None:
    """The table has no calendar that exchange_calendars does not know."""
    for calendar in set(SUFFIXES.values()):
        check_calendar(calendar)


def stretched(calendars_of: dict[str, str], first: str, last: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Codes, days and names of instruments that trade on every session of their calendar."""
    parts = [sessions(calendar, first, last) for calendar in calendars_of.values()]
    codes = np.repeat(np.arange(len(parts)), [len(days) for days in parts])
    return codes, np.concatenate(parts), list(calendars_of)


def test_several_exchanges_of_one_panel_are_told_apart_by_name_in_weeks() -> None:
    """Six weeks without a telling holiday are enough where the names have suffixes."""
    named = {name: calendar for name, calendar in SOME_NAMES.items() if calendar}
    codes, days, names = stretched(named, "2023-03-01", "2023-04-14")
    assert infer_calendars(codes, days, len(names), names) == list(named.values())


TWELVE = ("XTSE", "XKRX", "XJSE", "XIST", "XTKS", "XSTO", "XSAU", "XASX", "XHKG", "XBKK", "XLON", "XMEX")


@pytest.mark.parametrize("others", [("XLON", "XTKS"), ("XBOM", "XHKG", "XNYS"), ("BVMF", "24/7"), ("XSTO",), TWELVE])
def test_exchanges_without_suffixes_are_found_by_their_days(others: tuple[str, ...]) -> None:
    """Two years of days fit one calendar of all that there are; some have the very same days."""
    codes, days, names = stretched({f"N{i}": name for i, name in enumerate(others)}, "2021-01-04", "2022-12-30")
    found = infer_calendars(codes, days, len(names))
    for name, expected in zip(found, others, strict=True):
        pair = [sessions(each, "2021-01-04", "2022-12-30") for each in (name, expected)]
        np.testing.assert_array_equal(*pair)


def test_a_suffix_that_the_days_contradict_is_not_believed() -> None:
    """Shares of New York whose class letter looks like a suffix keep their exchange."""
    codes, days, names = stretched({"X.V": "XNYS", "Y.L": "XNYS"}, "2020-01-02", "2022-12-30")
    assert infer_calendars(codes, days, len(names), names) == ["XNYS", "XNYS"]


@given(seed=st.integers(0, 2**32 - 1), kept=st.floats(0.02, 0.6))
def test_an_instrument_with_gaps_goes_with_its_neighbours(seed: int, kept: float) -> None:
    """Of few or scattered days every calendar fits; that of the instruments without gaps is meant."""
    rng = np.random.default_rng(seed)
    for calendar in ("XSHG", "XNYS"):
        whole = sessions(calendar, "2021-01-04", "2022-06-30")
        some = whole[rng.random(len(whole)) < kept]
        codes = np.concatenate([np.repeat([0, 1, 2], len(whole)), np.full(len(some), 3)])
        assert infer_calendars(codes, np.concatenate([whole, whole, whole, some]), 4) == [calendar] * 4


def test_a_coin_with_few_days_goes_with_the_coins() -> None:
    """Ten weekdays say nothing beside coins, and New York beside shares."""
    days = np.arange(np.datetime64("2021-01-04"), np.datetime64("2021-12-31"))
    weekdays = days[np.is_busday(days)][5:15]
    codes = np.concatenate([np.repeat([0, 1], len(days)), np.full(10, 2)])
    assert infer_calendars(codes, np.concatenate([days, days, weekdays]), 3) == ["24/7"] * 3


@pytest.mark.parametrize("calendar", ["XSHG", "XTKS", "XLON"])
@pytest.mark.parametrize("named", [True, False])
def test_days_before_sessions_look_like_utc_stamps(calendar: str, named: bool) -> None:
    """Local midnight east of Greenwich is the day before in UTC: the calendar is found all the same."""
    days = sessions(calendar, "2021-01-04", "2022-12-30")
    codes = np.repeat([0, 1], len(days))
    both = np.concatenate([days - 1, days])
    found = followed_calendars(calendar if named else "auto", codes, both, 2)
    assert found.calendars == [calendar] * 2 and found.day_early.tolist() == [True, False]


def test_the_table_for_ranking_says_what_the_library_says() -> None:
    """Of calendars of all kinds, other weekends and feasts that move included; made anew after an upgrade of it."""
    names, marks = known_sessions()
    days = np.arange(FIRST, LAST + 1)
    first, last = np.searchsorted(days, np.array(["2005-01-01", "2025-12-31"], "datetime64[D]"))
    for name in ("XLON", "XTKS", "ASEX", "XSAU", "BVMF"):
        known = days[first:last][marks[names.index(name), first:last]]
        np.testing.assert_array_equal(known, sessions(name, "2005-01-01", "2025-12-30"))
    for name in {*unranked()} - {ALWAYS, WEEKDAYS}:
        with pytest.raises(ConfigError, match="cannot compute"):
            sessions(name, FIRST, LAST)
    for name in names:
        check_calendar(name)


@pytest.mark.parametrize("name", ["ASEX", "XBEL", "XBSE", "XCYS"])
def test_calendars_with_the_orthodox_easter_can_be_computed(name: str) -> None:
    """Good Friday and Easter Monday of 2024 fell into May, a month after the Western ones."""
    found = sessions(name, "2024-04-22", "2024-05-10").astype(str).tolist()
    assert "2024-04-26" in found and not {"2024-05-03", "2024-05-06"} & set(found)


def test_a_calendar_that_the_library_cannot_compute_names_the_remedy() -> None:
    """In a few words, whatever the library says."""
    with pytest.raises(ConfigError, match=r"XTAE: .*set calendar\.name and calendar\.schedule.*24/5") as error:
        sessions("XTAE", "2015-01-01", "2024-12-31")
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("kind", ["far exchanges", "no calendar"])
def test_few_calendars_are_computed_for_names_that_fit_none(kind: str) -> None:
    """All are ranked by a table; computed are those looked at always and the best, however many names there are."""
    rng = np.random.default_rng(0)
    pool = np.arange(np.datetime64("2012-01-01"), np.datetime64("2023-12-31"))
    far = ["XBOG", "XPHS", "XCYS", "XKAR", "ASEX", "XTKS"]
    calendars._years.cache_clear()
    if kind == "far exchanges":
        codes, days, names = stretched({f"N{i}": name for i, name in enumerate(far)}, "2012-01-02", "2023-12-29")
        calendars._years.cache_clear()
        assert infer_calendars(codes, days, len(names)) == far
    else:
        days = np.concatenate([np.sort(rng.choice(pool, 900, replace=False)) for _ in range(60)])
        infer_calendars(np.repeat(np.arange(60), 900), days, 60)
    asked = len(calendars.EXCHANGES) + 2 + calendars._MOST_IN_VAIN
    assert calendars._years.cache_info().misses <= asked + 2  # a day early may be another year
