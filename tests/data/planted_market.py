"""A market with planted truth: what is an error in it and what only looks like one is known row by row.

Four markets' habits: New York (cents, no limits), A-shares (limits, lots, `preclose` in part), London (pence) and coins
(every day, wild). Returns have fat tails (Student's t, four degrees), clustered volatility, a market factor and gaps
overnight; volume grows with absolute returns; a fifth of the names dies. Into that are planted true events (crashes,
takeovers, splits and dividends with their factors, halts, special sessions, blank tails) and errors. Whether an error
is visible in principle is decided here, by `_is_visible`, from the truth and never from what the rules find.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, HIGH, INSTRUMENT, LOW, OPEN, PRICES, VOLUME, VWAP
from mlops_tasks.data.exchanges.calendars import sessions
from mlops_tasks.data.sources.parsed import PARSE_ERROR, SOURCE_FILE, SOURCE_ROW

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

FORWARD = (2.0, 2.0, 2.0, 1.5, 1.5, 3.0, 4.0, 5.0, 10.0, 20.0, 4 / 3, 1.25, 1.2, 1.3, 1.8, 7.0, 1.1, 1.05)
REVERSE = (1 / 2, 1 / 4, 1 / 5, 1 / 8, 1 / 10, 1 / 10, 1 / 20, 1 / 25, 1 / 50)
BONUS = (1.2, 1.3, 1.5, 1.8, 2.0, 2.0, 1.1, 1.05, 1.4, 2.5, 1.6, 3.0)
MONDAY = 4
"""Of the days since 1970, modulo 7."""
SIDE = 12
"""Bars on both sides of a step without which nobody could tell what it is."""


@dataclass(frozen=True)
class Habit:
    """How one market trades. `share` of all names; daily volatilities are drawn between `calm` and `wild`."""

    name: str
    calendar: str
    share: float
    calm: float
    wild: float
    tick: float
    price: float
    lot: int = 1
    limit: float = np.inf
    crash: float = 0.12
    """Log size of its worst common day."""


HABITS = (
    Habit("new_york", "XNYS", 0.40, 0.010, 0.035, 0.01, 40.0),
    Habit("a_shares", "XSHG", 0.30, 0.012, 0.030, 0.01, 12.0, lot=100, limit=0.10, crash=0.07),
    Habit("london", "XLON", 0.15, 0.010, 0.030, 0.1, 400.0, crash=0.10),
    Habit("coins", "24/7", 0.15, 0.025, 0.055, 1e-6, 5.0, crash=0.21),
)


@dataclass(frozen=True)
class Planted:
    """One thing that was planted. `rows`: those it is about, of which an error must cost at least one and an event
    none; `may_lose`: those that may be quarantined for it. Positions in the frame."""

    kind: str
    instrument: str
    day: np.datetime64
    error: bool
    visible: bool
    rows: Rows
    may_lose: Rows
    calendar: str | None = None
    """Of an error of a whole session, which a finding about that session tells and no row."""


@dataclass(frozen=True)
class Market:
    """The parsed frame, what was planted into it, and the rows of names that died."""

    frame: pd.DataFrame
    planted: list[Planted]
    dead: dict[str, Rows]


@dataclass
class _Series:
    """One name while it is made: raw bars, factor, truth. All arrays have one value a day."""

    name: str
    habit: Habit
    days: NDArray[np.datetime64]
    bars: dict[str, Floats]
    scale: Floats
    """The true daily volatility of each day."""
    errors: list[str | None]
    keep: NDArray[np.bool_]
    heat: Floats
    """Log of what events add to turnover."""
    planted: list[tuple[str, int, bool, bool, Rows, Rows]] = field(default_factory=list)
    busy: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    dead: bool = False
    units: list[int] = field(default_factory=list)
    """Days on which the whole market is counted in another unit."""

    def __len__(self) -> int:
        return len(self.days)

    def note(self, kind: str, at: int, rows: Rows, may: Rows, *, error: bool, visible: bool = True) -> None:
        self.planted.append((kind, at, error, visible, rows, may))
        self.busy[max(0, int(rows.min()) - 25) : int(rows.max()) + 26] = True


def make_market(names: int, years: int, seed: int = 0) -> Market:
    """A market of `names` instruments over `years` up to the end of 2023."""
    rng = np.random.default_rng(seed)
    series: list[_Series] = []
    for habit in HABITS:
        days, special = _days(habit, years, rng)
        count = max(4, round(names * habit.share))
        common, market_days = _common_returns(habit, len(days), rng)
        for number in range(count):
            one = _simulate(habit, number, days, common, rng)
            for at in market_days:
                _note_day(one, "market_crash", days[at])
            for day in special:
                _note_day(one, "special_session", day)
            series.append(one)
    units = list(_market_units(series, np.random.default_rng([seed, 1])))
    for unit in units:
        unit.keep_free(series)
    for number, one in enumerate(series):
        _plant(one, number, rng)
    for unit in units:
        unit.plant(series)
    market = _gather(series)
    told = [unit.told_of(market.frame, series) for unit in units if unit.told]
    return replace(market, planted=[*market.planted, *told])


NO_ROWS: Rows = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class _MarketUnit:
    """A session from which on, or on which alone, all names of a market are counted in another unit. `told`: it costs
    no row, and a finding about the session tells it."""

    kind: str
    habit: Habit
    day: np.datetime64
    fields: tuple[str, ...]
    ratio: float
    stays: bool

    @property
    def told(self) -> bool:
        return self.stays or self.fields == (VOLUME,)

    def told_of(self, frame: pd.DataFrame, series: list[_Series]) -> Planted:
        """As it is planted; where it stays the rows before, which cannot be compared with those after, may be lost."""
        names = [one.name for one in series if one.habit is self.habit]
        before = frame[INSTRUMENT].isin(names) & (frame[DATETIME] < self.day) if self.stays else frame[DATETIME].isna()
        lost = np.flatnonzero(before.to_numpy())
        return Planted(self.kind, self.habit.name, self.day, True, True, NO_ROWS, lost, self.habit.calendar)

    def keep_free(self, series: list[_Series]) -> None:
        """Nothing else is planted around it."""
        for one in series:
            at = int(np.searchsorted(one.days, self.day))
            if one.habit is self.habit and 0 < at < len(one):
                one.busy[max(0, at - 25) : at + 26] = True
                one.units.append(at)

    def plant(self, series: list[_Series]) -> None:
        for one in series:
            at = int(np.searchsorted(one.days, self.day))
            if one.habit is not self.habit or at >= len(one) or (one.days[at] != self.day and not self.stays):
                continue
            for name in self.fields:
                one.bars[name][at : None if self.stays else at + 1] *= self.ratio
            if not self.told and one.bars[CLOSE][at] > 0 and 0 < at < len(one) - 1:
                rows, adjusted = np.array([at]), one.bars[CLOSE] * one.bars[FACTOR]
                first = one.bars[OPEN][at + 1] * one.bars[FACTOR][at + 1]
                near = first > 0 and adjusted[at - 1] > 0 and abs(np.log(first / adjusted[at - 1])) < 0.2
                one.planted.append((self.kind, at, True, bool(near), rows, rows))


def _market_units(series: list[_Series], rng: np.random.Generator) -> Iterator[_MarketUnit]:
    """Of each market one or two."""
    prices, kept = (*PRICES, "preclose"), "market_{}_unit_{}".format
    plans = [
        ("new_york", "price", PRICES, 100.0, False),
        ("new_york", "volume", (VOLUME,), 0.01, False),
        ("a_shares", "price", PRICES, 0.01, False),
        ("a_shares", "volume", (VOLUME,), 0.01, True),
        ("london", "price", prices, 0.01, True),
        ("coins", "price", PRICES, 1000.0, False),
        ("coins", "volume", (VOLUME,), 1000.0, True),
    ]
    taken: dict[str, list[int]] = {}
    for market, what, fields, ratio, stays in plans:
        own = [one for one in series if one.habit.name == market]
        days = max((one.days for one in own), key=len)
        quiet = np.ones(len(days), dtype=bool)
        for one in own[:1]:
            for _, at, *_ in one.planted:
                near = int(np.searchsorted(days, one.days[at]))
                quiet[max(0, near - 30) : near + 31] = False
        for near in taken.get(market, []):
            quiet[max(0, near - 80) : near + 81] = False
        quiet[:250] = quiet[-100:] = False
        place = int(rng.choice(np.flatnonzero(quiet)))
        taken.setdefault(market, []).append(place)
        kind = kept(what, "stays" if stays else "returns")
        yield _MarketUnit(kind, own[0].habit, days[place], fields, ratio, stays)


def _days(habit: Habit, years: int, rng: np.random.Generator) -> tuple[NDArray[np.datetime64], NDArray[np.datetime64]]:
    """Trading days, and those among them that the exchange's list lacks."""
    days = sessions(habit.calendar, f"{2024 - years}-01-01", "2023-12-31")
    if habit.calendar == "24/7":
        return days, days[:0]
    saturdays = np.arange(days[0], days[-1])
    saturdays = saturdays[(saturdays.astype(np.int64) - 2) % 7 == 0]
    special = np.sort(rng.choice(saturdays, max(1, years // 5), replace=False))
    return np.sort(np.concatenate([days, special])), special


def _common_returns(habit: Habit, count: int, rng: np.random.Generator) -> tuple[Floats, list[int]]:
    """The market's factor: clustered volatility, and two common crashes of which half comes back within days."""
    wave = _wave(count, rng)
    common = 0.4 * habit.calm * np.exp(wave) * _fat(count, rng)
    crashes = sorted(rng.choice(np.arange(100, count - 100), 2, replace=False).tolist())
    for at in crashes:
        common[at] = -habit.crash
        common[at + 1 : at + 4] += habit.crash / 6
    return common, crashes


def _wave(count: int, rng: np.random.Generator) -> Floats:
    """Log of a volatility that comes in clusters."""
    steps = rng.normal(0, 0.08, count)
    wave = np.empty(count)
    level = rng.normal(0, 0.3)
    for day in range(count):
        level = 0.97 * level + steps[day]
        wave[day] = level
    return wave


def _fat(count: int, rng: np.random.Generator) -> Floats:
    """Student's t of four degrees, of unit variance."""
    return rng.standard_t(4, count) / np.sqrt(2)


def _simulate(
    habit: Habit, number: int, days: NDArray[np.datetime64], common: Floats, rng: np.random.Generator
) -> _Series:
    """One name: when it is listed and dies, its path with true jumps, actions with factors, and bars on the tick."""
    first = int(rng.integers(0, len(days) // 2)) if rng.random() < 0.3 else 0
    dead = rng.random() < 0.2
    last = int(rng.integers(first + len(days) // 4, len(days))) if dead else len(days)
    days, common = days[first:last].copy(), common[first:last]
    count = len(days)
    sigma = np.exp(rng.uniform(np.log(habit.calm), np.log(habit.wild)))
    scale = sigma * np.exp(_wave(count, rng))
    beta = rng.uniform(0.5, 1.5)
    gaps = 0.5 * beta * common + 0.45 * scale * _fat(count, rng)
    within = 0.5 * beta * common + 0.85 * scale * _fat(count, rng)
    busy = np.zeros(count, dtype=bool)
    jumps: list[tuple[str, int]] = []
    one = _Series(
        _name(habit, number),
        habit,
        days,
        {},
        scale,
        [None] * count,
        np.ones(count, dtype=bool),
        np.zeros(count),
        busy=busy,
    )
    one.dead = dead
    if dead and rng.random() < 0.5:
        fall = min(250, count // 3)
        within[-fall:] -= 2.3 / fall
        scale[-fall:] *= 1.8
        jumps.append(("dead_company", count - fall))
    if np.isinf(habit.limit):
        jumps += _true_jumps(one, gaps, within, rng)
    else:
        jumps += _limit_runs(one, gaps, within, rng)
    low, high = (np.log1p(-habit.limit), np.log1p(habit.limit)) if np.isfinite(habit.limit) else (-np.inf, np.inf)
    gaps = np.clip(gaps, low, high)
    within = np.clip(gaps + within, low, high) - gaps
    path = np.log(habit.price) + rng.normal(0, 0.6) + np.cumsum(gaps + within)
    shares, factor = _true_actions(one, rng)
    _draw_bars(one, path, (gaps, within), (shares, factor), rng)
    for kind, at in jumps:
        rows = np.arange(at, min(at + (5 if kind == "limit_run" else 1), count))
        one.note(kind, at, rows, rows[:0], error=False)
    return one


def _name(habit: Habit, number: int) -> str:
    if habit.name == "a_shares":
        return f"SH60{number:04d}" if number % 2 else f"SZ00{number:04d}"
    return {"new_york": f"NY{number:03d}", "london": f"LN{number:03d}.L", "coins": f"COIN{number:03d}"}[habit.name]


def _true_jumps(one: _Series, gaps: Floats, within: Floats, rng: np.random.Generator) -> list[tuple[str, int]]:
    """Crashes and takeovers: most of the move in the gap, heavy trade and nervous weeks after; every other crash lies
    near the ratio of a split."""
    made = []
    years = len(one) / 252
    for at in rng.integers(60, max(61, len(one) - 40), rng.poisson(0.12 * years)).tolist():
        if one.busy[at]:
            continue
        after = np.arange(at, min(at + 30, len(one)))
        fade = np.exp(-(after - at) / 6)
        if rng.random() < 0.2:
            kind, size = "takeover", rng.uniform(0.2, 0.7)
            one.scale[at + 1 :] *= 0.3
            within[at + 1 :] *= 0.3
            gaps[at + 1 :] *= 0.3
            one.heat[after] += np.log(12) * fade
        else:
            near = rng.random() < 0.5
            kind = "crash_near_ratio" if near else "crash"
            size = -np.log(rng.choice([1.25, 4 / 3, 1.5, 1.5, 2, 2, 3])) if near else -rng.uniform(0.2, 1.4)
            size += rng.normal(0, 0.015) if near else 0.0
            one.scale[after] *= 1 + 2 * fade
            within[after] *= 1 + 2 * fade
            gaps[after] *= 1 + 2 * fade
            one.heat[after] += rng.normal(np.log(9), 0.5) * fade
        share = rng.uniform(0.75, 1.0)
        gaps[at] += share * size
        within[at] += (1 - share) * size
        one.busy[max(0, at - 40) : at + 40] = True
        made.append((kind, at))
        if kind == "takeover":
            break
    return made


def _limit_runs(one: _Series, gaps: Floats, within: Floats, rng: np.random.Generator) -> list[tuple[str, int]]:
    """What a crash is where there are limits: five days that open at the limit and stay there."""
    made = []
    for at in rng.integers(60, max(61, len(one) - 40), rng.poisson(0.05 * len(one) / 252)).tolist():
        if not one.busy[at]:
            gaps[at : at + 5], within[at : at + 5] = -1.0, 0.0
            one.busy[at - 40 : at + 45] = True
            made.append(("limit_run", at))
    return made


def _true_actions(one: _Series, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Shares for one at the start, and the factor: splits, dividends, and in some names steps of 0.03%."""
    count, habit = len(one), one.habit
    shares, factor = np.ones(count), np.ones(count)
    if habit.name == "coins":
        return shares, factor
    ratios = BONUS if habit.name == "a_shares" else FORWARD[:-2]
    for at in rng.integers(30, max(31, count - 30), rng.poisson(0.06 * count / 252)).tolist():
        if one.busy[at]:
            continue
        ratio = float(rng.choice(REVERSE if rng.random() < 0.15 and habit.name != "a_shares" else ratios))
        shares[at:] *= ratio
        factor[at:] *= ratio
        one.note("split_with_factor", at, np.array([at]), np.empty(0, dtype=np.int64), error=False)
    if rng.random() < 0.5:
        for at in range(int(rng.integers(20, 63)), count, 63 if habit.name == "new_york" else 250):
            factor[at:] /= 1 - rng.uniform(0.002, 0.012)
    if rng.random() < 0.3:
        noise = rng.random(count) < 0.02
        noise[[at for at in _event_days(one) if rng.random() < 0.5]] = True
        factor *= np.where(np.cumsum(noise) % 2 == 1, 1.0003, 1.0)
    return shares, factor


def _event_days(one: _Series) -> list[int]:
    changed = np.flatnonzero(np.diff(one.busy.astype(int)) == 1)
    return [int(min(at + 41, len(one) - 1)) for at in changed]


def _draw_bars(
    one: _Series, path: Floats, moves: tuple[Floats, Floats], actions: tuple[Floats, Floats], rng: np.random.Generator
) -> None:
    """Bars on the tick: `moves` overnight and within the day, `actions` the shares for one and the factor."""
    count, habit, scale = len(one), one.habit, one.scale
    (gaps, within), (shares, factor) = moves, actions
    path = path + max(0.0, np.log(25 * habit.tick) - float(np.min(path - np.log(factor))))
    close, opened = np.exp(path), np.exp(path - within)
    still = np.abs(within) < 1e-12
    spread = [np.exp(np.abs(rng.normal(0, 0.4, count)) * np.where(still, 0, scale)) for _ in range(2)]
    prices = {
        OPEN: opened,
        HIGH: np.maximum(opened, close) * spread[0],
        LOW: np.minimum(opened, close) / spread[1],
        CLOSE: close,
    }
    moved = np.abs(gaps + within) / scale
    volume = np.exp(rng.normal(12, 1) + 0.35 * rng.normal(0, 1, count) + 0.4 * np.log(scale / scale[0]) + one.heat)
    volume *= (0.7 + 0.45 * np.minimum(moved, 15)) * shares
    one.bars = {
        name: np.maximum(np.round(value / factor / habit.tick), 1) * habit.tick for name, value in prices.items()
    }
    if np.isfinite(habit.limit):
        _keep_limits(one, factor)
    one.bars[VOLUME] = np.maximum(np.round(volume / habit.lot), 1) * habit.lot
    one.bars[FACTOR] = factor
    one.bars["preclose"] = np.full(count, np.nan)
    if habit.name == "a_shares" and rng.random() < 0.4:
        before = one.bars[CLOSE][:-1] * factor[:-1] / factor[1:]
        one.bars["preclose"][1:] = np.round(before / habit.tick) * habit.tick


def _keep_limits(one: _Series, factor: Floats) -> None:
    """Rounding to the tick must not carry a close beyond the limit, itself on the tick."""
    tick, close = one.habit.tick, one.bars[CLOSE]
    for day in range(1, len(one)):
        before = close[day - 1] * factor[day - 1] / factor[day]
        low, high = (np.round(before * (1 + side * one.habit.limit) / tick) * tick for side in (-1, 1))
        close[day] = min(max(close[day], low), high)
    for name in (OPEN, HIGH, LOW):
        one.bars[name] = np.round(one.bars[name] / tick) * tick
    one.bars[HIGH] = np.maximum.reduce([one.bars[HIGH], one.bars[OPEN], close])
    one.bars[LOW] = np.minimum.reduce([one.bars[LOW], one.bars[OPEN], close])


def _note_day(one: _Series, kind: str, day: np.datetime64) -> None:
    at = int(np.searchsorted(one.days, day))
    if at < len(one) and one.days[at] == day:
        rows = np.array([at])
        one.planted.append((kind, at, False, True, rows, rows[:0]))
        one.busy[max(0, at - 6) : at + 7] = True


def _is_visible(one: _Series, at: int, size: float, least: float) -> bool:
    """Whether a false step of the adjusted price (log) can be told from a trade in principle: at least `least`, six
    times the volatility of the days around, and enough bars on both sides."""
    around = one.scale[max(0, at - 40) : at + 1]
    return abs(size) >= max(least, 6 * float(np.median(around))) and SIDE <= at < len(one) - SIDE


def _leaves_limit(one: _Series, at: int) -> bool:
    """Whether the raw close moves farther than the limit and a tick allow: no trade can do that."""
    before, close = one.bars[CLOSE][at - 1], one.bars[CLOSE][at]
    ratio = close * one.bars[FACTOR][at] / (before * one.bars[FACTOR][at - 1])
    return abs(ratio - 1) > one.habit.limit + 2 * one.habit.tick / min(before, close) + 0.005


def _free(one: _Series, rng: np.random.Generator, length: int = 1) -> int | None:
    """A day without anything planted around, for `length` days; None where there is none."""
    for _ in range(40):
        at = int(rng.integers(60, max(61, len(one) - 60 - length)))
        if at + length + 20 < len(one) and not one.busy[at - 20 : at + length + 20].any():
            return at
    return None


Plant = Callable[[_Series, np.random.Generator], bool]


def _plant(one: _Series, number: int, rng: np.random.Generator) -> None:
    """One error of the history, or none, by turns; then errors of cells and halts."""
    kinds = list(HISTORY)
    turn = number * 7919 % 100
    if turn < 40:
        HISTORY[kinds[(number * 31) % len(kinds)]](one, rng)
    else:
        for plant in (_halt, _halt):
            if rng.random() < 0.3:
                plant(one, rng)
        if rng.random() < 0.25:
            kinds = list(CELLS)
            CELLS[kinds[number % len(kinds)]](one, rng)
    if one.dead and turn >= 40 and rng.random() < 0.6:
        _tail(one, rng)


def _before(at: int) -> Rows:
    return np.arange(at, dtype=np.int64)


def _unadjusted_split(one: _Series, rng: np.random.Generator) -> bool:
    """An action whose factor was forgotten."""
    at = _free(one, rng)
    if at is None:
        return False
    choice = {"a_shares": BONUS}.get(one.habit.name, REVERSE if rng.random() < 0.25 else FORWARD)
    ratio = float(rng.choice(choice))
    for name in PRICES:
        one.bars[name][at:] = np.maximum(np.round(one.bars[name][at:] / ratio / one.habit.tick), 1) * one.habit.tick
    one.bars[VOLUME][at:] = np.round(one.bars[VOLUME][at:] * ratio)
    known = one.bars["preclose"]
    if np.isfinite(known[at]):
        known[at:] = np.round(known[at:] / ratio / one.habit.tick) * one.habit.tick
        visible = abs(np.log(ratio)) > 0.045
    elif np.isfinite(one.habit.limit):
        visible = _leaves_limit(one, at)
    else:
        visible = _is_visible(one, at, np.log(ratio), 0.16)
    one.note("unadjusted_split", at, np.array([at - 1]), _before(at), error=True, visible=visible)
    return True


def _factor_step(kind: str, ratios: tuple[float, ...], action: bool) -> Plant:
    """A factor that changes by another ratio than the price."""

    def plant(one: _Series, rng: np.random.Generator) -> bool:
        at = _free(one, rng)
        if at is None:
            return False
        ratio = float(rng.choice([1.5, 2.0, 3.0, 2.0])) if action else 1.0
        wrong = float(rng.choice(ratios))
        for name in PRICES:
            one.bars[name][at:] /= ratio
        one.bars["preclose"][at:] /= ratio
        one.bars[VOLUME][at:] *= ratio
        one.bars[FACTOR][at:] *= ratio * wrong
        visible = _is_visible(one, at, np.log(wrong), 0.2) or (
            abs(np.log(wrong)) > 0.2 and (np.isfinite(one.bars["preclose"][at]) or _leaves_limit(one, at))
        )
        one.note(kind, at, np.array([at - 1]), _before(at), error=True, visible=visible)
        return True

    return plant


def _shifted_factor(one: _Series, rng: np.random.Generator) -> bool:
    """A split whose factor comes some days too early or too late."""
    at = _free(one, rng, 8)
    if at is None:
        return False
    ratio, late = float(rng.choice([1.5, 2.0, 3.0, 4.0, 0.2])), int(rng.integers(1, 6))
    early = rng.random() < 0.4
    price, factor = (at + late, at) if early else (at, at + late)
    for name in (*PRICES, "preclose"):
        one.bars[name][price:] /= ratio
    one.bars[VOLUME][price:] *= ratio
    one.bars[FACTOR][factor:] *= ratio
    rows = np.arange(at, at + late)
    one.note("factor_shifted", at, rows, rows, error=True, visible=_is_visible(one, at, np.log(ratio), 0.2))
    return True


def _glitch(kind: str, fields: tuple[str, ...], ratios: tuple[float, ...], days: int) -> Plant:
    """Fields that are multiplied for some days and come back."""

    def plant(one: _Series, rng: np.random.Generator) -> bool:
        at, length = _free(one, rng, days), int(rng.integers(1, days + 1))
        if at is None:
            return False
        ratio = float(rng.choice(ratios))
        rows = np.arange(at, at + length)
        for name in fields:
            one.bars[name][rows] *= ratio
        one.note(kind, at, rows, rows, error=True, visible=_is_visible(one, at, np.log(ratio), 0.2))
        return True

    return plant


def _unit(kind: str, fields: tuple[str, ...], ratios: tuple[float, ...]) -> Plant:
    """Fields that are counted in another unit from a day on."""

    def plant(one: _Series, rng: np.random.Generator) -> bool:
        at = _free(one, rng, 60)
        if at is None:
            return False
        ratio = float(rng.choice(ratios))
        for name in fields:
            one.bars[name][at:] *= ratio
        one.note(kind, at, np.array([at - 1]), _before(at), error=True)
        return True

    return plant


def _volume_period(one: _Series, rng: np.random.Generator) -> bool:
    """Volume in lots for some months."""
    length = int(rng.integers(60, 200))
    at = _free(one, rng, length)
    if at is None:
        return False
    one.bars[VOLUME][at : at + length] *= 0.01
    one.note("volume_unit_returns", at, np.array([at]), _before(at + length), error=True)
    return True


def _recycled(one: _Series, rng: np.random.Generator) -> bool:
    """Years without a row, then another company at another level. Its codes A-shares never give again."""
    if np.isfinite(one.habit.limit) or len(one) < 800:
        return False
    gap = int(rng.integers(260, min(700, len(one) - 300)))
    at = _free(one, rng, gap)
    if at is None:
        return False
    level, volume = np.exp(rng.normal(0, 1.5)), np.exp(rng.normal(0, 1.5))
    one.keep[at : at + gap] = False
    for name in PRICES:
        one.bars[name][at + gap :] *= level
    one.bars[VOLUME][at + gap :] = np.maximum(np.round(one.bars[VOLUME][at + gap :] * volume), 1)
    one.bars[FACTOR][at + gap :] /= one.bars[FACTOR][at + gap]
    step = np.log(one.bars[CLOSE][at + gap] / one.bars[CLOSE][at - 1])
    wander = float(np.median(one.scale)) * np.sqrt(gap) + 0.2
    visible = (step / wander) ** 2 + np.log(volume) ** 2 / 1.5 > 12
    one.planted = [entry for entry in one.planted if not (at <= entry[1] < at + gap)]
    one.note("recycled_ticker", at + gap, np.array([at - 1]), _before(at), error=True, visible=bool(visible))
    return True


def _flat_years(one: _Series, rng: np.random.Generator) -> bool:
    """A series carried on for years after the last trade: the first 750 bars are a suspension, the rest is none."""
    if len(one) < 1300:
        return False
    at = int(rng.integers(200, len(one) - 980))
    if any(at <= day < at + 952 for day in one.units):
        return False
    rows = np.arange(at + 751, at + 951)
    for name in PRICES:
        one.bars[name][at:] *= one.bars[FACTOR][at:] / one.bars[FACTOR][at]
    last = float(one.bars[CLOSE][at])
    back = last / float(one.bars[CLOSE][at + 951])
    for name in PRICES:
        one.bars[name][at : at + 951] = last
        one.bars[name][at + 951 :] *= back
    one.bars[FACTOR][at:] = one.bars[FACTOR][at]
    one.bars["preclose"][:] = np.nan
    one.bars[VOLUME][at + 1 : at + 951] = 0.0
    one.planted = [entry for entry in one.planted if entry[1] < at - 60]
    one.note("flat_years", at + 751, rows, rows, error=True)
    return True


def _cells(kind: str, spoil: Callable[[_Series, int, np.random.Generator], None]) -> Plant:
    """One row with something wrong in it."""

    def plant(one: _Series, rng: np.random.Generator) -> bool:
        at = _free(one, rng)
        if at is None:
            return False
        spoil(one, at, rng)
        one.note(kind, at, np.array([at]), np.array([at]), error=True)
        return True

    return plant


def _text(one: _Series, at: int, rng: np.random.Generator) -> None:
    one.errors[at] = "Close='n/a*' is not a number"
    one.bars[CLOSE][at] = np.nan


def _spoil(name: str, value: Callable[[_Series, int], float]) -> Callable[[_Series, int, np.random.Generator], None]:
    def spoil(one: _Series, at: int, rng: np.random.Generator) -> None:
        one.bars[name][at] = value(one, at)

    return spoil


def _repeat(one: _Series, at: int, rng: np.random.Generator) -> None:
    one.bars[HIGH][at - 1] = max(one.bars[HIGH][at - 1], one.bars[LOW][at - 1] + one.habit.tick)
    for name in (*PRICES, VOLUME):
        one.bars[name][at] = one.bars[name][at - 1]


def _foreign(one: _Series, rng: np.random.Generator) -> bool:
    """The bar of another instrument: far from the bars around. Visible where these agree among themselves."""
    at = _free(one, rng)
    if at is None:
        return False
    between = abs(float(np.log(one.bars[OPEN][at + 1] / one.bars[CLOSE][at - 1])))
    away = np.exp(max(0.3, 14 * float(one.scale[at])) * rng.choice([-1, 1]))
    for name in PRICES:
        one.bars[name][at] *= away
    rows = np.array([at])
    usual = float(np.median(one.scale[at - 40 : at]))
    one.note("foreign_bar", at, rows, rows, error=True, visible=between < max(0.1, 2 * usual))
    return True


def _holiday(one: _Series, rng: np.random.Generator) -> bool:
    """A row on a Sunday, of this one name only."""
    if one.habit.name == "coins":
        return False
    at = _free(one, rng)
    if at is None:
        return False
    while int(one.days[at].astype(np.int64)) % 7 != MONDAY or one.days[at] - one.days[at - 1] < 3:
        at += 1
        if at >= len(one) - 30:
            return False
    one.days[at] -= 1
    rows = np.array([at])
    one.note("row_on_a_sunday", at, rows, rows, error=True)
    return True


def _halt(one: _Series, rng: np.random.Generator) -> bool:
    """A suspension, written as vendors do: no rows, zeros, blanks, or the last price with volume 0."""
    length = int(rng.choice([1, 2, 5, 20, 60, 200], p=[0.3, 0.2, 0.2, 0.15, 0.1, 0.05]))
    at = _free(one, rng, length)
    if at is None or at + length > len(one) - 40:
        return False
    rows = np.arange(at, at + length)
    style = str(rng.choice(["missing", "zeros", "blanks", "repeated"]))
    last = one.bars[CLOSE][at - 1] * one.bars[FACTOR][at - 1] / one.bars[FACTOR][rows]
    _write_halt(one, rows, style, last)
    around = np.array([at - 1, at + length])
    one.note(f"halt_{style}", at, around, rows if style in ("zeros", "blanks") else rows[:0], error=False)
    return True


def _write_halt(one: _Series, rows: Rows, style: str, last: Floats) -> None:
    if style == "missing":
        one.keep[rows] = False
    for name in PRICES:
        one.bars[name][rows] = {"zeros": 0.0, "blanks": np.nan}.get(style, last)
    one.bars[VOLUME][rows] = np.nan if style == "blanks" else 0.0
    one.bars["preclose"][rows] = np.nan
    one.bars["preclose"][min(int(rows[-1]) + 1, len(one) - 1)] = np.nan


def _tail(one: _Series, rng: np.random.Generator) -> None:
    """Rows after the last trade of a name that died: zeros, blanks, or the last price without volume."""
    length = int(rng.choice([1, 5, 60, 250]))
    if length + 300 > len(one):
        return
    at = len(one) - length
    rows = np.arange(at, len(one))
    style = str(rng.choice(["zeros", "blanks", "repeated"]))
    one.planted = [entry for entry in one.planted if entry[4].max() < at]
    _write_halt(one, rows, style, np.full(length, one.bars[CLOSE][at - 1]))
    one.bars[FACTOR][rows] = one.bars[FACTOR][at - 1]
    one.note(f"tail_{style}", at, np.arange(at - 20, at), rows, error=False)


HISTORY: dict[str, Plant] = {
    "unadjusted_split": _unadjusted_split,
    "unadjusted_split_2": _unadjusted_split,
    "unadjusted_split_3": _unadjusted_split,
    "factor_wrong_size": _factor_step("factor_wrong_size", (1.5, 2.0, 2 / 3, 0.25, 1.3), action=True),
    "factor_alone": _factor_step("factor_alone", (1.5, 2.0, 1.53, 0.5, 3.0, 1.1), action=False),
    "factor_shifted": _shifted_factor,
    "factor_glitch": _glitch("factor_glitch", (FACTOR,), (2.0, 0.5, 3.0, 1.5), 3),
    "price_unit_stays": _unit("price_unit_stays", (*PRICES, "preclose"), (100.0, 0.01, 1000.0)),
    "price_unit_returns": _glitch("price_unit_returns", PRICES, (100.0, 0.01, 1000.0), 8),
    "volume_unit_stays": _unit("volume_unit_stays", (VOLUME,), (100.0, 0.01, 1000.0)),
    "volume_unit_returns": _volume_period,
    "recycled_ticker": _recycled,
    "recycled_ticker_2": _recycled,
    "flat_years": _flat_years,
}
CELLS: dict[str, Plant] = {
    "text": _cells("text", _text),
    "negative": _cells("negative", _spoil(CLOSE, lambda one, at: -one.bars[CLOSE][at])),
    "high_below_low": _cells("high_below_low", _spoil(HIGH, lambda one, at: 0.9 * one.bars[LOW][at])),
    "close_outside": _cells("close_outside", _spoil(CLOSE, lambda one, at: 1.2 * one.bars[HIGH][at])),
    "missing_price": _cells("missing_price", _spoil(OPEN, lambda one, at: float("nan"))),
    "negative_volume": _cells("negative_volume", _spoil(VOLUME, lambda one, at: -5.0)),
    "factor_missing": _cells("factor_missing", _spoil(FACTOR, lambda one, at: float("nan"))),
    "repeated_bar": _cells("repeated_bar", _repeat),
    "foreign_bar": _foreign,
    "row_on_a_sunday": _holiday,
}


def _gather(series: list[_Series]) -> Market:
    """The frame of all names, and the planted things with their positions in it."""
    planted: list[Planted] = []
    dead: dict[str, Rows] = {}
    parts: list[dict[str, NDArray]] = []
    offset = 0
    for one in series:
        place = np.where(one.keep, offset + np.cumsum(one.keep) - 1, -1)
        for kind, at, error, visible, rows, may in one.planted:
            about, lost = (places[places >= 0] for places in (place[rows], place[may]))
            if len(about):
                planted.append(Planted(kind, one.name, one.days[at], error, visible, about, lost))
        count = int(one.keep.sum())
        if one.dead:
            dead[one.name] = np.arange(offset, offset + count)
        parts.append({DATETIME: one.days[one.keep], **{name: value[one.keep] for name, value in one.bars.items()}})
        parts[-1][PARSE_ERROR] = np.array(one.errors, dtype=object)[one.keep]
        offset += count
    frame = pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    names = np.repeat([one.name for one in series], [int(one.keep.sum()) for one in series])
    frame[DATETIME] = frame[DATETIME].to_numpy().astype("datetime64[ns]")
    frame[INSTRUMENT] = pd.array(names, dtype="str")
    frame[PARSE_ERROR] = frame[PARSE_ERROR].astype("str").where(frame[PARSE_ERROR].notna(), None).astype("str")
    frame[VWAP] = np.nan
    frame[SOURCE_FILE] = pd.Categorical.from_codes(np.zeros(len(frame), dtype=np.int8), ["planted.parquet"])
    frame[SOURCE_ROW] = np.arange(1, len(frame) + 1)
    return Market(frame, planted, dead)
