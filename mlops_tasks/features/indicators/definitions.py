"""The catalogue of indicators: each is a function from a bar's series and its parameters to its outputs.

The values are those of the library `ta` 0.11 (`fillna=False`) on the instrument's own bars, warm-up included, up to
rounding. Deliberate differences, everywhere:

- A value is finite or NaN. Where `ta` divides by zero and gives an infinity, it is NaN here.
- Nothing is filled from the future. `ta` fills the beginning of shifted series with the mean of the whole series
  (`kst`, visual `ichimoku`, and `trix`, `dpo` with windows of one or two bars); here it is NaN.
- What is not known yet is NaN, not zero (`atr`, `adx`), and short series give NaN instead of an `IndexError`.
- A recursion skips a bar that lacks a price: NaN there, and it continues from where it was. In `ta` the first missing
  price makes `kama`, `atr`, `adx`, `nvi` and `cumulative_return` NaN, or useless, from then on.

Each function states its other differences. A parameter's limits are in its annotation; `Window` counts bars.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, TypeAlias, get_args, get_type_hints

from mlops_tasks.features.indicators.graph import (
    BAR,
    Bar,
    SeriesNode,
    absolute,
    absolute_deviation,
    adaptive_mean,
    change,
    coalesce,
    divide,
    ewm,
    exponential_mean,
    fields_of,
    first,
    first_highest,
    first_lowest,
    greater,
    highest,
    highest_known,
    lag,
    less,
    log,
    lowest,
    lowest_known,
    mean,
    mean_known,
    product,
    rolling_sum,
    root,
    standard_deviation,
    stop_and_reverse,
    total,
    true_range,
    weighted_mean,
    where_positive,
    wilder_mean,
    wilder_sum,
)

Value: TypeAlias = int | float | bool
Outputs: TypeAlias = Mapping[str, SeriesNode]


@dataclass(frozen=True)
class Limits:
    """Smallest and largest value of a parameter, both allowed."""

    low: float
    high: float


Window = Annotated[int, Limits(1, 1000)]
Shift = Annotated[int, Limits(0, 1000)]
Factor = Annotated[float, Limits(1e-6, 1e6)]
Step = Annotated[float, Limits(1e-6, 1.0)]
Switch = Annotated[bool, Limits(0, 1)]


@dataclass(frozen=True)
class Parameter:
    """The type, limits and default of a parameter."""

    kind: type
    limits: Limits
    default: Value


@dataclass(frozen=True)
class Definition:
    """An indicator of the catalogue; its inputs and outputs are read from its function.

    Attributes
    ----------
    build
        From the bar's series and the parameters to the outputs.
    """

    name: str
    build: Callable[..., Outputs]

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        """By name, in the order of the function."""
        hints = get_type_hints(self.build, include_extras=True)
        parameters = {}
        for name, parameter in list(inspect.signature(self.build).parameters.items())[1:]:
            kind, limits = get_args(hints[name])
            parameters[name] = Parameter(kind, limits, parameter.default)
        return parameters

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of its outputs; that of the main one is empty."""
        return tuple(self.build(BAR))

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Fields of the bar that it reads."""
        return fields_of(self.build(BAR).values())


CATALOGUE: dict[str, Definition] = {}
"""All indicators by name."""


def _indicator(build: Callable[..., Outputs]) -> Callable[..., Outputs]:
    CATALOGUE[build.__name__] = Definition(build.__name__, build)
    return build


def _one(node: SeriesNode) -> Outputs:
    return {"": node}


def _typical_price(bar: Bar) -> SeriesNode:
    return (bar.high + bar.low + bar.close) / 3.0


def _percent_change(x: SeriesNode, bars: int) -> SeriesNode:
    return (x - lag(x, bars)) / lag(x, bars)


def _centre_of_mass(window: int) -> float:
    """Centre of mass of Wilder's smoothing, where a value weighs 1 / window, as pandas rounds `alpha=1 / window`."""
    return (1.0 - 1.0 / window) / (1.0 / window)


def _relative_strength(close: SeriesNode, window: int) -> SeriesNode:
    moves, com = change(close), _centre_of_mass(window)
    up, down = (ewm(coalesce(greater(side, 0.0), 0.0), com, window) for side in (moves, -moves))
    return 100.0 - 100.0 / (1.0 + divide(up, down, empty=float("inf")))


def _position(x: SeriesNode, low: SeriesNode, high: SeriesNode) -> SeriesNode:
    """Where x lies between two bounds: 0 at the low, 1 at the high; NaN where they are equal."""
    return (x - low) / (high - low)


def _stochastic(bar: Bar, window: int) -> SeriesNode:
    return 100.0 * (bar.close - lowest(bar.low, window)) / (highest(bar.high, window) - lowest(bar.low, window))


def _midpoint(bar: Bar, window: int) -> SeriesNode:
    return 0.5 * (highest(bar.high, window) + lowest(bar.low, window))


def _bands(x: SeriesNode, low: SeriesNode, mid: SeriesNode, high: SeriesNode) -> Outputs:
    """Bands with their width in percent of `mid` and the position of x between them."""
    width, percent = (high - low) / mid * 100.0, _position(x, low, high)
    return {"mid": mid, "high": high, "low": low, "width": width, "percent": percent}


def _oscillator(line: SeriesNode, window_sign: int) -> Outputs:
    signal = exponential_mean(line, window_sign)
    return {"": line, "signal": signal, "histogram": line - signal}


def _percentage_oscillator(x: SeriesNode, window_slow: int, window_fast: int, window_sign: int) -> Outputs:
    fast, slow = exponential_mean(x, window_fast), exponential_mean(x, window_slow)
    return _oscillator((fast - slow) / slow * 100.0, window_sign)


def _close_location(bar: Bar) -> SeriesNode:
    """-1 (close at the low) to 1 (at the high); 0 for a bar without a range or with a missing price."""
    return coalesce(divide((bar.close - bar.low) - (bar.high - bar.close), bar.high - bar.low, empty=0.0), 0.0)


@_indicator
def sma(bar: Bar, window: Window = 20) -> Outputs:
    """Simple moving average of the close."""
    return _one(mean(bar.close, window))


@_indicator
def ema(bar: Bar, window: Window = 14) -> Outputs:
    """Exponential moving average of the close, span `window`, started with the first close."""
    return _one(exponential_mean(bar.close, window))


@_indicator
def wma(bar: Bar, window: Window = 9) -> Outputs:
    """Weighted moving average of the close: weights 1 (oldest) to `window` (newest)."""
    return _one(weighted_mean(bar.close, window))


@_indicator
def macd(bar: Bar, window_slow: Window = 26, window_fast: Window = 12, window_sign: Window = 9) -> Outputs:
    """Moving average convergence divergence (Appel): fast less slow EMA, its EMA, and their difference."""
    return _oscillator(exponential_mean(bar.close, window_fast) - exponential_mean(bar.close, window_slow), window_sign)


@_indicator
def rsi(bar: Bar, window: Window = 14) -> Outputs:
    """Relative strength index (Wilder 1978), 0 to 100.

    As in `ta`, the means start with a move of zero on the first bar, not with the mean of the first `window` moves, and
    prices that never fell have 100, even those that never moved.
    """
    return _one(_relative_strength(bar.close, window))


@_indicator
def stochastic(bar: Bar, window: Window = 14, smooth_window: Window = 3) -> Outputs:
    """Stochastic oscillator (Lane): %K, place of the close in the range of `window` bars, and its mean %D."""
    k = _stochastic(bar, window)
    return {"k": k, "d": mean(k, smooth_window)}


@_indicator
def kdj(bar: Bar, window: Window = 9, smooth_k: Window = 3, smooth_d: Window = 3) -> Outputs:
    """KDJ, as Chinese charts have it: K and D smooth the raw stochastic value recursively, J = 3 K - 2 D.

    K = (K' * (smooth_k - 1) + RSV) / smooth_k and likewise D from K, both started with the first value, as the chart
    language's `SMA(x, n, 1)` does (others start with 50); a window without a range leaves them. `ta` has no KDJ.
    """
    k = ewm(_stochastic(bar, window), _centre_of_mass(smooth_k), 1)
    d = ewm(k, _centre_of_mass(smooth_d), 1)
    return {"k": k, "d": d, "j": 3.0 * k - 2.0 * d}


@_indicator
def stoch_rsi(bar: Bar, window: Window = 14, smooth1: Window = 3, smooth2: Window = 3) -> Outputs:
    """Stochastic RSI (Chande and Kroll 1994): place of the RSI in its own range, 0 to 1, its mean, and the mean's."""
    strength = _relative_strength(bar.close, window)
    line = _position(strength, lowest(strength, window), highest(strength, window))
    k = mean(line, smooth1)
    return {"": line, "k": k, "d": mean(k, smooth2)}


@_indicator
def bollinger(bar: Bar, window: Window = 20, window_dev: Factor = 2.0) -> Outputs:
    """Bollinger bands: mean of the close and `window_dev` standard deviations (divisor `window`) to both sides."""
    mid, reach = mean(bar.close, window), window_dev * standard_deviation(bar.close, window)
    return _bands(bar.close, mid - reach, mid, mid + reach)


@_indicator
def atr(bar: Bar, window: Window = 14) -> Outputs:
    """Average true range (Wilder 1978): mean of the first `window` ranges, then Wilder's smoothing.

    NaN before; `ta` has zeros there.
    """
    return _one(wilder_mean(true_range(bar.high, bar.low, lag(bar.close)), window))


@_indicator
def adx(bar: Bar, window: Window = 14) -> Outputs:
    """Average directional index (Wilder 1978) with +DI (`plus`) and -DI (`minus`).

    The indicators have values from bar `window` on (the first is bar 0), the index from bar 2 * window - 1 on, NaN
    before; `ta` has zeros there, and on the indicators' first bar too.
    """
    rise, fall = change(bar.high), lag(bar.low) - bar.low
    up = where_positive(rise - greater(fall, 0.0), rise, 0.0)
    down = where_positive(fall - greater(rise, 0.0), fall, 0.0)
    previous = lag(bar.close)
    ranges = wilder_sum(greater(bar.high, previous) - less(bar.low, previous), window)
    plus, minus = (100.0 * divide(wilder_sum(side, window), ranges, empty=0.0) for side in (up, down))
    strength = 100.0 * absolute(divide(plus - minus, plus + minus, empty=0.0))
    return {"": wilder_mean(strength, window), "plus": plus, "minus": minus}


@_indicator
def cci(bar: Bar, window: Window = 20, constant: Factor = 0.015) -> Outputs:
    """Commodity channel index (Lambert 1980): distance of the typical price to its mean, in mean deviations.

    NaN where the typical price did not change in the window; `ta` has 0 or NaN there, depending on rounding.
    """
    price = _typical_price(bar)
    return _one((price - mean(price, window)) / (constant * absolute_deviation(price, window)))


@_indicator
def obv(bar: Bar) -> Outputs:
    """On-balance volume: sum of the volumes, those of falling closes negative.

    As in `ta`, the first bar and unchanged closes count as rising; Granville (1963) left them out.
    """
    fall = lag(bar.close) - bar.close
    return _one(total(coalesce(where_positive(fall, -bar.volume, bar.volume), bar.volume)))


@_indicator
def mfi(bar: Bar, window: Window = 14) -> Outputs:
    """Money flow index (Quong and Soudack 1989), 0 to 100: share of the money that flowed on rising typical prices."""
    price = _typical_price(bar)
    fall = lag(price) - price
    sign = coalesce(where_positive(fall, -1.0, where_positive(-fall, 1.0, 0.0)), 0.0)
    flow = price * bar.volume * sign
    inflow, outflow = (rolling_sum(greater(side, 0.0), window) for side in (flow, -flow))
    return _one(100.0 * inflow / (inflow + outflow))


@_indicator
def williams_r(bar: Bar, window: Window = 14) -> Outputs:
    """Williams %R, -100 to 0: distance of the close to the highest high, in percent of the range of `window` bars."""
    top, bottom = highest(bar.high, window), lowest(bar.low, window)
    return _one(-100.0 * (top - bar.close) / (top - bottom))


@_indicator
def roc(bar: Bar, window: Window = 12) -> Outputs:
    """Rate of change of the close over `window` bars, in percent."""
    return _one(_percent_change(bar.close, window) * 100.0)


@_indicator
def trix(bar: Bar, window: Window = 15) -> Outputs:
    """Rate of change of the triple exponential mean of the close, in percent (Hutson)."""
    return _one(
        _percent_change(exponential_mean(exponential_mean(exponential_mean(bar.close, window), window), window), 1)
        * 100.0
    )


@_indicator
def keltner(
    bar: Bar, window: Window = 20, window_atr: Window = 10, original: Switch = True, multiplier: Factor = 2.0
) -> Outputs:
    """Keltner channel.

    `original`: mean typical price, and the means of (4 high - 2 low + close) / 3 and (-2 high + 4 low + close) / 3,
    which, as in `ta`, have values from the first bar on; `window_atr` and `multiplier` are not used. Otherwise: EMA of
    the close, and `multiplier` average true ranges to both sides.
    """
    high, low, close = bar.high, bar.low, bar.close
    if not original:
        mid, reach = exponential_mean(close, window), multiplier * atr(bar, window_atr)[""]
        return _bands(close, mid - reach, mid, mid + reach)
    mid = mean(_typical_price(bar), window)
    upper = mean_known((4.0 * high - 2.0 * low + close) / 3.0, window)
    lower = mean_known((-2.0 * high + 4.0 * low + close) / 3.0, window)
    return _bands(close, lower, mid, upper)


@_indicator
def donchian(bar: Bar, window: Window = 20, offset: Shift = 0) -> Outputs:
    """Donchian channel: highest high and lowest low of `window` bars, `offset` bars ago; width in percent of the mean
    close."""
    high, low = highest(bar.high, window), lowest(bar.low, window)
    outputs = {
        "mid": (high - low) / 2.0 + low,
        "high": high,
        "low": low,
        "width": (high - low) / mean(bar.close, window) * 100.0,
        "percent": _position(bar.close, low, high),
    }
    return {name: lag(node, offset) for name, node in outputs.items()}


@_indicator
def ichimoku(
    bar: Bar, window1: Window = 9, window2: Window = 26, window3: Window = 52, visual: Switch = False
) -> Outputs:
    """Ichimoku Kinko Hyo: conversion and base line, spans A and B.

    `visual`: the spans are those of `window2` bars ago, as charts draw them, NaN until then; the lagging line, which
    charts draw into the past, is not an output. As in `ta`, span B has values from the first bar on.
    """
    conversion, base = _midpoint(bar, window1), _midpoint(bar, window2)
    a, shift = 0.5 * (conversion + base), window2 if visual else 0
    b = 0.5 * (highest_known(bar.high, window3) + lowest_known(bar.low, window3))
    return {"conversion": conversion, "base": base, "a": lag(a, shift), "b": lag(b, shift)}


@_indicator
def kst(  # noqa: PLR0913, PLR0917 - the indicator has these nine
    bar: Bar,
    roc1: Window = 10,
    roc2: Window = 15,
    roc3: Window = 20,
    roc4: Window = 30,
    window1: Window = 10,
    window2: Window = 10,
    window3: Window = 10,
    window4: Window = 15,
    signal_window: Window = 9,
) -> Outputs:
    """Know sure thing (Pring): weighted sum of four smoothed rates of change, its mean, and their difference.

    NaN until all rates of change are known. `ta` takes the mean of all closes, later ones too, for those before the
    first, and begins earlier with such values; the signal is the mean of the available values.
    """
    smoothed = [
        mean(_percent_change(bar.close, bars), window)
        for bars, window in ((roc1, window1), (roc2, window2), (roc3, window3), (roc4, window4))
    ]
    line = 100.0 * (smoothed[0] + 2.0 * smoothed[1] + 3.0 * smoothed[2] + 4.0 * smoothed[3])
    signal = mean_known(line, signal_window)
    return {"": line, "signal": signal, "difference": line - signal}


@_indicator
def tsi(bar: Bar, window_slow: Window = 25, window_fast: Window = 13) -> Outputs:
    """True strength index (Blau 1991), -100 to 100: twice smoothed moves by twice smoothed absolute moves."""
    moves = change(bar.close)
    smoothed, size = (
        exponential_mean(exponential_mean(side, window_slow), window_fast) for side in (moves, absolute(moves))
    )
    return _one(100.0 * (smoothed / size))


@_indicator
def ultimate_oscillator(  # noqa: PLR0913, PLR0917 - the indicator has these six
    bar: Bar,
    window1: Window = 7,
    window2: Window = 14,
    window3: Window = 28,
    weight1: Factor = 4.0,
    weight2: Factor = 2.0,
    weight3: Factor = 1.0,
) -> Outputs:
    """Ultimate oscillator (Williams 1976), 0 to 100: buying pressure by true range over three windows."""
    previous = lag(bar.close)
    pressure, ranges = bar.close - less(bar.low, previous), true_range(bar.high, bar.low, previous)
    short, medium, long = (
        weight * (rolling_sum(pressure, window) / rolling_sum(ranges, window))
        for weight, window in ((weight1, window1), (weight2, window2), (weight3, window3))
    )
    return _one(100.0 * (short + medium + long) / (weight1 + weight2 + weight3))


@_indicator
def awesome_oscillator(bar: Bar, window1: Window = 5, window2: Window = 34) -> Outputs:
    """Awesome oscillator (Williams): short less long mean of the bars' midpoints."""
    midpoint = 0.5 * (bar.high + bar.low)
    return _one(mean(midpoint, window1) - mean(midpoint, window2))


@_indicator
def kama(bar: Bar, window: Window = 10, pow1: Window = 2, pow2: Window = 30) -> Outputs:
    """Kaufman's adaptive moving average (1995), started with the `window`-th close.

    `ta` compares the first bars with the last ones (`np.roll`); that affects the values only if the last close is
    missing: then it starts a bar later.
    """
    fast, slow = 2.0 / (pow1 + 1.0), 2.0 / (pow2 + 1.0)
    path = rolling_sum(absolute(change(bar.close)), window)
    efficiency = divide(absolute(bar.close - lag(bar.close, window)), path, empty=0.0)
    pace = efficiency * (fast - slow) + slow
    return _one(adaptive_mean(bar.close, pace * pace, window))


@_indicator
def ppo(bar: Bar, window_slow: Window = 26, window_fast: Window = 12, window_sign: Window = 9) -> Outputs:
    """Percentage price oscillator: the MACD of the close in percent of the slow EMA."""
    return _percentage_oscillator(bar.close, window_slow, window_fast, window_sign)


@_indicator
def pvo(bar: Bar, window_slow: Window = 26, window_fast: Window = 12, window_sign: Window = 9) -> Outputs:
    """Percentage volume oscillator: the same for the volume."""
    return _percentage_oscillator(bar.volume, window_slow, window_fast, window_sign)


@_indicator
def vortex(bar: Bar, window: Window = 14) -> Outputs:
    """Vortex indicator (Botes and Siepman 2010): upward and downward movement by true range, and their difference."""
    ranges = rolling_sum(true_range(bar.high, bar.low, lag(bar.close)), window)
    plus = rolling_sum(absolute(bar.high - lag(bar.low)), window) / ranges
    minus = rolling_sum(absolute(bar.low - lag(bar.high)), window) / ranges
    return {"plus": plus, "minus": minus, "difference": plus - minus}


@_indicator
def mass_index(bar: Bar, window_fast: Window = 9, window_slow: Window = 25) -> Outputs:
    """Mass index (Dorsey 1992): sum over `window_slow` bars of the EMA of the range by its own EMA."""
    once = exponential_mean(bar.high - bar.low, window_fast)
    return _one(rolling_sum(once / exponential_mean(once, window_fast), window_slow))


@_indicator
def dpo(bar: Bar, window: Window = 20) -> Outputs:
    """Detrended price oscillator: the close of window / 2 + 1 bars ago less the mean close of `window` bars.

    This form reads no later bar; the one that centres the mean in time would.
    """
    return _one(lag(bar.close, int(0.5 * window + 1)) - mean(bar.close, window))


@_indicator
def aroon(bar: Bar, window: Window = 25) -> Outputs:
    """Aroon (Chande 1995): how recent the high and the low of `window` + 1 bars are, 0 to 100; of equal ones, the
    oldest counts."""
    up = first_highest(bar.high, window + 1) / float(window) * 100.0
    down = first_lowest(bar.low, window + 1) / float(window) * 100.0
    return {"up": up, "down": down, "difference": up - down}


@_indicator
def psar(bar: Bar, step: Step = 0.02, max_step: Step = 0.2) -> Outputs:
    """Parabolic stop and reverse (Wilder 1978): the stop, the same in upward and in downward trends only, and 1 on the
    first bar of a trend, else 0.

    As in `ta`, the stop of the first two bars is the close, without a trend. `ta` itself writes a falling stop to a
    wrong row if the index is not 0, 1, 2, ...
    """
    stop, trend = stop_and_reverse(bar, step, max_step)
    before = coalesce(lag(trend), 0.0)
    return {
        "": stop,
        "up": where_positive(trend, stop, math.nan),
        "down": where_positive(-trend, stop, math.nan),
        "turns_up": where_positive(trend, where_positive(before, 0.0, 1.0), 0.0),
        "turns_down": where_positive(-trend, where_positive(-before, 0.0, 1.0), 0.0),
    }


@_indicator
def stc(  # noqa: PLR0913, PLR0917 - the indicator has these five
    bar: Bar,
    window_slow: Window = 50,
    window_fast: Window = 23,
    cycle: Window = 10,
    smooth1: Window = 3,
    smooth2: Window = 3,
) -> Outputs:
    """Schaff trend cycle (1999), 0 to 100: stochastic of the smoothed stochastic of the MACD."""

    def place(x: SeriesNode) -> SeriesNode:
        return 100.0 * (x - lowest(x, cycle)) / (highest(x, cycle) - lowest(x, cycle))

    line = exponential_mean(bar.close, window_fast) - exponential_mean(bar.close, window_slow)
    return _one(exponential_mean(place(exponential_mean(place(line), smooth1)), smooth2))


@_indicator
def ulcer_index(bar: Bar, window: Window = 14) -> Outputs:
    """Ulcer index (Martin and McCann 1989): root mean square of the drawdowns, in percent, from the running high of
    `window` bars."""
    top = highest_known(bar.close, window)
    drawdown = 100.0 * (bar.close - top) / top
    return _one(root(rolling_sum(drawdown * drawdown, window) / float(window)))


@_indicator
def cmf(bar: Bar, window: Window = 20) -> Outputs:
    """Chaikin money flow, -1 to 1: volume weighted by where the close lies in the bar, by the volume.

    A bar without a range adds no flow, even if its close lies outside (an infinity in `ta`).
    """
    flow = _close_location(bar) * bar.volume
    return _one(rolling_sum(flow, window) / rolling_sum(bar.volume, window))


@_indicator
def adi(bar: Bar) -> Outputs:
    """Accumulation/distribution index (Chaikin): sum of the volumes weighted by where the close lies in the bar, as in
    `cmf`."""
    return _one(total(_close_location(bar) * bar.volume))


@_indicator
def eom(bar: Bar, window: Window = 14) -> Outputs:
    """Ease of movement (Arms), times 1e8: move of the midpoint by volume per range, and its mean of `window` bars.

    NaN on a bar without volume; `ta` has an infinity there.
    """
    moved = change(bar.high) + change(bar.low)
    line = 1e8 * (moved * (bar.high - bar.low) / (2.0 * bar.volume))
    return {"": line, "signal": mean(line, window)}


@_indicator
def vpt(bar: Bar, smoothing: Shift = 0) -> Outputs:
    """Volume-price trend: sum of volume times relative change of the close; its mean of `smoothing` bars, unless 0."""
    line = total(_percent_change(bar.close, 1) * bar.volume)
    return _one(mean(line, smoothing) if smoothing else line)


@_indicator
def force_index(bar: Bar, window: Window = 13) -> Outputs:
    """Force index (Elder 1993): exponential mean of change of the close times volume."""
    return _one(exponential_mean(change(bar.close) * bar.volume, window))


@_indicator
def nvi(bar: Bar) -> Outputs:
    """Negative volume index (Fosback 1976): begins at 1000 and follows the close on bars of falling volume."""
    calmer = lag(bar.volume) - bar.volume
    growth = coalesce(where_positive(calmer, 1.0 + _percent_change(bar.close, 1), 1.0), 1.0)
    return _one(1000.0 * product(growth))


@_indicator
def vwap(bar: Bar, window: Window = 14) -> Outputs:
    """Volume-weighted mean of the typical price over `window` bars."""
    return _one(rolling_sum(_typical_price(bar) * bar.volume, window) / rolling_sum(bar.volume, window))


@_indicator
def daily_return(bar: Bar) -> Outputs:
    """Return of the close since the previous bar, in percent."""
    return _one((bar.close / lag(bar.close) - 1.0) * 100.0)


@_indicator
def log_return(bar: Bar) -> Outputs:
    """Change of the logarithm of the close since the previous bar, times 100."""
    return _one(change(log(bar.close)) * 100.0)


@_indicator
def cumulative_return(bar: Bar) -> Outputs:
    """Return of the close since the first one, in percent."""
    return _one((bar.close / first(bar.close) - 1.0) * 100.0)
