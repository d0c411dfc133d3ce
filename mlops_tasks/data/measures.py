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

from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, HIGH, INSTRUMENT, LOW, OPEN, PRICES, VOLUME
from mlops_tasks.data import calendars
from mlops_tasks.data import measure_kernels as kernels
from mlops_tasks.data.calendars import CALENDAR
from mlops_tasks.data.corporate_actions import Actions, Bars, find_actions, usual_spikes
from mlops_tasks.data.price_limits import A_SHARES, price_limits

_DAY_NS = 86_400_000_000_000
_UNLIMITED = re.compile(r"(?i)(?<!\d)1[12]\d{4}(?!\d)|^sh\.?000\d{3}|^000\d{3}\.(?:sh|ss)|(?<!\d)399\d{3}(?!\d)")
"""Convertible bonds and indices of Shanghai and Shenzhen, which have no limit."""
PRECLOSE = "preclose"
"""Optional column: the close before, adjusted by the exchange for the action of the day."""

Days = NDArray[np.datetime64]


@dataclass(frozen=True)
class Measures:
    """`rows`: the parsed frame (instrument as category) and the measures of each row; `instruments` and `sessions`:
    one row each, RangeIndex. `codes` (int32): the instrument of each row, -1 where it has none."""

    rows: pd.DataFrame
    instruments: pd.DataFrame
    sessions: pd.DataFrame
    codes: NDArray[np.int32]

    def calendar_counts(self) -> dict[str, int]:
        """Calendar to the number of instruments that follow it."""
        counts = self.instruments[CALENDAR].value_counts()
        return {str(name): int(count) for name, count in counts.items()}


def measure(frame: pd.DataFrame, calendar: str, parameters: Mapping[str, Any]) -> Measures:
    """Measure parsed rows (`PARSED_COLUMNS`, RangeIndex).

    Row measures, NaN or the harmless value where there is no bar to compare with:

    - `on_session`: 1 on a session of the instrument's calendar (and without a key), else 0
    - `high_tolerated`, `low_tolerated`: high and low widened by `price_tolerance`, because float32 sources round
    - `case_clash`: the name, where another instrument differs only in case, else null
    - `copies`: rows of the day with the same close and the same positive volume
    - `jump`: absolute return since the bar before; `factor_ratio`: factor over that of the bar before
    - `factor_gap`: absolute overnight return where the factor changed by enough to account for it, else 0
    - `action_ratio`: ratio of the prices of a split or another action that the factor may lack
    - `displaced`: 1 between two steps of the level that undo each other and are no trades, else 0
    - `idle`: bars in a row up to this one without a trade
    - `repeats`, `flat_repeats`: bars in a row before this one that are the same in all five fields, volume not 0;
      flat ones (one price) counted by themselves
    - `spike`: how far the whole bar lies from the close before and the open after, where those agree within
      `spike_agreement`, and it is farther than `spike_deviations` usual days and two market moves
    - `sessions_missing`: sessions between this bar and the one before

    Instrument measures: `rows`, `first_date`, `last_date`, `longest_gap` (sessions) and its end `gap_on`; the count,
    newest date and ratio of `splits` (actions without a factor), `factor_errors`, `recycleds` (another company's
    beginnings; `corporate_actions`), `price_units` and `volume_units`.

    Session measures, for each calendar from its first to its last row: `bars`; and, where at least `min_instruments`
    could have had one, else NaN, `missing_share` of the instruments whose bars lie around it (of those with a bar
    on the session before, on the newest), `jumping_share` of the instruments that moved more than `jump`,
    `repeated_share`, and median `price_ratio` and `volume_ratio` to the bar before.
    """
    panel = _Panel(frame, calendar)
    rows = _row_measures(panel, parameters)
    statistics = _session_statistics(panel, rows["repeats"], float(parameters["jump"]))
    actions = _actions(panel, rows, statistics, parameters)
    rows |= _action_measures(panel, actions)
    measured = pd.DataFrame(rows, copy=False)
    return Measures(
        pd.concat([frame.drop(columns=INSTRUMENT), measured], axis=1),
        _instrument_measures(panel, rows, actions, parameters),
        _session_measures(panel, statistics, parameters),
        panel.codes,
    )


class _Panel:
    """The frame's columns as arrays, its instruments, days, calendars and the order of its bars."""

    def __init__(self, frame: pd.DataFrame, calendar: str) -> None:
        self.frame = frame
        codes, names = pd.factorize(frame[INSTRUMENT])
        self.codes = codes.astype(np.int32)
        self.names = [str(name) for name in names]
        moments = _read_only(frame[DATETIME].to_numpy().astype("datetime64[ns]", copy=False).view(np.int64))
        self.days, self.first_day = kernels.number_days(moments, _DAY_NS, np.iinfo(np.int64).min)
        self.day_count = int(self.days.max(initial=-1)) + 1
        keyed = (self.codes >= 0) & (self.days >= 0)
        self.calendar_of = self._calendars(calendar)
        self.calendar_names = sorted(set(self.calendar_of))
        self.rows_of = kernels.count_keys(self.codes, len(self.names))
        self.order = self._order(keyed)
        usable = keyed & (self.column(CLOSE) > 0) & (self.column(FACTOR) > 0)
        self.chain = self.order if usable.all() else self.order[usable[self.order]]

    def column(self, name: str) -> NDArray[np.float64]:
        """A field, as the kernels take it."""
        return _read_only(self.frame[name].to_numpy(dtype=np.float64))

    def columns(self, *names: str) -> tuple[NDArray[np.float64], ...]:
        return tuple(self.column(name) for name in names)

    def dates(self, days: NDArray[Any]) -> Days:
        return (days.astype(np.int64) + self.first_day).astype("datetime64[D]")

    def dates_of(self, rows: NDArray[Any]) -> Days:
        """Dates of rows with a key; NaT for row -1."""
        return np.where(rows >= 0, self.dates(self.days[rows]), np.datetime64("NaT"))

    def by_day(self) -> NDArray[np.int32]:
        """The rows with a key in the order of their days."""
        return kernels.bucket_order(np.flatnonzero(self.days >= 0).astype(np.int32), self.days, self.day_count)

    def _calendars(self, calendar: str) -> list[str]:
        """The calendar of each instrument: it follows from its days, so those of equal days are asked about once."""
        seen = kernels.count_keys(self.days, self.day_count) > 0
        present = np.zeros((len(self.names), int(seen.sum())), dtype=bool)
        kernels.mark_presence(self.codes, self.days, (np.cumsum(seen) - 1).astype(np.int32), present)
        numbers: dict[bytes, int] = {}
        pattern_of = [numbers.setdefault(row.tobytes(), len(numbers)) for row in np.packbits(present, axis=1)]
        firsts = np.unique(np.array(pattern_of, dtype=np.int64), return_index=True)[1]
        patterns, places = np.nonzero(present[firsts])
        days = self.dates(np.flatnonzero(seen)[places])
        found = calendars.instrument_calendars(calendar, patterns, days, len(numbers))
        return [found[pattern] for pattern in pattern_of]

    def _order(self, keyed: NDArray[np.bool_]) -> NDArray[np.int32]:
        rows = np.flatnonzero(keyed).astype(np.int32)
        if kernels.is_ordered(self.codes, self.days):
            return rows
        by_day = kernels.bucket_order(rows, self.days, self.day_count)
        return kernels.bucket_order(by_day, self.codes, len(self.names))

    @cached_property
    def session_tables(self) -> tuple[NDArray[np.int32], NDArray[np.int8], NDArray[np.int32]]:
        """Of each calendar and day since the first: sessions until then, and whether it is one; and the number of
        sessions of the calendars before each, that of all at the end."""
        opened = np.zeros((len(self.calendar_names), self.day_count), dtype=np.int8)
        if self.day_count:
            first, last = self.dates(np.array([0, self.day_count - 1]))
            for number, name in enumerate(self.calendar_names):
                opened[number, calendars.sessions(name, first, last).astype(np.int64) - self.first_day] = 1
        totals = opened.sum(axis=1, dtype=np.int32)
        before = np.concatenate([[0], np.cumsum(totals)]).astype(np.int32)
        return np.cumsum(opened, axis=1, dtype=np.int32), opened, before

    @cached_property
    def calendar_codes(self) -> NDArray[np.int32]:
        """The calendar of each instrument, as a position in `calendar_names`."""
        return np.array([self.calendar_names.index(name) for name in self.calendar_of], dtype=np.int32)

    @cached_property
    def placed(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int8]]:
        """Of each row: sessions of its calendar up to its day, its session's number, whether it is on one."""
        count = len(self.codes)
        until, sessions = np.zeros(count, dtype=np.int32), np.full(count, -1, dtype=np.int32)
        on_session = np.ones(count, dtype=np.int8)
        kernels.place_days(
            (self.codes, self.days), self.calendar_codes, self.session_tables, (until, sessions, on_session)
        )
        return until, sessions, on_session

    @cached_property
    def spans(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last row by day of each instrument, -1 where none has a day."""
        first, last = np.full(len(self.names), -1, dtype=np.int64), np.full(len(self.names), -1, dtype=np.int64)
        if len(self.order):
            owners = self.codes[self.order]
            changes = np.flatnonzero(owners[1:] != owners[:-1]) + 1
            begins, ends = np.concatenate([[0], changes]), np.concatenate([changes, [len(owners)]]) - 1
            first[owners[begins]], last[owners[ends]] = self.order[begins], self.order[ends]
        return first, last


@dataclass(frozen=True)
class _SessionStatistics:
    """One value for each session of each calendar: bars on it, instruments that moved since their bar before, jumped
    and repeat it, and median ratios to it (NaN where none moved)."""

    bars: NDArray[np.int64]
    moved: NDArray[np.int32]
    jumped: NDArray[np.int32]
    repeated: NDArray[np.int32]
    price_ratio: NDArray[np.float64]
    volume_ratio: NDArray[np.float64]


def _read_only(values: NDArray[Any]) -> NDArray[Any]:
    """Contiguous and read only: the one form that the kernels are compiled for."""
    view = np.ascontiguousarray(values).view()
    view.flags.writeable = False
    return view


def _row_measures(panel: _Panel, parameters: Mapping[str, Any]) -> dict[str, Any]:
    count, chain, codes = len(panel.codes), panel.chain, panel.codes
    tolerance = parameters["price_tolerance"]
    copies, missing = np.ones(count, dtype=np.int32), np.zeros(count, dtype=np.int32)
    kernels.count_copies(panel.by_day(), panel.days, *panel.columns(CLOSE, VOLUME), copies)
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
        "on_session": on_session,
        "high_tolerated": panel.column(HIGH) * (1 + tolerance),
        "low_tolerated": panel.column(LOW) * (1 - tolerance),
        "case_clash": _case_clash(panel),
        "copies": copies,
        **moves,
        "repeats": repeats,
        "flat_repeats": flat_repeats,
        "idle": idle,
        "spike": spike,
        "sessions_missing": missing,
    }


def _case_clash(panel: _Panel) -> pd.Categorical:
    spelled = pd.Series(panel.names, dtype="str")
    clashing = np.flatnonzero(spelled.str.lower().duplicated(keep=False).to_numpy())
    of_code = np.full(len(panel.names) + 1, -1, dtype=np.int32)
    of_code[clashing] = np.arange(len(clashing))
    return pd.Categorical.from_codes(of_code[panel.codes], spelled.iloc[clashing].to_list())


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
    bars = Bars(
        chain=_sane(panel, float(parameters["price_tolerance"])),
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
    )
    rows["spike"][usual_spikes(bars, rows["spike"], parameters)] = 0
    return find_actions(bars, rows["jump"], parameters)


def _sane(panel: _Panel, tolerance: float) -> NDArray[np.int32]:
    """The rows of the chain whose close lies within their range: a slip of the pen is no jump."""
    high, low, close = panel.columns(HIGH, LOW, CLOSE)
    odd = (close > high * (1 + tolerance)) | (close < low * (1 - tolerance))
    return panel.chain[~odd[panel.chain]] if odd.any() else panel.chain


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
    volume_units = kernels.find_volume_breaks(
        chain, codes, panel.column(VOLUME), _both_ways(parameters["volume_units"]), int(parameters["volume_unit_bars"])
    )
    return pd.DataFrame(
        {
            INSTRUMENT: pd.array(panel.names, dtype="str"),
            CALENDAR: pd.array(panel.calendar_of, dtype="str"),
            "rows": panel.rows_of,
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
    kernels.measure_sessions(
        panel.chain, (panel.codes, sessions, repeats), panel.columns(CLOSE, VOLUME, FACTOR), jump, found
    )
    return _SessionStatistics(kernels.count_keys(sessions, total), moved, jumped, repeated, price_ratio, volume_ratio)


def _session_measures(panel: _Panel, statistics: _SessionStatistics, parameters: Mapping[str, Any]) -> pd.DataFrame:
    _, opened, offsets = panel.session_tables
    bars, moved, jumped, repeated = statistics.bars, statistics.moved, statistics.jumped, statistics.repeated
    enough = moved >= parameters["min_instruments"]
    frames = []
    for number, name in enumerate(panel.calendar_names):
        part = slice(offsets[number], offsets[number + 1])
        live, expected = _live(panel, number)
        shared = np.where(enough[part], moved[part], np.nan)
        judged = (expected >= parameters["min_instruments"]) & (bars[part] > 0)
        frame = pd.DataFrame(
            {
                CALENDAR: pd.array([name] * int(opened[number].sum()), dtype="str"),
                DATETIME: panel.dates(np.flatnonzero(opened[number])).astype("datetime64[s]"),
                "instruments": expected,
                "bars": bars[part],
                "missing_share": 1 - bars[part] / np.where(judged, np.maximum(expected, bars[part]), np.nan),
                "jumping_share": jumped[part] / shared,
                "repeated_share": repeated[part] / shared,
                "price_ratio": np.where(enough[part], statistics.price_ratio[part], np.nan),
                "volume_ratio": np.where(enough[part], statistics.volume_ratio[part], np.nan),
            }
        )
        frames.append(frame[live])
    empty = pd.DataFrame({CALENDAR: pd.array([], dtype="str"), DATETIME: np.empty(0, "datetime64[s]")})
    return pd.concat(frames, ignore_index=True) if frames else empty


def _live(panel: _Panel, number: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Of each session of a calendar: whether it lies between the calendar's first and last row, and the number of
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
    # Whoever had a bar on the session before the newest is expected on that too: else nobody would miss there.
    ends = np.where(ends == newest - 1, newest, ends)
    np.add.at(change, begins, 1)
    np.add.at(change, ends, -1)
    return live, np.cumsum(change)[:-1]
