"""Corporate actions that the factor lacks, factors that the price does not follow, and tickers that were reused.

A jump is judged by its size: what is left of it after the factor, less the move of the instrument's market that day, is
compared with the instrument's usual moves. Two things may explain what is left: a trading move, or an action
(a split, a bonus issue, a consolidation) by which nobody gains or loses. No single sign proves either, so each adds
its log likelihood ratio, action over trade:

- how close the gap at the open is to a ratio of `RATIOS`, in units of the usual gap, against how often the
  instrument moves that far at all (Student's t with three degrees of freedom, and a floor for events);
- turnover, range of the day, and volatility of the days after: in a crash ten times as much is traded and it goes on;
  an action changes nothing for traders;
- the new level stays;
- how many other instruments jumped on the day.

Two signs are proofs: a close beyond the exchange's daily limit is not a trading move, and a `preclose` (the previous
close, adjusted by the exchange for the action of the day) gives the action's ratio. Where it only takes back the
previous bar's move against its own `preclose`, the close of that bar is wrong. Returns are natural logarithms.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.data.validation import measure_kernels as kernels
from mlops_tasks.data.validation.row_kinds import read_only

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Positions = NDArray[np.int64]

RATIOS: Mapping[float, float] = {
    2: 0.30,
    3: 0.07,
    4: 0.05,
    5: 0.06,
    6: 0.01,
    7: 0.01,
    8: 0.01,
    10: 0.06,
    15: 0.005,
    20: 0.02,
    25: 0.01,
    30: 0.005,
    40: 0.005,
    50: 0.01,
    3 / 2: 0.12,
    5 / 4: 0.03,
    6 / 5: 0.03,
    4 / 3: 0.02,
    5 / 3: 0.01,
    5 / 2: 0.01,
    1.3: 0.015,
    1.4: 0.01,
    1.6: 0.01,
    1.7: 0.005,
    1.8: 0.015,
    1.9: 0.005,
    2 / 3: 0.003,
    1 / 2: 0.005,
    1 / 3: 0.003,
    1 / 4: 0.005,
    1 / 5: 0.01,
    1 / 8: 0.005,
    1 / 10: 0.02,
    1 / 15: 0.005,
    1 / 20: 0.01,
    1 / 25: 0.005,
    1 / 30: 0.004,
    1 / 40: 0.003,
    1 / 50: 0.003,
}
"""Shares after an action for one before, and what share of all actions has that ratio (to its order of magnitude:
it is compared with likelihoods that differ by thousands). Reverse splits are below 1."""

BEFORE, AFTER = 40, 20
"""Bars around a jump that show what is usual."""
_STAYS = 5
"""Bars whose median is the level before and after."""
_FEW = 5
"""With fewer values, it is not known what is usual."""

_CERTAIN = 30.0
"""Log odds of what is proved."""
_ACTIONS_PER_DAY = 2e-5
"""Actions without their factor: one in two hundred years of an instrument."""
_EVENTS_PER_DAY = 8e-5
"""Jumps per unit of log size that come from events, however quiet the instrument is: one in fifty years, and fewer by
a factor of e for each of `_FALLS` or `_RISES` that they are larger."""
_FALLS, _RISES = 0.5, 0.25
_WRONG_FACTORS, _EVENTS_ON_A_DAY = 0.02, 5e-4
"""Share of the factor's large changes that are wrong; chance that an event falls on the day of a right one."""
_SMALLEST_LIMIT = 0.095
_NOBODY_TRADED = 6.0
"""Log likelihood ratio of a move on a day without a trade."""
_NO_NEWS = 0.3
"""A market that moves farther and is back at the next open was counted in another unit."""
_ANOTHER_UNIT = 2.0
"""A bar so far (log) from both neighbours, which agree within `spike_reach`, is in another unit."""
_SMALL_PART = 0.25
"""What may be left of a step that `preclose` names where it takes back a wrong close."""
_DAYS_MOVE = 0.2
"""No usual day moves farther (log)."""
_TICK = 0.01
"""Least step of the prices where there are limits."""


@dataclass(frozen=True)
class Bars:
    """The rows in the order of instruments and days, and what is known about each row.

    `chain` lists the rows that can be compared, `codes` the instrument of each row. `market` is the median log return
    of the row's session (0 where few trade), `limits` gives the exchange's limits of some rows (infinite: none),
    `preclose` is NaN where there is none.
    """

    chain: NDArray[np.int32]
    codes: NDArray[np.int32]
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    factor: Floats
    preclose: Floats | None
    missing: NDArray[np.int32]
    """Sessions without a row before each."""
    idle: NDArray[np.int16]
    """Bars without a trade in a row up to each."""
    market: Callable[[Positions], Floats]
    limits: Callable[[Positions], Floats]
    limited: Booleans
    """Whether each instrument's exchange has limits."""
    after_slip: Positions
    """Rows before which the chain lacks a bar because that bar's close lies outside its range."""


@dataclass(frozen=True)
class Actions:
    """Rows and what was found there, each list in the order of instruments and days.

    `splits`, `units` and `factor_errors`: rows from which on the adjusted price is not comparable with the one before,
    by an action, by another unit of the price or by the factor, and the ratio of the price that is left over.
    `possible`: rows where that is possible, or too small to cost a history. `displaced`: rows that lie at another
    level than those before and after, or that are the newest and few: a factor often comes a day late. `recycled`:
    rows with which another company begins, and the ratio of the prices.
    """

    splits: list[tuple[int, float]]
    units: list[tuple[int, float]]
    factor_errors: list[tuple[int, float]]
    possible: list[tuple[int, float]]
    displaced: Positions
    recycled: list[tuple[int, float]]


@dataclass(frozen=True)
class _Steps:
    """Candidates: positions in the chain and measures of each, arrays of one length. Logs throughout."""

    at: Positions
    rows: Positions
    owners: NDArray[np.int32]
    """The instruments."""
    left: Floats
    """What the factor leaves of the move from close to close, less the market's."""
    gap: Floats
    """The same from the previous close to the open."""
    raw_gap: Floats
    change: Floats
    """Change of the factor."""
    scale: Floats
    """Usual return of a day, or of as many days as the instrument was absent."""
    gap_scale: Floats
    level: Floats
    """Median level of the bars from this one on over that of the bars before; NaN where none is before."""
    later: NDArray[np.int64]
    """Bars from this one on, at most `_STAYS`."""
    earlier: NDArray[np.int64]
    """Bars before, at most `BEFORE`."""
    trade: Floats
    """Log likelihood ratio, action over trade, of turnover, range and volatility."""
    shift: Floats
    """Median shares traded of the days after over those before; NaN where unknown."""
    remaining: NDArray[np.int64]
    """Bars from this one on, at most `AFTER` + 1."""


def find_actions(bars: Bars, jump: NDArray[np.float32], parameters: Mapping[str, Any]) -> Actions:
    """Judge every jump of a panel.

    Parameters
    ----------
    jump
        (rows,) absolute log return of the adjusted close since the previous bar; NaN where there is none.
    parameters
        `action_odds` and `possible_action_odds`: log odds from which on an action is certain, and possible;
        `smallest_action` and `smallest_factor_error`: log sizes from which on they cost the history before;
        `smallest_known_action`: the smallest change of a factor, or by `preclose`, that is looked at;
        `displaced_bars`: bars that a displaced level lasts at most; `displaced_unit_bars`: those of another unit;
        `price_units` and `level_tolerance`: the ratios of units above 1, and how close (log) a step is to one;
        `recycled_gap`: sessions without a bar after which a ticker may be another company's.
    """
    empty: list[tuple[int, float]] = []
    places = _candidates(bars, jump, parameters)
    if not len(places):
        return Actions(empty, empty, empty, empty, np.empty(0, dtype=np.int64), _recycled(bars, parameters))
    steps = _measure(bars, places)
    recycled = _recycled(bars, parameters)
    lacking = _lacking(bars, steps)
    wrong = _wrong_closes(bars, steps, lacking, parameters)
    named = _by_preclose(bars, steps, np.where(wrong, np.nan, lacking), parameters)
    odds, ratio, by_factor, proved = _judge(bars, steps, named, parameters)
    new = np.isin(steps.rows, [row for row, _ in recycled])
    unit = _is_unit(steps, odds, parameters)
    odds = np.where(unit, _CERTAIN, odds)
    displaced, ends = _displaced(steps, odds, unit, parameters)
    displaced = np.concatenate([displaced, steps.at[wrong] - 1])
    ends |= wrong | np.isin(steps.at, steps.at[wrong] - 1)
    likely = (odds > parameters["possible_action_odds"]) & (_stays(steps) | proved) & ~new & ~ends
    least = np.where(by_factor, parameters["smallest_factor_error"], parameters["smallest_action"])
    certain = likely & (odds > parameters["action_odds"]) & (np.abs(steps.left) > least)
    newest = certain & (steps.remaining <= parameters["displaced_bars"]) & (steps.earlier > steps.remaining)
    certain &= ~newest
    possible = likely & ~certain & ~newest
    displaced = np.concatenate([displaced, *_until_end(bars, steps, newest)])
    return Actions(
        _listed(steps, certain & ~by_factor & ~unit, ratio),
        _listed(steps, certain & unit, _nearest_unit(steps, parameters)),
        _listed(steps, certain & by_factor & ~unit, np.exp(steps.left)),
        _listed(steps, possible, ratio),
        bars.chain[displaced].astype(np.int64),
        recycled,
    )


def usual_spikes(bars: Bars, spike: NDArray[np.float32], parameters: Mapping[str, Any]) -> Positions:
    """Rows whose spike is an ordinary move: the previous close and the next open do not agree as usual, within
    `spike_agreement` or two and a half usual days (beside a bar in another unit any move will do), or the bar lies
    within `spike_deviations` usual days (which one in another unit never does), or within twice the market's move."""
    at = kernels.find_places(bars.chain, spike > 0)
    at = at[(at > 0) & (at < len(bars.chain) - 1)]
    if not len(at):
        return at
    rows = bars.chain[at].astype(np.int64)
    before, after = bars.chain[at - 1], bars.chain[at + 1]
    first = np.where(bars.open[after] > 0, bars.open[after], bars.close[after])
    apart = np.log(first * bars.factor[after] / (bars.close[before] * bars.factor[before]))
    scale, market = _measure(bars, at).scale, np.abs(bars.market(rows))
    unit = spike[rows] > _ANOTHER_UNIT
    agree = (np.abs(apart) < np.maximum(parameters["spike_agreement"], 2.5 * scale)) | unit
    news = (market < _NO_NEWS) & (spike[rows] < 2 * market)
    far = ((spike[rows] > parameters["spike_deviations"] * scale) | unit) & ~news
    return rows[~(agree & far)]


def _until_end(bars: Bars, steps: _Steps, newest: Booleans) -> list[Positions]:
    """Positions in the chain from these steps to the last bar of their instruments."""
    return [np.arange(at, at + count) for at, count in zip(steps.at[newest], steps.remaining[newest], strict=True)]


def _listed(steps: _Steps, chosen: Booleans, ratio: Floats) -> list[tuple[int, float]]:
    return list(zip(steps.rows[chosen].tolist(), ratio[chosen].tolist(), strict=True))


def _candidates(bars: Bars, jump: NDArray[np.float32], parameters: Mapping[str, Any]) -> Positions:
    """Positions in the chain of all steps that are looked at: large moves, large changes of the factor, and what
    `preclose` says."""
    least = np.where(bars.limited, _SMALLEST_LIMIT, parameters["smallest_action"]).astype(np.float32)
    preclose = np.empty(0) if bars.preclose is None else bars.preclose
    return kernels.find_large_steps(
        bars.chain,
        bars.codes,
        (jump, least),
        (bars.factor, bars.close, read_only(preclose)),
        float(parameters["smallest_known_action"]),
    )


def _measure(bars: Bars, places: Positions) -> _Steps:
    """Measure the candidates, in parts, so that their windows take little memory."""
    parts = [_measure_part(bars, places[start : start + 20_000]) for start in range(0, len(places), 20_000)]
    return _Steps(*(np.concatenate([getattr(part, name) for part in parts]) for name in _Steps.__dataclass_fields__))


def _measure_part(bars: Bars, places: Positions) -> _Steps:
    offsets = np.arange(-BEFORE, AFTER + 1)
    at = places[:, None] + offsets
    inside = (at >= 0) & (at < len(bars.chain))
    rows = bars.chain[np.clip(at, 0, len(bars.chain) - 1)].astype(np.int64)
    own = inside & (bars.codes[rows] == bars.codes[rows[:, BEFORE]][:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        factor, volume = np.log(bars.factor[rows]), bars.volume[rows]
        raw = np.log(bars.close[rows])
        close = np.where(own, raw + factor, np.nan)
        opened = np.where(bars.open[rows] > 0, np.log(bars.open[rows]), raw)
        extent = np.log(bars.high[rows] / bars.low[rows])
        traded = np.where(own & (volume > 0), np.log(volume), np.nan)
    returns = np.diff(close, axis=1)
    gaps = (opened + factor)[:, 1:] - close[:, :-1]
    idle = volume[:, 1:] == 0
    idle |= ~own[:, 1:]
    returns[idle], gaps[idle] = np.nan, np.nan
    extent[~own | ~(extent > 0) | (volume == 0)] = np.nan
    now = BEFORE - 1
    raw_gap = opened[:, BEFORE] - raw[:, BEFORE - 1]
    change = factor[:, BEFORE] - factor[:, BEFORE - 1]
    step = close[:, BEFORE] - close[:, BEFORE - 1]
    market = bars.market(rows[:, BEFORE])
    away = np.sqrt(1.0 + bars.missing[rows[:, BEFORE]] + bars.idle[rows[:, BEFORE - 1]])
    scale = np.fmax(_scale(returns[:, :now], returns[:, now + 1 :], 0.004), _tick_size(np.where(own, raw, np.nan)))
    turnover = traded + raw
    return _Steps(
        at=places,
        rows=rows[:, BEFORE],
        owners=bars.codes[rows[:, BEFORE]],
        left=step - market,
        gap=raw_gap + change - market,
        raw_gap=raw_gap - market,
        change=change,
        scale=scale * away,
        gap_scale=np.maximum(_scale(gaps[:, :now], gaps[:, now + 1 :], 0.006), 0.5 * scale) * away,
        level=_medians(close[:, BEFORE : BEFORE + _STAYS]) - _medians(close[:, BEFORE - _STAYS : BEFORE]),
        later=np.sum(own[:, BEFORE : BEFORE + _STAYS], axis=1),
        earlier=np.sum(own[:, :BEFORE], axis=1),
        trade=_turnover_odds(traded, turnover)
        + _range_odds(extent)
        + _volatility_odds(returns, now)
        + _NOBODY_TRADED * (volume[:, BEFORE] == 0),
        shift=_medians(traded[:, BEFORE + 1 :]) - _medians(traded[:, BEFORE - AFTER : BEFORE]),
        remaining=np.sum(own[:, BEFORE:], axis=1),
    )


def _turnover_odds(traded: Floats, turnover: Floats) -> Floats:
    """From the day and the five days from it on. Vendors count volume before or after the action: the smaller of
    shares and money is compared with its median before."""
    begin = BEFORE - 20
    day = np.fmin(
        traded[:, BEFORE] - _medians(traded[:, begin:BEFORE]), turnover[:, BEFORE] - _medians(turnover[:, begin:BEFORE])
    )
    return _odds(day, (0.1, 0.6), (np.log(6.0), 0.8))


def _range_odds(extent: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(extent[:, BEFORE] / _medians(extent[:, :BEFORE]))
    return _odds(ratio, (0.05, 0.45), (np.log(3.0), 0.6))


def _volatility_odds(returns: Floats, now: int) -> Floats:
    """From the mean absolute return of the five days after over the median before."""
    after = np.abs(returns[:, now + 1 : now + 6])
    count = np.sum(~np.isnan(after), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.nansum(after, axis=1) / np.where(count >= 3, count, np.nan)
        ratio = np.log(mean / _medians(np.abs(returns[:, :now])))
    return _odds(ratio, (0.2, 0.45), (np.log(2.5), 0.6))


def _odds(value: Floats, action: tuple[float, float], trade: tuple[float, float]) -> Floats:
    """Log ratio of the densities of a Student's t (6 degrees) around mean and scale of each; 0 where unknown. Below
    the mean of an action, the value counts as that mean."""
    value = np.clip(value, action[0], 20.0)
    densities = [-3.5 * np.log1p(((value - mean) / scale) ** 2 / 6) - np.log(scale) for mean, scale in (action, trade)]
    return np.nan_to_num(densities[0] - densities[1], nan=0.0)


def _judge(
    bars: Bars, steps: _Steps, named: Floats, parameters: Mapping[str, Any]
) -> tuple[Floats, Floats, Booleans, Booleans]:
    """Log odds that a step is an action or a factor's error, the price ratio of it, whether the factor caused it, and
    whether it is proved; `named` is what `preclose` says."""
    split_odds, split_ratio = _split_odds(bars, steps)
    factor_odds = _factor_odds(steps, parameters)
    beyond = _beyond_limit(bars, steps)
    known = np.isfinite(named)
    split_ratio = np.where(known, np.exp(named), np.where(beyond, np.exp(steps.left), split_ratio))
    split_odds = np.where(_market_moved(bars, steps), -_CERTAIN, split_odds)
    split_odds = np.where(beyond | known, _CERTAIN, split_odds)
    with_factor = np.abs(steps.change) > parameters["smallest_known_action"]
    by_factor = with_factor & ((factor_odds >= split_odds) | known | beyond)
    odds = np.where(by_factor, np.maximum(factor_odds, split_odds), split_odds)
    return (
        odds,
        split_ratio,
        by_factor,
        known | (beyond & (steps.level * np.sign(steps.left) > 0.4 * np.abs(steps.left))),
    )


def _nearest_unit(steps: _Steps, parameters: Mapping[str, Any]) -> Floats:
    units = np.array(parameters["price_units"], dtype=np.float64)
    nearest = units[np.argmin(np.abs(np.abs(steps.left)[:, None] - np.log(units)), axis=1)]
    return np.where(steps.left > 0, nearest, 1 / nearest)


def _is_unit(steps: _Steps, odds: Floats, parameters: Mapping[str, Any]) -> Booleans:
    """Whether the price is counted in another unit from a step on, at the same factor. Nothing that trades changes
    by a factor of a hundred between two sessions, or rises by ten; a fall by ten may be a collapse, and where an action
    explains it, it is one."""
    units = np.log(np.array(parameters["price_units"], dtype=np.float64))
    slack = np.minimum(parameters["level_tolerance"] + 2 * steps.scale, 0.2)[:, None]
    near = (np.abs(np.abs(steps.left)[:, None] - units) < slack) & (
        np.abs(np.abs(steps.gap)[:, None] - units) < np.maximum(slack, 4 * steps.gap_scale[:, None])
    )
    large = (near & (units > np.log(50))).any(axis=1)
    small = near.any(axis=1) & ((steps.left > 0) | (odds > parameters["possible_action_odds"]))
    another: Booleans = (np.abs(steps.change) < parameters["smallest_known_action"]) & (
        large | (small & ~(odds > parameters["action_odds"]))
    )
    return another


def _split_odds(bars: Bars, steps: _Steps) -> tuple[Floats, Floats]:
    """Log odds that an action explains the step better than a trade does, and the likeliest ratio."""
    logs = -np.log(np.array(list(RATIOS)))
    weights = np.array(list(RATIOS.values()))
    apart = steps.gap[:, None] - logs
    near = _t_density(apart / steps.gap_scale[:, None], 4) / steps.gap_scale[:, None] * weights
    within = (steps.left - steps.gap)[:, None] + np.zeros(len(logs))
    near *= _t_density(within / steps.scale[:, None], 4) / steps.scale[:, None]
    best = near.argmax(axis=1)
    action = _ACTIONS_PER_DAY * near.sum(axis=1)
    size = np.abs(steps.gap) + 1e-9
    events = _EVENTS_PER_DAY * np.exp(-size / np.where(steps.gap < 0, _FALLS, _RISES))
    trade = 0.634 * steps.scale**3 / np.maximum(size, steps.scale) ** 4 + events
    wide = 2.5 * steps.scale
    trade *= _t_density((steps.left - steps.gap) / wide, 4) / wide
    odds = np.log(action / trade) + steps.trade + _shift_odds(steps.shift, logs[best])
    return odds, np.exp(logs[best])


def _shift_odds(shift: Floats, ratio: Floats) -> Floats:
    """From the traded shares of the days after over those before: an action multiplies them by its ratio, or leaves
    them where the vendor adjusts volume; after a crash there are somewhat more. 0 where unknown."""
    scaled, kept = (_t_density((shift - mean) / 0.5, 4) / 0.5 for mean in (-ratio, 0.0))
    odds = np.log(0.5 * scaled + 0.5 * kept) - np.log(_t_density((shift - 0.5) / 0.8, 4) / 0.8)
    return np.nan_to_num(odds, nan=0.0)


def _factor_odds(steps: _Steps, parameters: Mapping[str, Any]) -> Floats:
    """Log odds that the factor is wrong where it changed much: the raw price stays, or moves by another ratio."""
    logs = np.concatenate([[0.0], -np.log(np.array(list(RATIOS)))])
    weights = np.concatenate([[0.5], 0.5 * np.array(list(RATIOS.values()))])
    apart = steps.raw_gap[:, None] - logs
    near = _t_density(apart / steps.gap_scale[:, None], 4) / steps.gap_scale[:, None] * weights
    wrong = _WRONG_FACTORS * near.sum(axis=1)
    right = (1 - _WRONG_FACTORS) * _t_density(steps.gap / steps.gap_scale, 3) / steps.gap_scale + _EVENTS_ON_A_DAY
    large = np.abs(steps.change) > parameters["smallest_known_action"]
    grown = np.abs(steps.left) > parameters["smallest_factor_error"]
    odds = np.log(wrong / right) + steps.trade
    return np.where(large & grown, odds, -_CERTAIN)


def _stays(steps: _Steps) -> Booleans:
    """Whether the level is another one for good: the medians of the bars on both sides differ by about the step."""
    slack = np.maximum(np.maximum(0.1, 5 * steps.scale), 0.3 * np.abs(steps.left))
    apart = np.abs(steps.level - steps.left)
    stays: Booleans = (apart < slack) & (apart < 0.5 * np.abs(steps.left) + 0.03)
    return stays


def _market_moved(bars: Bars, steps: _Steps) -> Booleans:
    """Whether the market moved far that day, and the instrument not much farther: then the market explains it."""
    market = np.abs(bars.market(steps.rows))
    moved: Booleans = (market > 0.05) & (np.abs(steps.left) < 4 * market)
    return moved


def _beyond_limit(bars: Bars, steps: _Steps) -> Booleans:
    """Whether the close moved farther than the exchange lets it; not after a halt, nor in the first days of a listing,
    when some have no limit."""
    limits = bars.limits(steps.rows) + 0.01
    limits = np.where(np.isin(steps.rows, bars.after_slip), (1 + limits) ** 2 - 1, limits)
    before = bars.chain[steps.at - 1]
    close, last = bars.close[steps.rows], bars.close[before]
    ratio = close / last * np.exp(steps.change)
    slack = 0.6 * _TICK / np.minimum(close, last) + 0.002
    traded = ~(bars.volume[before] == 0) & ~(bars.volume[steps.rows] == 0) & (bars.missing[steps.rows] == 0)
    far = np.abs(ratio - 1) > limits + slack
    beyond: Booleans = far & traded & (steps.earlier >= _FEW) & (np.abs(np.log(ratio)) > 0.045)
    return beyond


def _by_preclose(bars: Bars, steps: _Steps, lacking: Floats, parameters: Mapping[str, Any]) -> Floats:
    """Log ratio of the action that `preclose` names and the factor lacks; NaN where there is none."""
    least = np.where(
        np.isin(steps.rows, bars.after_slip),
        np.maximum(_DAYS_MOVE, 5 * steps.scale),
        parameters["smallest_known_action"],
    )
    apart = np.abs(steps.left - lacking)
    named = (np.abs(lacking) > least) & (apart < np.maximum(0.25, 5 * steps.scale))
    return np.where(named & (apart < np.maximum(np.abs(lacking), 0.15)), lacking, np.nan)


def _wrong_closes(bars: Bars, steps: _Steps, lacking: Floats, parameters: Mapping[str, Any]) -> Booleans:
    """Whether `preclose` corrects the close before each step: it differs by enough to cost a history, and only takes
    back that bar's move against its own `preclose`, or its previous close where it has none, and the price follows.
    A move that the exchange's limit allows may have been a trade, and an action may have followed; so may it where
    there is no limit and the step is a ratio of actions to the rounding of prices."""
    if bars.preclose is None:
        return np.zeros(len(lacking), dtype=bool)
    before, earlier = bars.chain[steps.at - 1], bars.chain[np.maximum(steps.at - 2, 0)]
    own = (steps.at > 1) & (bars.codes[earlier] == steps.owners)
    with np.errstate(divide="ignore", invalid="ignore"):
        last = np.where(own, bars.close[earlier] * bars.factor[earlier] / bars.factor[before], np.nan)
        last = np.where(bars.preclose[before] > 0, bars.preclose[before], last)
        moved = np.log(bars.close[before] / last)
    wrong: Booleans = (np.abs(lacking) > parameters["smallest_action"]) & ~np.isin(steps.rows, bars.after_slip)
    wrong &= np.abs(moved + lacking) < _SMALL_PART * np.abs(lacking)
    apart = np.abs(steps.left - lacking)
    wrong &= (apart < np.maximum(_DAYS_MOVE, 5 * steps.scale)) & (apart < 0.5 * np.abs(lacking))
    found = np.flatnonzero(wrong)
    limits = bars.limits(before[found].astype(np.int64))
    off = np.abs(lacking[found][:, None] + np.log(np.array(list(RATIOS)))).min(axis=1)
    action = off < 0.001 + 0.6 * _TICK / bars.preclose[steps.rows[found]]
    wrong[found] = np.where(np.isinf(limits), ~action, np.abs(np.expm1(moved[found])) > limits + 0.01)
    return wrong


def _lacking(bars: Bars, steps: _Steps) -> Floats:
    """Log of `preclose` over the previous close, less what the factor accounts for; NaN where unknown."""
    if not _means_action(bars) or bars.preclose is None:
        return np.full(len(steps.rows), np.nan)
    before = bars.chain[steps.at - 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        lacking = np.log(bars.preclose[steps.rows] / bars.close[before]) + steps.change
    return np.where(bars.missing[steps.rows] == 0, lacking, np.nan)


def _means_action(bars: Bars) -> bool:
    """Whether `preclose` is the previous close on most days; otherwise it is something else."""
    if bars.preclose is None:
        return False
    chain = bars.chain
    sample = np.arange(1, len(chain), max(1, len(chain) // 100_000))
    same = bars.codes[chain[sample]] == bars.codes[chain[sample - 1]]
    known, last = bars.preclose[chain[sample]], bars.close[chain[sample - 1]]
    given = same & (known > 0)
    return bool(given.any()) and float(np.mean(np.abs(known[given] / last[given] - 1) < 1e-3)) > 0.9


def _displaced(
    steps: _Steps, odds: Floats, unit: Booleans, parameters: Mapping[str, Any]
) -> tuple[Positions, Booleans]:
    """Positions in the chain between two steps that undo each other, one of which is the factor's alone or both of
    which are not trades; and the steps that bound them."""
    ends = np.zeros(len(steps.at), dtype=bool)
    inside: list[Positions] = []
    large = np.abs(steps.left) > parameters["smallest_factor_error"]
    still = np.abs(steps.raw_gap) < np.maximum(4 * steps.gap_scale, 0.25 * np.abs(steps.left))
    alone = large & (np.abs(steps.change) > parameters["smallest_known_action"]) & still
    no_trade = large & (odds > parameters["action_odds"])
    size = np.where(alone, steps.change, steps.gap)
    pairs: list[tuple[float, int, int]] = []
    far = np.flatnonzero(large)
    for place, one in enumerate(far):
        for other in far[place + 1 : place + 4]:
            length = steps.at[other] - steps.at[one]
            most = parameters["displaced_unit_bars" if unit[one] and unit[other] else "displaced_bars"]
            if length > most or steps.owners[one] != steps.owners[other]:
                break
            if alone[one] or alone[other] or (no_trade[one] and no_trade[other]):
                apart = abs(size[one] + size[other])
                slack = 0.03 + 3 * max(steps.gap_scale[one], steps.gap_scale[other])
                if apart < min(slack, 0.3 * abs(size[one])):
                    pairs.append((apart, int(one), int(other)))
    for _, begin, end in sorted(pairs):
        if not ends[begin] and not ends[end]:
            ends[begin] = ends[end] = True
            inside.append(np.arange(steps.at[begin], steps.at[end]))
    rows = np.concatenate(inside) if inside else np.empty(0, dtype=np.int64)
    return rows, ends


def _recycled(bars: Bars, parameters: Mapping[str, Any]) -> list[tuple[int, float]]:
    """Rows after a long absence whose level, volume and volatility are another company's. Codes of exchanges with
    limits are never reused."""
    chain = bars.chain
    places = kernels.find_places(chain, bars.missing >= parameters["recycled_gap"])
    places = places[~bars.limited[bars.codes[chain[places]]]]
    if not len(places):
        return []
    offsets = np.arange(-BEFORE, BEFORE)
    at = places[:, None] + offsets
    rows = chain[np.clip(at, 0, len(chain) - 1)].astype(np.int64)
    own = (at >= 0) & (at < len(chain)) & (bars.codes[rows] == bars.codes[rows[:, BEFORE]][:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        raw, factor = np.where(own, np.log(bars.close[rows]), np.nan), np.log(bars.factor[rows])
        volume = np.where(own & (bars.volume[rows] > 0), np.log(bars.volume[rows]), np.nan)
    moves = np.abs(np.diff(raw + factor, axis=1))
    scales = [1.4826 * _medians(moves[:, : BEFORE - 1]), 1.4826 * _medians(moves[:, BEFORE:])]
    scale = np.fmax(np.fmin(*scales), 0.004)
    plain = raw[:, BEFORE] - raw[:, BEFORE - 1]
    adjusted = plain + factor[:, BEFORE] - factor[:, BEFORE - 1]
    step = np.where(np.abs(plain) < np.abs(adjusted), plain, adjusted)
    wander = np.sqrt((1.3 * scale) ** 2 * bars.missing[rows[:, BEFORE]] + 0.2**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = _normal_odds(step, wander, np.hypot(wander, 1.2))
        odds = odds + _normal_odds(_medians(volume[:, BEFORE:]) - _medians(volume[:, :BEFORE]), 1.0, 2.2)
        odds = odds + _normal_odds(np.log(scales[1] / scales[0]), 0.45, 0.75)
    taken = odds > parameters["recycled_odds"]
    found = rows[taken, BEFORE]
    return list(zip(found.tolist(), np.exp(step[taken]).tolist(), strict=True))


def _normal_odds(value: Floats, same: Floats | float, other: Floats | float) -> Floats:
    """Log ratio of two normal densities around 0, the wider one over the narrower; 0 where unknown."""
    odds = 0.5 * (value / same) ** 2 - 0.5 * (value / other) ** 2 + np.log(same / other)
    return np.where(np.isfinite(odds), odds, 0.0)


def _t_density(value: Floats, degrees: int) -> Floats:
    norm = {3: 0.3675525969478614, 4: 0.375}[degrees]
    density: Floats = norm * (1 + value**2 / degrees) ** (-(degrees + 1) / 2)
    return density


def _scale(before: Floats, after: Floats, least: float) -> Floats:
    """Usual size (as of a standard deviation) of the values before, with too few of them of those after; at least
    `least`, and just that where both are few. The larger of what the median and the ninth decile say: a price of few
    ticks stands still on most days."""
    known = [np.sum(~np.isnan(part), axis=1) for part in (before, after)]
    sizes = []
    for part in (before, after):
        placed = np.sort(np.abs(part), axis=1)
        sizes.append(np.fmax(1.4826 * _quantiles(placed, 0.5), 0.6 * _quantiles(placed, 0.9)))
    scale = np.where(known[0] >= _FEW, sizes[0], np.where(known[1] >= _FEW, sizes[1], 0.03))
    return np.fmax(scale, least)


def _tick_size(raw: Floats) -> Floats:
    """Least change of the raw log price in a window, as of its last bars before the jump: what the price can do at all
    where it is a few ticks; NaN where it never changes."""
    price = np.exp(raw)
    change = np.abs(np.diff(price, axis=1))
    change[~(change > 1e-9 * price[:, 1:])] = np.nan
    least = np.where(np.isnan(change).all(axis=1), np.nan, np.fmin.reduce(change, axis=1))
    return least / np.fmin(price[:, BEFORE - 1], price[:, BEFORE])


def _quantiles(placed: Floats, share: float) -> Floats:
    """The quantile of each sorted row with NaN at its end; NaN where all are."""
    count = np.sum(~np.isnan(placed), axis=1)
    return placed[np.arange(len(placed)), np.round(share * np.maximum(count - 1, 0)).astype(np.int64)]


def _medians(values: Floats) -> Floats:
    """The median of each row (n, m), NaN left out; NaN where all are."""
    placed = np.sort(values, axis=1)
    count = np.sum(~np.isnan(placed), axis=1)
    rows = np.arange(len(placed))
    low, high = placed[rows, np.maximum(count - 1, 0) // 2], placed[rows, np.minimum(count // 2, placed.shape[1] - 1)]
    return np.where(count > 0, (low + high) / 2, np.nan)
