"""What the rules look at besides the parsed columns: measures of each row, each instrument and each session.

All of them are pure functions of the rows, the calendar setting and the `measures` section of the suites' meta. A
row's neighbours are the bars of the same instrument before and after it that have a positive close and factor; rows
may come in any order. Returns are natural logarithms of adjusted prices (raw * factor).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, HIGH, INSTRUMENT, LOW, OPEN, PRECLOSE, PRICES, VOLUME
from mlops_tasks.data.exchanges import calendars
from mlops_tasks.data.exchanges.calendars import CALENDAR
from mlops_tasks.data.exchanges.price_limits import A_SHARES, price_limits
from mlops_tasks.data.exchanges.ticker_suffixes import suggested_calendar
from mlops_tasks.data.sources.parsed import PARSE_ERROR
from mlops_tasks.data.validation import measure_kernels as kernels
from mlops_tasks.data.validation.corporate_actions import Actions, Bars, find_actions, usual_spikes
from mlops_tasks.data.validation.row_kinds import (
    field,
    kinds_of,
    number_instruments,
    read_only,
    repeats_and_rivals,
    stray_days,
)
from mlops_tasks.data.validation.session_measures import (
    common_moves,
    mark_scales,
    missing_shares,
    newest_sessions,
    past_and_newest,
)

_UNLIMITED = re.compile(r"(?i)(?<!\d)1[12]\d{4}(?!\d)|^sh\.?000\d{3}|^000\d{3}\.(?:sh|ss)|(?<!\d)399\d{3}(?!\d)")
"""Convertible bonds and indices of Shanghai and Shenzhen, which have no limit."""
_BORROWING, _TRADING_SHARE, _BORROWED_SHARE = 5, 0.8, 0.1
"""What it takes to open a day that a calendar lacks; see `_Panel._borrow_sessions`."""

Days = NDArray[np.datetime64]


@dataclass(frozen=True)
class Measures:
    """`rows`: the parsed frame (instrument as category) and the measures of each row; `instruments` and `sessions`:
    one row each, RangeIndex. `codes` (int32): the instrument of each row, -1 where it has none. `session_of` (int32):
    the row of `sessions` that each row is a bar of, -1 where it is none. `min_instruments`: as `measure` takes it."""

    rows: pd.DataFrame
    instruments: pd.DataFrame
    sessions: pd.DataFrame
    codes: NDArray[np.int32]
    session_of: NDArray[np.int32]
    min_instruments: int

    def calendar_counts(self) -> dict[str, int]:
        """Calendar to the number of instruments that follow it."""
        counts = self.instruments[CALENDAR].value_counts()
        return {str(name): int(count) for name, count in counts.items()}

    def without(self, rows: NDArray[np.bool_]) -> pd.DataFrame:
        """The sessions, with what is missing of them when these rows are not bars (bool, one per row)."""
        sessions = self.session_of[rows]
        lost = np.bincount(sessions[sessions >= 0], minlength=len(self.sessions))
        if not lost.any():
            return self.sessions
        return self.sessions.assign(**missing_shares(self.sessions, lost, self.min_instruments))


def measure(frame: pd.DataFrame, calendar: str, parameters: Mapping[str, Any]) -> Measures:
    """Measure parsed rows (`PARSED_COLUMNS`, RangeIndex).

    Rows without a trade, exact repeats and stray dates have no part in what is measured of others (`row_kinds`).

    Row measures, NaN or the harmless value where there is no bar to compare with:

    - `no_trade`: 1 without a price, with a close alone at volume 0, or with one price at volume 0 off the calendar or
      after the last day on which anybody traded, else 0
    - `exact_repeat`: 1 where an earlier row is the same in every cell; `rivals`: 1 where other rows have the same key
      and other values
    - `stray_date`: 1 where the day lies far from those of all other rows
    - `on_session`: 1 on a session of the instrument's calendar (and without a key), else 0
    - `high_tolerated`, `low_tolerated`: high and low widened by `price_tolerance`, because float32 sources round
    - `copies`: rows of the day with the same close and the same positive volume
    - `jump`: absolute return since the previous bar; `factor_ratio`: factor over that of the previous bar
    - `factor_gap`: absolute overnight return where the factor changed by enough to account for it, else 0
    - `action_ratio`: ratio of the prices of a split or another action that the factor may lack
    - `displaced`: 1 between two steps of the level that undo each other and are not trades, else 0
    - `idle`: bars in a row up to this one without a trade
    - `repeats`, `flat_repeats`: bars in a row before this one that are the same in all five fields, volume not 0;
      flat ones (one price) counted by themselves
    - `spike`: how far the whole bar lies from the previous close and the next open, where those agree within
      `spike_agreement`, and it is farther than `spike_deviations` usual days and two market moves
    - `sessions_missing`: sessions between this bar and the previous one

    Instrument measures: `rows`, those of them that are `bars`, `first_date`, `last_date`, `longest_gap` (sessions) and
    its end `gap_on`; `case_clash`: the name, where another instrument with more rows differs from it only in case, else
    null; number and newest date of rows `below_zero`; `utc_dates`: 1 where its days are those before the sessions of a
    calendar; the count, newest date and ratio of `splits` (actions without a factor), `factor_errors`, `recycleds`
    (another company's beginnings), `price_units` (all of `corporate_actions`) and `volume_units`.

    Session measures, for each calendar from its first to its last row: `bars`; `newest`: 1 on the last one, unless
    other calendars went on without it; and, where at least `min_instruments` could have had one, else NaN,
    `missing_share` of the instruments whose bars lie around it, `jumping_share` of the instruments that moved more than
    `jump`, `repeated_share`, and median `price_ratio` and `volume_ratio` to the previous bar. On the newest session
    the shares are `newest_missing_share` (of the instruments with a bar on the previous session) and
    `newest_repeated_share` instead. `price_scale` and `volume_scale`: the ratio where it is a change of scale
    (`session_measures`), else NaN.
    """
    panel = _Panel(frame, calendar)
    rows = _row_measures(panel, parameters)
    statistics = _session_statistics(panel, rows["repeats"], float(parameters["jump"]))
    actions = _actions(panel, rows, statistics, parameters)
    rows |= _action_measures(panel, actions)
    measured = pd.DataFrame(rows, copy=False)
    sessions, session_of = _session_measures(panel, statistics, parameters)
    return Measures(
        pd.concat([frame.drop(columns=INSTRUMENT), measured], axis=1),
        _instrument_measures(panel, rows, actions, parameters),
        sessions,
        panel.codes,
        session_of,
        int(parameters["min_instruments"]),
    )


class _Panel:
    """The frame's columns as arrays, its instruments, days, calendars and the order of its bars."""

    def __init__(self, frame: pd.DataFrame, calendar: str) -> None:
        self.frame = frame
        self.codes, self.names = number_instruments(frame[INSTRUMENT])
        self.kinds = kinds_of(frame)
        self.days, self.first_day, self.day_count = self._days()
        self._drop_days_to_come()
        self.stray = self._drop_stray_days()
        self.rows_of = kernels.count_keys(self.codes, len(self.names))
        self.order = kernels.order_rows(self.codes, self.days, len(self.names))
        self.repeats, self.rivals = self._drop_repeats()
        self.calendar_of, self.utc_dates = self._calendars(calendar)
        self.calendar_names = sorted(set(self.calendar_of))
        usable = (self.column(CLOSE) > 0) & (self.column(FACTOR) > 0)
        usable[self.rivals] = False
        self.chain = kernels.keep(self.order, usable)

    def _days(self) -> tuple[NDArray[np.int32], int, int]:
        """Each row's day since the earliest, that day and the number of days; -1: without a date or a trade."""
        moments = self.frame[DATETIME].to_numpy().astype("datetime64[ns]", copy=False)
        days, first = kernels.number_days(read_only(moments.view(np.int64)), self.kinds)
        return days, first, int(days.max(initial=-1)) + 1

    def _drop_days_to_come(self) -> None:
        """Rows after the last day on which anybody traded, with one price at volume 0, belong to future days or dead
        names and count as no trade."""
        idle = self.column(VOLUME) == 0
        if not idle.any():
            return
        last = int(self.days[~idle].max(initial=-1))
        late = np.flatnonzero(idle & (self.days > last)) if last >= 0 else np.empty(0, dtype=np.int64)
        late = late[self._one_price(late)]
        self.kinds[late], self.days[late] = kernels.NO_TRADE, -1
        self.day_count = int(self.days.max(initial=-1)) + 1

    def _one_price(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        opened, high, low, close = (values[rows] for values in self.columns(*PRICES))
        found: NDArray[np.bool_] = (opened == close) & (high == close) & (low == close)
        return found

    def _drop_stray_days(self) -> NDArray[np.int64]:
        """The rows whose day lies far from all others; they are left without a day."""
        first, last = stray_days(self.days, self.codes, self.day_count)
        if (first, last) == (0, self.day_count - 1):
            return np.empty(0, dtype=np.int64)
        stray = np.flatnonzero((self.days >= 0) & ((self.days < first) | (self.days > last)))
        self.days = np.where(self.days > last, -1, self.days - first).clip(-1).astype(np.int32)
        self.first_day, self.day_count = self.first_day + first, last - first + 1
        return stray

    def _drop_repeats(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Exact repeats, which are left without a day, and rows that share a key with another one."""
        shared = kernels.find_repeated_keys(self.order, self.codes, self.days)
        if not len(shared):
            return shared, shared
        repeats, rivals = repeats_and_rivals(self.frame, shared)
        self.days[repeats] = -1
        self.order = self.order[self.days[self.order] >= 0]
        return repeats, rivals

    def column(self, name: str) -> NDArray[np.float64]:
        """A field, as the kernels take it."""
        return field(self.frame, name)

    def columns(self, *names: str) -> tuple[NDArray[np.float64], ...]:
        return tuple(self.column(name) for name in names)

    def dates(self, days: NDArray[Any]) -> Days:
        return (days.astype(np.int64) + self.first_day).astype("datetime64[D]")

    def dates_of(self, rows: NDArray[Any]) -> Days:
        """Dates of rows with a key; NaT for row -1."""
        return np.where(rows >= 0, self.dates(self.days[rows]), np.datetime64("NaT"))

    def _calendars(self, calendar: str) -> tuple[list[str], NDArray[np.bool_]]:
        """The calendar of each instrument, and whether its days are a day early. Both follow from its days and what
        its name suggests, so equal ones are looked up once."""
        with_rows = kernels.count_keys(self.days, self.day_count) > 0
        seen = self._trading_days(with_rows)
        present = np.zeros((len(self.names), int(seen.sum())), dtype=bool)
        whole = np.array_equal(seen, with_rows)
        traded = self.days if whole else np.where(seen[self.days], self.days, -1).astype(np.int32)
        kernels.mark_presence(self.codes, traded, (np.cumsum(seen) - 1).astype(np.int32), present)
        numbers: dict[bytes, int] = {}
        spoken = [(suggested_calendar(name) or "").encode() for name in self.names]
        pattern_of = np.array(
            [
                numbers.setdefault(row.tobytes() + word, len(numbers))
                for row, word in zip(np.packbits(present, axis=1), spoken, strict=True)
            ],
            dtype=np.int64,
        )
        firsts = np.unique(pattern_of, return_index=True)[1]
        patterns, places = np.nonzero(present[firsts])
        days = self.dates(np.flatnonzero(seen)[places])
        names = [self.names[first] for first in firsts]
        found = calendars.followed_calendars(calendar, patterns, days, len(numbers), names)
        return [found.calendars[pattern] for pattern in pattern_of], found.day_early[pattern_of]

    def _trading_days(self, with_rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The days with rows on which anybody traded: a day on which all volumes are zero says nothing about a
        calendar, unless all days are like that."""
        idle = self.column(VOLUME) == 0
        if not idle.any():
            return with_rows
        traded = kernels.count_keys(self.days[~idle], self.day_count) > 0
        return traded if traded.any() else with_rows

    @cached_property
    def idle(self) -> NDArray[np.int64]:
        """Rows off the calendar that repeat one price without a volume: a holiday that a vendor filled."""
        off = np.flatnonzero(self.placed[2] == 0)
        off = off[self.column(VOLUME)[off] == 0]
        return off[self._one_price(off)]

    @cached_property
    def session_tables(self) -> tuple[NDArray[np.int32], NDArray[np.int8], NDArray[np.int32]]:
        """For each calendar and day since the first: sessions until then, and whether it is one; and the number of
        sessions of the calendars before each, the total at the end."""
        return self._sessions[0]

    @cached_property
    def placed(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int8]]:
        """For each row: sessions of its calendar up to its day, its session's number, whether it is on one."""
        return self._sessions[1]

    @cached_property
    def _sessions(self) -> tuple[Any, Any]:
        """`session_tables` and `placed`."""
        opened = np.zeros((len(self.calendar_names), self.day_count), dtype=np.int8)
        if self.day_count:
            first, last = self.dates(np.array([0, self.day_count - 1]))
            for number, name in enumerate(self.calendar_names):
                opened[number, calendars.sessions(name, first, last).astype(np.int64) - self.first_day] = 1
        tables = _tables(opened)
        placed = self._place(tables)
        if self._borrow_sessions(opened, np.flatnonzero(placed[2] == 0)):
            tables = _tables(opened)
            placed = self._place(tables)
        return tables, placed

    def _place(self, tables: Any) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int8]]:
        count = len(self.codes)
        until, sessions = np.zeros(count, dtype=np.int32), np.full(count, -1, dtype=np.int32)
        on_session = np.ones(count, dtype=np.int8)
        kernels.place_days((self.codes, self.days), self.calendar_codes, tables, (until, sessions, on_session))
        return until, sessions, on_session

    def _borrow_sessions(self, opened: NDArray[np.int8], off: NDArray[np.int64]) -> bool:
        """Open the days that a calendar lacks and on which nearly all of its instruments trade; return whether any are.

        On such a day at least `_BORROWING` instruments have bars around it, and `_TRADING_SHARE` of them a bar on it
        with a volume that is not zero and that is not the previous bar. More than `_BORROWED_SHARE` of a calendar's
        days are not special sessions: it is the wrong calendar.
        """
        off = off[~self.utc_dates[self.codes[off]]]
        if len(off) < _BORROWING:
            return False
        traded = off[(self.column(VOLUME)[off] != 0) & ~self._is_stale(off)]
        owners = self.calendar_codes[self.codes[traded]].astype(np.int64)
        keys, counts = np.unique(owners * self.day_count + self.days[traded], return_counts=True)
        known, begun, ended = self.spans[0] >= 0, *(self.days[span] for span in self.spans)
        found = False
        for number in np.unique(keys // self.day_count):
            own, of_calendar = keys // self.day_count == number, known & (self.calendar_codes == number)
            days = keys[own] % self.day_count
            around = np.array([np.count_nonzero(of_calendar & (begun <= day) & (ended >= day)) for day in days])
            special = days[(around >= _BORROWING) & (counts[own] >= _TRADING_SHARE * around)]
            span = ended[of_calendar].max() - begun[of_calendar].min() + 1
            if 0 < len(special) <= _BORROWED_SHARE * max(span, 10):
                opened[number, special] = 1
                found = True
        return found

    def _is_stale(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each row (ascending, with a key) repeats close and volume of the previous bar."""
        marked = np.zeros(len(self.codes), dtype=bool)
        marked[rows] = True
        places = kernels.find_places(self.order, marked)
        places = places[np.argsort(self.order[places])]
        before = self.order[np.maximum(places - 1, 0)]
        same = (self.codes[before] == self.codes[rows]) & (before != rows)
        for values in self.columns(CLOSE, VOLUME):
            same &= (values[before] == values[rows]) | (np.isnan(values[before]) & np.isnan(values[rows]))
        return same

    @cached_property
    def calendar_codes(self) -> NDArray[np.int32]:
        """The calendar of each instrument, as a position in `calendar_names`."""
        return np.array([self.calendar_names.index(name) for name in self.calendar_of], dtype=np.int32)

    @cached_property
    def spans(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last row by day of each instrument, -1 where none has a day."""
        first, last = np.full(len(self.names), -1, dtype=np.int64), np.full(len(self.names), -1, dtype=np.int64)
        known = np.diff(self.begins) > 0
        first[known] = self.order[self.begins[:-1][known]]
        last[known] = self.order[self.begins[1:][known] - 1]
        return first, last

    @cached_property
    def begins(self) -> NDArray[np.int64]:
        """Where each instrument begins in `order`, and its length."""
        return kernels.find_begins(self.order, self.codes, len(self.names))


@dataclass(frozen=True)
class _SessionStatistics:
    """One value for each session of each calendar: bars on it, instruments that moved since their previous bar, jumped
    and repeat it, and median ratios to it (NaN where none moved)."""

    bars: NDArray[np.int64]
    moved: NDArray[np.int32]
    jumped: NDArray[np.int32]
    repeated: NDArray[np.int32]
    price_ratio: NDArray[np.float64]
    volume_ratio: NDArray[np.float64]


def _tables(opened: NDArray[np.int8]) -> tuple[NDArray[np.int32], NDArray[np.int8], NDArray[np.int32]]:
    totals = opened.sum(axis=1, dtype=np.int32)
    before = np.concatenate([[0], np.cumsum(totals)]).astype(np.int32)
    return np.cumsum(opened, axis=1, dtype=np.int32), opened, before


def _row_measures(panel: _Panel, parameters: Mapping[str, Any]) -> dict[str, Any]:
    count, chain, codes = len(panel.codes), panel.chain, panel.codes
    tolerance = parameters["price_tolerance"]
    copies, missing = np.ones(count, dtype=np.int32), np.zeros(count, dtype=np.int32)
    kernels.count_copies(panel.days, *panel.columns(CLOSE, VOLUME), panel.day_count, copies)
    moves = {name: np.full(count, np.nan, dtype=np.float32) for name in ("jump", "factor_ratio", "factor_gap")}
    kernels.measure_moves(chain, codes, panel.columns(OPEN, CLOSE, FACTOR), tuple(moves.values()))
    repeats, flat_repeats, idle = (np.zeros(count, dtype=np.int16) for _ in range(3))
    kernels.measure_repeats(chain, codes, panel.columns(*PRICES, VOLUME), (repeats, flat_repeats, idle))
    spike = np.zeros(count, dtype=np.float32)
    kernels.measure_spikes(chain, codes, panel.columns(*PRICES, FACTOR), float(parameters["spike_reach"]), spike)
    until, _, on_session = panel.placed
    kernels.measure_gaps(chain, codes, until, missing)
    return {
        INSTRUMENT: pd.Categorical.from_codes(codes, pd.Index(panel.names, dtype="str")),
        "no_trade": _no_trade(panel),
        "exact_repeat": _marked(count, panel.repeats),
        "rivals": _marked(count, panel.rivals),
        "stray_date": _marked(count, panel.stray),
        "on_session": on_session,
        "high_tolerated": panel.column(HIGH) * (1 + tolerance),
        "low_tolerated": panel.column(LOW) * (1 - tolerance),
        "copies": copies,
        **moves,
        "repeats": repeats,
        "flat_repeats": flat_repeats,
        "idle": idle,
        "spike": spike,
        "sessions_missing": missing,
    }


def _no_trade(panel: _Panel) -> NDArray[np.int8]:
    """Rows without a trade, except those of which a cell or the whole row could not be read: these are bad rows."""
    marks = _marked(len(panel.codes), np.concatenate([np.flatnonzero(panel.kinds == kernels.NO_TRADE), panel.idle]))
    marks[panel.frame[PARSE_ERROR].notna().to_numpy()] = 0
    return marks


def _marked(count: int, rows: NDArray[Any]) -> NDArray[np.int8]:
    marks = np.zeros(count, dtype=np.int8)
    marks[rows] = 1
    return marks


def _case_clash(panel: _Panel) -> list[str | None]:
    """The name of each instrument that another one with more rows (of as many: the first by name) spells otherwise."""
    spelled = pd.Series(panel.names, dtype="str")
    clashing = np.flatnonzero(spelled.str.lower().duplicated(keep=False).to_numpy())
    found: list[str | None] = [None] * len(panel.names)
    kept: dict[str, int] = {}
    for code in sorted(clashing.tolist(), key=lambda code: (-panel.rows_of[code], panel.names[code])):
        if kept.setdefault(panel.names[code].lower(), code) != code:
            found[code] = panel.names[code]
    return found


def _below_zero(panel: _Panel) -> dict[str, Any]:
    """Rows of each instrument with prices below zero, and the newest day of them."""
    rows = np.flatnonzero((panel.kinds == kernels.BELOW_ZERO) & (panel.codes >= 0) & (panel.days >= 0))
    rows = rows[np.argsort(panel.days[rows], kind="stable")]
    newest = np.full(len(panel.names), -1, dtype=np.int64)
    newest[panel.codes[rows]] = rows
    return {
        "below_zero": np.bincount(panel.codes[rows], minlength=len(panel.names)),
        "below_zero_on": panel.dates_of(newest).astype("datetime64[s]"),
    }


def _actions(
    panel: _Panel, rows: Mapping[str, Any], statistics: _SessionStatistics, parameters: Mapping[str, Any]
) -> Actions:
    """What is found in the jumps of the panel; see `corporate_actions`."""
    _, sessions, _ = panel.placed
    judged = (statistics.moved >= parameters["min_instruments"]) & (statistics.price_ratio > 0)
    market = np.zeros(len(judged) + 1)
    market[:-1][judged] = np.log(statistics.price_ratio[judged])
    limited = np.array(
        [
            kind == A_SHARES and not _UNLIMITED.search(name)
            for name, kind in zip(panel.names, panel.calendar_of, strict=True)
        ],
        dtype=bool,
    )
    of_name = dict(zip(panel.names, panel.calendar_of, strict=True))

    def limits(places: NDArray[np.int64]) -> NDArray[np.float64]:
        found = np.full(len(places), np.inf)
        held = np.flatnonzero(limited[panel.codes[places]])
        names = pd.Categorical.from_codes(panel.codes[places[held]], pd.Index(panel.names, dtype="str"))
        index = pd.MultiIndex.from_arrays([names, panel.dates_of(places[held])], names=[INSTRUMENT, DATETIME])
        found[held] = price_limits(index, of_name)
        return found

    opened, high, low, close, volume, factor = panel.columns(*PRICES, VOLUME, FACTOR)
    sane, after_slip = _sane(panel, rows)
    bars = Bars(
        chain=sane,
        codes=panel.codes,
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=volume,
        factor=factor,
        preclose=panel.column(PRECLOSE) if PRECLOSE in panel.frame else None,
        missing=rows["sessions_missing"],
        idle=rows["idle"],
        market=lambda places: market[sessions[places]],
        limits=limits,
        limited=limited,
        after_slip=after_slip,
    )
    rows["spike"][usual_spikes(bars, rows["spike"], parameters)] = 0
    return find_actions(bars, rows["jump"], parameters)


def _sane(panel: _Panel, rows: Mapping[str, Any]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The rows of the chain whose close lies within their range, since a typing error is not a jump; and the rows after
    the others."""
    close = panel.column(CLOSE)
    odd = close > rows["high_tolerated"]
    odd |= close < rows["low_tolerated"]
    after = kernels.find_places(panel.chain, odd) + 1
    return kernels.keep(panel.chain, ~odd), panel.chain[after[after < len(panel.chain)]].astype(np.int64)


def _action_measures(panel: _Panel, actions: Actions) -> dict[str, Any]:
    ratio, displaced = np.full(len(panel.codes), np.nan, np.float32), np.zeros(len(panel.codes), np.int8)
    places = [row for row, _ in actions.possible]
    ratio[places] = [value for _, value in actions.possible]
    displaced[actions.displaced] = 1
    return {"action_ratio": ratio, "displaced": displaced}


def _instrument_measures(
    panel: _Panel, rows: Mapping[str, Any], actions: Actions, parameters: Mapping[str, Any]
) -> pd.DataFrame:
    first, last = panel.spans
    gap, gap_row = _largest(panel, rows["sessions_missing"])
    chain, codes = panel.chain, panel.codes
    units, bars = _both_ways(parameters["volume_units"]), int(parameters["volume_unit_bars"])
    volume_units = kernels.find_volume_breaks(chain, codes, panel.columns(VOLUME, FACTOR), units, bars)
    return pd.DataFrame(
        {
            INSTRUMENT: pd.array(panel.names, dtype="str"),
            CALENDAR: pd.array(panel.calendar_of, dtype="str"),
            "rows": panel.rows_of,
            "bars": np.diff(panel.begins),
            "case_clash": pd.array(_case_clash(panel), dtype="str"),
            "utc_dates": panel.utc_dates.astype(np.int8),
            **_below_zero(panel),
            "first_date": panel.dates_of(first).astype("datetime64[s]"),
            "last_date": panel.dates_of(last).astype("datetime64[s]"),
            "longest_gap": gap.astype(np.int64),
            "gap_on": panel.dates_of(gap_row).astype("datetime64[s]"),
            **_events(panel, "split", actions.splits),
            **_events(panel, "factor_error", actions.factor_errors),
            **_events(panel, "recycled", actions.recycled),
            **_events(panel, "price_unit", actions.units),
            **_events(panel, "volume_unit", volume_units),
        }
    )


def _both_ways(ratios: list[float]) -> NDArray[np.float64]:
    upwards = np.array(ratios, dtype=np.float64)
    return np.sort(np.concatenate([1 / upwards, upwards]))


def _largest(panel: _Panel, values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Largest positive value of each instrument and its row; 0 and -1 where there is none."""
    rows = np.flatnonzero(values > 0)
    rows = rows[np.lexsort((panel.days[rows], values[rows]))]
    largest, at = np.zeros(len(panel.names)), np.full(len(panel.names), -1, dtype=np.int64)
    largest[panel.codes[rows]], at[panel.codes[rows]] = values[rows], rows
    return largest, at


def _events(panel: _Panel, name: str, found: list[tuple[int, float]]) -> dict[str, Any]:
    """Count, newest date and ratio of an event for each instrument; `found` is in the order of days."""
    rows = np.array([row for row, _ in found], dtype=np.int64)
    ratios = np.array([ratio for _, ratio in found], dtype=np.float64)
    newest, ratio = np.full(len(panel.names), -1, dtype=np.int64), np.full(len(panel.names), np.nan)
    newest[panel.codes[rows]], ratio[panel.codes[rows]] = rows, ratios
    return {
        f"{name}s": np.bincount(panel.codes[rows], minlength=len(panel.names)),
        f"{name}_ratio": ratio,
        f"{name}_on": panel.dates_of(newest).astype("datetime64[s]"),
    }


def _session_statistics(panel: _Panel, repeats: NDArray[np.int16], jump: float) -> _SessionStatistics:
    _, sessions, _ = panel.placed
    total = int(panel.session_tables[2][-1])
    moved, jumped, repeated = (np.zeros(total, dtype=np.int32) for _ in range(3))
    price_ratio, volume_ratio = (np.full(total, np.nan) for _ in range(2))
    found = (moved, jumped, repeated, price_ratio, volume_ratio)
    bars = kernels.count_keys(sessions, total)
    kernels.measure_sessions(
        panel.chain, (panel.codes, sessions, repeats, bars), panel.columns(CLOSE, VOLUME, FACTOR), jump, found
    )
    return _SessionStatistics(bars, moved, jumped, repeated, price_ratio, volume_ratio)


def _session_measures(
    panel: _Panel, statistics: _SessionStatistics, parameters: Mapping[str, Any]
) -> tuple[pd.DataFrame, NDArray[np.int32]]:
    """The sessions, and the session of each row (-1: of none)."""
    _, opened, offsets = panel.session_tables
    _, sessions, _ = panel.placed
    total, bars, moved = int(offsets[-1]), statistics.bars, statistics.moved
    enough = np.where(moved >= parameters["min_instruments"], 1.0, np.nan)
    measured = {"price_ratio": statistics.price_ratio * enough, "volume_ratio": statistics.volume_ratio * enough}
    measured |= _common_moves(panel, measured["price_ratio"], parameters)
    shares = {
        "jumping_share": statistics.jumped / (moved * enough),
        "repeated_share": statistics.repeated / (moved * enough),
    }
    numbers = np.full(total, -1, dtype=np.int32)
    frames, count = [], 0
    for number, name in enumerate(panel.calendar_names):
        live, expected = _live(panel, number)
        kept = offsets[number] + np.flatnonzero(live)
        days = panel.dates(np.flatnonzero(opened[number])[live])
        newest = newest_sessions(days, panel.dates(np.array([panel.day_count - 1]))[0])
        own = {key: values[kept] for key, values in measured.items()}
        scales = mark_scales(own, newest, parameters)
        frame = pd.DataFrame(
            {
                CALENDAR: pd.array([name] * len(kept), dtype="str"),
                DATETIME: days.astype("datetime64[s]"),
                "instruments": expected[live],
                "bars": bars[kept],
                "newest": newest.astype(np.int8),
                "jumping_share": shares["jumping_share"][kept],
                **past_and_newest("repeated_share", shares["repeated_share"][kept], newest),
                **own,
                "price_scale": scales[0],
                "volume_scale": scales[1],
            }
        )
        nothing = np.zeros(len(frame), dtype=np.int64)
        frames.append(frame.assign(**missing_shares(frame, nothing, int(parameters["min_instruments"]))))
        numbers[kept] = np.arange(count, count + len(kept))
        count += len(kept)
    empty = pd.DataFrame({CALENDAR: pd.array([], dtype="str"), DATETIME: np.empty(0, "datetime64[s]")})
    found = pd.concat(frames, ignore_index=True) if frames else empty
    return found, kernels.look_up(numbers, sessions)


def _common_moves(
    panel: _Panel, price_ratio: NDArray[np.float64], parameters: Mapping[str, Any]
) -> dict[str, NDArray[np.float64]]:
    """`overnight_ratio` and `price_spread` of the sessions that may be a change of scale, NaN of all others."""
    chosen = np.flatnonzero(common_moves(price_ratio, parameters))
    found = {name: np.full(len(price_ratio), np.nan) for name in ("overnight_ratio", "price_spread")}
    if len(chosen):
        place_of = np.full(len(price_ratio), -1, dtype=np.int32)
        place_of[chosen] = np.arange(len(chosen))
        out = np.empty(len(chosen)), np.empty(len(chosen))
        _, sessions, _ = panel.placed
        fields = panel.columns(OPEN, CLOSE, FACTOR)
        kernels.measure_common_moves(panel.chain, (panel.codes, sessions), fields, place_of, out)
        for values, measured in zip(found.values(), out, strict=True):
            values[chosen] = measured
    return found


def _live(panel: _Panel, number: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """For each session of a calendar: whether it lies between the calendar's first and last row, and the number of
    instruments that are expected to have a bar."""
    until = panel.session_tables[0][number]
    first, last = panel.spans
    own = (panel.calendar_codes == number) & (first >= 0)
    total = int(until[-1]) if len(until) else 0
    live, change = np.zeros(total, dtype=bool), np.zeros(total + 1, dtype=np.int64)
    if not own.any():
        return live, change[:-1]
    opened = panel.session_tables[1][number]
    begins = (until - opened)[panel.days[first[own]]]
    ends = until[panel.days[last[own]]]
    newest = int(ends.max())
    live[int(begins.min()) : newest] = True
    # Instruments with a bar on the session before the newest are expected on the newest: else none could be missing.
    ends = np.where(ends == newest - 1, newest, ends)
    np.add.at(change, begins, 1)
    np.add.at(change, ends, -1)
    return live, np.cumsum(change)[:-1]
