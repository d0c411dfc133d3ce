"""Trading calendars: sessions and closes by exchange, and which calendar an instrument's rows follow.

exchange_calendars knows the sessions; its names (XNYS, XSHG, XHKG, ...) are used throughout. A year that it does not
know (before an exchange opened, or after the last published holidays) has a session on every weekday. `24/7` is every
day, closed at the midnight (UTC) that ends it.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np

from mlops_tasks.errors import ConfigError

log = logging.getLogger(__name__)

CALENDAR = "calendar"
"""The column that says which calendar an instrument or a session follows."""
ALWAYS = "24/7"
AUTO = "auto"
EXCHANGES = ("XNYS", "XSHG")
"""What `infer_calendars` chooses from, besides `24/7`; of calendars that fit equally the first."""

_FIRST_YEAR, _LAST_YEAR = 1900, 2199
"""Holidays are computed within these years only."""
_LONGEST_BREAK = timedelta(days=400)
"""Longer than any exchange stayed closed."""

Day = date | str | np.datetime64
Days = np.ndarray[Any, np.dtype[np.datetime64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]
Booleans = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Schedule:
    """Sessions (`datetime64[D]`, sorted) and their closes (`datetime64[s]`, UTC), arrays of one length; read only."""

    sessions: Days
    closes: Days

    def __post_init__(self) -> None:
        self.sessions.flags.writeable = self.closes.flags.writeable = False


def sessions(name: str, first: Day, last: Day) -> Days:
    """Sessions of a calendar from `first` to `last`, both included: `datetime64[D]`, sorted, read only.

    Raises
    ------
    ConfigError
        The calendar is unknown, or cannot be computed for these years.
    """
    return schedule(name, first, last).sessions


def schedule(name: str, first: Day, last: Day) -> Schedule:
    """Sessions from `first` to `last`, both included, with their closes; half days close early.

    Raises
    ------
    ConfigError
        The calendar is unknown, or cannot be computed for these years.
    """
    low, high = _as_day(first), _as_day(last)
    if high < low:
        return Schedule(np.empty(0, "datetime64[D]"), np.empty(0, "datetime64[s]"))
    whole = _years(name, _year_of(low), _year_of(high))
    part = slice(*np.searchsorted(whole.sessions, [low, high + 1]))
    return Schedule(whole.sessions[part], whole.closes[part])


def check_calendar(name: str) -> None:
    """Raise unless the calendar is known.

    Raises
    ------
    ConfigError
        Names the settings and the known calendars.
    """
    import exchange_calendars

    names = exchange_calendars.get_calendar_names(include_aliases=True)
    if name not in names:
        raise ConfigError(
            f"calendar {name!r} is unknown; set calendar.name ({AUTO} or a name) and calendar.schedule to one of "
            f"{', '.join(names)}"
        )


def last_closed_session(name: str, at: datetime, delay: timedelta) -> date:
    """The newest session whose close lies at least `delay` before `at`, which is aware.

    Raises
    ------
    ConfigError
        The calendar is unknown.
    ValueError
        `at` has no time zone.
    """
    if at.tzinfo is None:
        raise ValueError(f"{at} has no time zone; give an aware datetime")
    moment = (at - delay).astimezone(UTC).replace(tzinfo=None)
    recent = schedule(name, moment.date() - _LONGEST_BREAK, moment.date() + timedelta(days=1))
    newest = np.searchsorted(recent.closes, np.datetime64(moment, "us"), "right") - 1
    day: date = recent.sessions[newest].item()
    return day


def infer_calendars(codes: Integers, days: Days, count: int) -> list[str]:
    """The calendar of each instrument: the one that fits its days best.

    Of `EXCHANGES` that is the one with the fewest days off-session, and of equal ones that with the fewest sessions
    without a row between the instrument's first and last day: an absence of years says little, a row on a holiday
    much. `24/7` fits better where it lacks fewer days than the exchange has days off-session and sessions without a
    row. An instrument without a day fits all of them, so it gets the first.

    Parameters
    ----------
    codes
        (n,) instrument of each row, in 0..count-1.
    days
        (n,) `datetime64[D]`, in any order, repeats and NaT allowed.
    count
        Number of instruments.
    """
    known = ~np.isnat(days)
    if not known.any():
        return [EXCHANGES[0]] * count
    numbers = days[known].astype("datetime64[D]").astype(np.int64)
    lowest, highest = int(numbers.min()), int(numbers.max())
    offsets = numbers - lowest
    seen = np.bincount(offsets) > 0
    has_row = np.zeros((count, int(seen.sum())), dtype=bool)
    has_row[codes[known], (np.cumsum(seen) - 1)[offsets]] = True
    strange, absent = np.stack([_misfits(has_row, seen, _is_session(name, lowest, highest)) for name in EXCHANGES], 1)
    best = np.lexsort((absent, strange), axis=0)[0]
    misfit = np.take_along_axis(strange + absent, best[np.newaxis], axis=0)[0]
    always = sum(_misfits(has_row, seen, np.ones(highest - lowest + 1, dtype=bool))) < misfit
    return [ALWAYS if every_day else EXCHANGES[one] for every_day, one in zip(always, best, strict=True)]


def instrument_calendars(settings_name: str, codes: Integers, days: Days, count: int) -> list[str]:
    """The calendar of each instrument: `auto` infers them, any other name is that of all.

    Raises
    ------
    ConfigError
        The named calendar is unknown.
    """
    if settings_name == AUTO:
        return infer_calendars(codes, days, count)
    check_calendar(settings_name)
    return [settings_name] * count


def _misfits(has_row: Booleans, seen: Booleans, is_session: Booleans) -> tuple[Integers, Integers]:
    """(instruments,) days off-session, and sessions without a row; `has_row` has one column for each day `seen`."""
    on_session = np.count_nonzero(has_row & is_session[seen], axis=1)
    off_session = np.count_nonzero(has_row, axis=1) - on_session
    offsets = np.flatnonzero(seen)
    first = offsets[has_row.argmax(axis=1)]
    last = offsets[len(offsets) - 1 - has_row[:, ::-1].argmax(axis=1)]
    until = np.concatenate([[0], np.cumsum(is_session)])
    expected = np.where(has_row.any(axis=1), until[last + 1] - until[first], 0)
    return off_session, expected - on_session


def _is_session(name: str, lowest: int, highest: int) -> Booleans:
    """Whether each day from `lowest` to `highest` (days since 1970) is a session."""
    marks = np.zeros(highest - lowest + 1, dtype=bool)
    opened = sessions(name, np.datetime64(lowest, "D"), np.datetime64(highest, "D"))
    marks[opened.astype(np.int64) - lowest] = True
    return marks


def _as_day(day: Day) -> np.datetime64:
    return np.datetime64(day, "D")  # type: ignore[call-overload]


def _year_of(day: np.datetime64) -> int:
    return int(day.astype("datetime64[Y]").astype(np.int64)) + 1970


@lru_cache(maxsize=64)
def _years(name: str, first_year: int, last_year: int) -> Schedule:
    """All sessions of whole years; the exchange's own days where they are known, weekdays around them."""
    first, last = np.datetime64(f"{first_year}-01-01", "D"), np.datetime64(f"{last_year}-12-31", "D")
    if name == ALWAYS:
        days = np.arange(first, last + 1)
        return Schedule(days, (days + 1).astype("datetime64[s]"))
    check_calendar(name)
    import exchange_calendars
    import pandas as pd

    try:
        calendar = exchange_calendars.get_calendar(name)
        low = max(first, _day_of(calendar.bound_min(), f"{_FIRST_YEAR}-01-01"))
        high = min(last, _day_of(calendar.bound_max(), f"{_LAST_YEAR}-12-31"))
        if low < high:
            calendar = type(calendar)(start=pd.Timestamp(low), end=pd.Timestamp(high))
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(
            f"calendar {name}: exchange_calendars cannot compute {first_year} to {last_year} ({error}); set "
            "calendar.name and calendar.schedule to another one"
        ) from error
    if high < last:
        log.warning("%s: sessions are known up to %s; each later weekday counts as one", name, high)
    if low >= high:
        return _weekdays(calendar, first, last)
    known = Schedule(
        calendar.sessions.to_numpy().astype("datetime64[D]"),
        calendar.closes.dt.tz_localize(None).to_numpy().astype("datetime64[s]"),
    )
    parts = [_weekdays(calendar, first, low - 1), known, _weekdays(calendar, high + 1, last)]
    return Schedule(np.concatenate([p.sessions for p in parts]), np.concatenate([p.closes for p in parts]))


def _day_of(bound: Any, otherwise: str) -> np.datetime64:
    return np.datetime64(otherwise if bound is None else bound, "D")


def _weekdays(calendar: Any, first: np.datetime64, last: np.datetime64) -> Schedule:
    """Monday to Friday from `first` to `last`, with the close that the calendar has now."""
    import pandas as pd

    days = np.arange(first, last + 1)
    days = days[np.is_busday(days)]
    local = (
        pd.DatetimeIndex(days)
        + pd.Timedelta(str(calendar.close_times[-1][1]))
        + pd.Timedelta(calendar.close_offset, "D")
    )
    closes = local.tz_localize(calendar.tz).tz_convert(None)
    return Schedule(days, closes.to_numpy().astype("datetime64[s]"))
