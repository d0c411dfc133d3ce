"""Trading calendars: sessions and closes by exchange, and which calendar an instrument's rows follow.

exchange_calendars knows the sessions; its names (XNYS, XSHG, XHKG, ...) are used throughout. A year that it does not
know (before an exchange opened, or after the last published holidays) has a session on every weekday. `24/7` is every
day, closed at the midnight (UTC) that ends it.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache, partial
from typing import Any

import numpy as np

from mlops_tasks.data.exchanges.calendar_ranking import ranked, unranked
from mlops_tasks.data.exchanges.ticker_suffixes import suggested_calendar
from mlops_tasks.errors import ConfigError, excerpt

log = logging.getLogger(__name__)

CALENDAR = "calendar"
"""The column that says which calendar an instrument or a session follows."""
ALWAYS, WEEKDAYS = "24/7", "24/5"
AUTO = "auto"
EXCHANGES = ("XNYS", "XSHG")
"""What `infer_calendars` tries first, besides `24/7`; of calendars that fit equally well, the first is taken."""
WIDELY_TRADED = (
    *("XLON", "XHKG", "XTKS", "XTSE", "XASX", "XETR", "XPAR", "XBOM", "XKRX", "XTAI", "BVMF", "XSWX", "XSTO"),
    *("XMIL", "XMAD", "XAMS", "XSES", "XJSE", "XIDX", "XBKK", "XKLS", "XMEX", "XIST", "XTAE", "XSAU", "XWAR"),
)
"""Of these, the first that fits as well as any is taken."""

_FIRST_YEAR, _LAST_YEAR = 1900, 2199
"""Holidays are computed within these years only."""
_ORTHODOX = 2
"""The method of dateutil's `easter`."""
_LONGEST_BREAK = timedelta(days=400)
"""Longer than any exchange has stayed closed."""

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


def last_session_of(name: str) -> Callable[[datetime, timedelta], date]:
    """`last_closed_session` of one calendar."""
    return partial(last_closed_session, name)


@dataclass(frozen=True)
class Followed:
    """The calendar of each instrument, and (bool) whether its days are those before that calendar's sessions."""

    calendars: list[str]
    day_early: Booleans


def followed_calendars(
    settings_name: str, codes: Integers, days: Days, count: int, names: Sequence[str] = ()
) -> Followed:
    """The calendar of each instrument: `auto` infers it, any other name is the calendar of all.

    The calendar that fits best is inferred: the one with the fewest days off-session and, of equal ones, the fewest
    sessions without a row between the instrument's first and last day. An absence of years says little, a row on a
    holiday much. `24/7` and `24/5`, which have no holidays, fit better where they lack fewer days than the exchange
    has days off-session and sessions without a row. Calendars are tried in this order:

    1. the calendar that the name's spelling suggests, if no exchange of `EXCHANGES` has fewer days off-session;
    2. `EXCHANGES`, and those that other instruments of the panel follow;
    3. those of exchange_calendars, best first, and each a day early (local midnights stamped in UTC), for instruments
       with `_ENOUGH_DAYS` or more whose days are off-session too often, if they are at least `_SEARCHED_SHARE` of
       all; until `_MOST_IN_VAIN` in a row explain no more of them.

    An instrument with few days or many gaps gets a calendar that others follow without them, unless its own days
    contradict it. One without a day gets the first.

    Parameters
    ----------
    codes
        (n,) instrument of each row, in 0..count-1.
    days
        (n,) `datetime64[D]`, in any order, repeats and NaT allowed.
    count
        Number of instruments.
    names
        (count,) their names; none: spelling is not used.

    Raises
    ------
    ConfigError
        The named calendar is unknown.
    """
    if settings_name != AUTO:
        check_calendar(settings_name)
    known = ~np.isnat(days)
    if not known.any():
        return Followed([EXCHANGES[0] if settings_name == AUTO else settings_name] * count, np.zeros(count, dtype=bool))
    fit = _Fit(codes[known], days[known].astype("datetime64[D]").astype(np.int64), count)
    if settings_name != AUTO:
        chosen = np.zeros(count, dtype=np.int64)
        fit.add(settings_name)
        fit.add(settings_name, early=1)
        early = fit.often_strange(chosen) & ~fit.often_strange(chosen + 1) & (fit.rows >= _ENOUGH_DAYS)
        return Followed([settings_name] * count, early)
    chosen = _choose(fit, [suggested_calendar(name) for name in names] or [None] * count)
    of_instrument = [fit.candidates[number] for number in chosen]
    return Followed(
        [name for name, _ in of_instrument], np.array([early > 0 for _, early in of_instrument], dtype=bool)
    )


def infer_calendars(codes: Integers, days: Days, count: int, names: Sequence[str] = ()) -> list[str]:
    """The calendar of each instrument by its days and its name; see `followed_calendars`."""
    return followed_calendars(AUTO, codes, days, count, names).calendars


def instrument_calendars(
    settings_name: str, codes: Integers, days: Days, count: int, names: Sequence[str] = ()
) -> list[str]:
    """Like `followed_calendars`, but the calendars alone.

    Raises
    ------
    ConfigError
        The named calendar is unknown.
    """
    return followed_calendars(settings_name, codes, days, count, names).calendars


_ENOUGH_DAYS = 20
"""Fewer days do not tell one exchange from another."""
_STRANGE_SHARE, _STRANGE_DAYS = 0.005, 2
"""Days off-session beyond both are too many for the calendar to be the right one."""
_SEARCHED_SHARE = 0.02
"""Share of all instruments that must be unexplained before other calendars are computed."""
_RANKED, _MOST_IN_VAIN = 200, 8
"""Unexplained instruments that calendars are compared with, and calendars in a row that may explain no more of them."""
_GAPS_SHARE = 0.1
"""An instrument that lacks more of its sessions says little about its calendar."""


class _Fit:
    """How well the days of each instrument fit calendars, which are computed when they are needed.

    `candidates` are pairs of a calendar and by how many days it is read early; `strange` and `absent` have a column
    for each: days off-session, sessions without a row.
    """

    def __init__(self, codes: Integers, numbers: Integers, count: int) -> None:
        self.lowest, self.highest = int(numbers.min()), int(numbers.max())
        offsets = numbers - self.lowest
        self.seen = np.bincount(offsets) > 0
        self.has_row = np.zeros((count, int(self.seen.sum())), dtype=bool)
        self.has_row[codes, (np.cumsum(self.seen) - 1)[offsets]] = True
        self.rows = np.count_nonzero(self.has_row, axis=1)
        weekend = (np.flatnonzero(self.seen) + self.lowest + 3) % 7 >= 5
        self.on_weekends = (self.has_row & weekend).any(axis=1)
        self.candidates: list[tuple[str, int]] = []
        self.strange = np.empty((count, 0), dtype=np.int64)
        self.absent = np.empty((count, 0), dtype=np.int64)

    def add(self, name: str, early: int = 0) -> int:
        """The column of a candidate."""
        if (name, early) not in self.candidates:
            marks = _is_session(name, self.lowest + early, self.highest + early)
            strange, absent = _misfits(self.has_row, self.seen, marks)
            self.candidates.append((name, early))
            self.strange = np.column_stack([self.strange, strange])
            self.absent = np.column_stack([self.absent, absent])
        return self.candidates.index((name, early))

    def best(self, columns: Sequence[int]) -> Integers:
        """For each instrument, the candidate with the fewest strange days, then the fewest absent ones."""
        strange, absent = self.strange[:, columns], self.absent[:, columns]
        found: Integers = np.asarray(columns)[np.lexsort((absent, strange), axis=1)[:, 0]]
        return found

    def often_strange(self, chosen: Integers) -> Booleans:
        """Whether each instrument's days are off-session too often for the candidate chosen for it."""
        strange = _of_each(self.strange, chosen)
        found: Booleans = (strange > _STRANGE_DAYS) & (strange > _STRANGE_SHARE * self.rows)
        return found

    def is_exact(self, chosen: Integers) -> Booleans:
        """Whether hardly any day contradicts the candidate chosen for each instrument."""
        absent = _of_each(self.absent, chosen)
        lacking = (absent > _STRANGE_DAYS) & (absent > 2 * _STRANGE_SHARE * self.rows)
        found: Booleans = ~lacking & ~self.often_strange(chosen) & (self.rows >= _ENOUGH_DAYS)
        return found

    def is_dense(self, chosen: Integers) -> Booleans:
        """Whether each instrument has enough days, and few gaps, for the candidate chosen for it."""
        absent = _of_each(self.absent, chosen)
        due = absent + self.rows - _of_each(self.strange, chosen)
        found: Booleans = (self.rows >= _ENOUGH_DAYS) & (absent <= _GAPS_SHARE * due)
        return found


def _choose(fit: _Fit, spoken: Sequence[str | None]) -> Integers:
    """The candidate of each instrument."""
    exchanges = [fit.add(name) for name in EXCHANGES]
    always = fit.add(ALWAYS)
    chosen = _or_without_holidays(fit, fit.best(exchanges), [always])
    told = np.zeros(len(chosen), dtype=bool)
    for name in dict.fromkeys(name for name in spoken if name):
        own = np.array([each == name for each in spoken])
        try:
            column = fit.add(name)
        except ConfigError as error:
            log.warning("names suggest calendar %s, which is skipped: %s", name, error)
            continue
        fits = fit.strange[:, column] <= fit.strange[:, exchanges].min(axis=1)
        if name == ALWAYS:
            fits &= fit.on_weekends | (fit.rows < _ENOUGH_DAYS)
        told |= own & fits
        chosen = np.where(own & fits, column, chosen)
    chosen = _with_neighbours(fit, chosen, told)
    unknown = _unexplained(fit, chosen) & ~told
    if unknown.any():
        chosen = np.where(unknown, _search(fit, unknown), chosen)
        chosen = _with_neighbours(fit, chosen, told)
    return chosen


def _or_without_holidays(fit: _Fit, chosen: Integers, others: Sequence[int]) -> Integers:
    """For each instrument, the candidate chosen, or the one of `others` (without holidays) that lacks fewer days."""
    misfit = fit.strange + fit.absent
    for number in others:
        chosen = np.where(misfit[:, number] < _of_each(misfit, chosen), number, chosen)
    return chosen


def _with_neighbours(fit: _Fit, chosen: Integers, told: Booleans) -> Integers:
    """Give instruments with few days or many gaps what others follow, if that has no more strange days."""
    strong = told | (fit.is_dense(chosen) & ~fit.often_strange(chosen))
    adopted = sorted({int(number) for number in chosen[strong]})
    if not adopted:
        return chosen
    exchanges = [number for number in adopted if fit.candidates[number][0] != ALWAYS]
    best = fit.best(exchanges or adopted)
    if exchanges and len(exchanges) < len(adopted):
        best = np.where(fit.on_weekends, _or_without_holidays(fit, best, [fit.add(ALWAYS)]), best)
    room = np.maximum(1, _STRANGE_SHARE * fit.rows)
    joins = ~strong & (_of_each(fit.strange, best) <= _of_each(fit.strange, chosen) + room)
    return np.where(joins & (fit.rows > 0), best, chosen)


def _unexplained(fit: _Fit, chosen: Integers) -> Booleans:
    """Whether an instrument with enough days follows none of the calendars that were looked at.

    `24/7` has no day off-session: it explains who trades at weekends too and lacks few days.
    """
    always = np.array([fit.candidates[number][0] == ALWAYS for number in chosen], dtype=bool)
    strange = np.where(always, ~(fit.on_weekends & fit.is_dense(chosen)), fit.often_strange(chosen))
    found: Booleans = strange & (fit.rows >= _ENOUGH_DAYS)
    return found


def _search(fit: _Fit, unknown: Booleans) -> Integers:
    """The candidate of each unknown instrument among all calendars, until one explains each of them.

    Those that `calendar_ranking` finds best are computed, and after them those that its table lacks, until
    `_MOST_IN_VAIN` in a row explain no more. Where the unknown are fewer than `_SEARCHED_SHARE` of all, calendars that
    were tried before are read early, and no other is computed: a few instruments are more likely wrong than in a
    market of their own.
    """
    before = [name for name, _ in fit.candidates]
    without_holidays = [fit.add(ALWAYS), fit.add(WEEKDAYS)]
    others: list[str] = []
    if unknown.mean() >= _SEARCHED_SHARE:
        days = (np.flatnonzero(fit.seen) + fit.lowest).astype("datetime64[D]")
        places = np.flatnonzero(unknown)
        some = places[:: -(-len(places) // _RANKED)]
        others = [*(ranked(fit.has_row[some], days) or WIDELY_TRADED), *unranked()]
    explained = in_vain = 0
    for name in dict.fromkeys([*before, *others]):
        if name in (ALWAYS, WEEKDAYS):
            continue
        in_vain += name not in before
        try:
            fit.add(name)
            fit.add(name, early=1)
        except ConfigError as error:
            log.info("%s is no candidate: %s", name, error)
            continue
        columns = [number for number in range(len(fit.candidates)) if number not in without_holidays]
        best = _or_without_holidays(fit, fit.best(columns), without_holidays)
        exact = fit.is_exact(best)
        joined = ~fit.often_strange(best) & np.isin(best, np.setdiff1d(best[unknown & exact], without_holidays))
        count = int(np.count_nonzero((exact | joined)[unknown]))
        if count > explained:
            explained, in_vain = count, 0
        if explained == np.count_nonzero(unknown) or in_vain >= _MOST_IN_VAIN:
            break
    return best


def _of_each(table: Integers, chosen: Integers) -> Integers:
    """For each row of a table, the value in the column chosen for it."""
    found: Integers = np.take_along_axis(table, chosen[:, np.newaxis], axis=1)[:, 0]
    return found


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

    _mend_orthodox_easter()
    try:
        calendar, low, high = _computed(exchange_calendars, name, first, last)
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(
            f"calendar {name}: exchange_calendars {exchange_calendars.__version__} cannot compute {first_year} to "
            f"{last_year} ({excerpt(str(error), limit=120)}); set calendar.name and calendar.schedule to another "
            f"one, such as {WEEKDAYS}, which has sessions on holidays"
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


def _mend_orthodox_easter() -> None:
    """Give the library's offset the method that pandas 3 calls, for the calendars of Athens, Belgrade, Bucharest and
    Cyprus: it has only the method of pandas 2."""
    from exchange_calendars.pandas_extensions.offsets import OrthodoxEaster
    from pandas.tseries.offsets import Easter

    def add(offset: Any, day: Any) -> Any:
        return day + Easter(offset.n, offset.normalize, method=_ORTHODOX)

    OrthodoxEaster._add_datetime = add


def _computed(library: Any, name: str, first: np.datetime64, last: np.datetime64) -> tuple[Any, Any, Any]:
    """The library's calendar, and the first and last of these days that it knows."""
    import pandas as pd

    if np.datetime64(f"{_FIRST_YEAR}-01-01") <= first and last <= np.datetime64(f"{_LAST_YEAR}-12-31"):
        with suppress(ValueError):  # beyond its bounds, which are known only once it is computed
            return library.get_calendar(name, start=pd.Timestamp(first), end=pd.Timestamp(last)), first, last
    calendar = library.get_calendar(name)
    low = max(first, _day_of(calendar.bound_min(), f"{_FIRST_YEAR}-01-01"))
    high = min(last, _day_of(calendar.bound_max(), f"{_LAST_YEAR}-12-31"))
    if low < high:
        calendar = type(calendar)(start=pd.Timestamp(low), end=pd.Timestamp(high))
    return calendar, low, high


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
