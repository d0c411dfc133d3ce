"""The compiled arithmetic: a tape of steps, run over each instrument's bars in chunks.

Every series of an instrument has a row of a buffer: what earlier bars its consumers still need, then the chunk. A step
fills its row from others. Between chunks, and between calls, only an instrument's state is kept: those earlier bars and
the few numbers of each recursion. So all at once, chunk by chunk or one bar a day is the same arithmetic on the same
numbers: windows are summed anew from the newest bar to the oldest, recursions go bar by bar, and nothing depends on how
the bars are split.

The inner loops of windows run along time for one lag: independent operations, which the compiler turns into vector
instructions without changing any result.
"""

from enum import IntEnum, auto
from typing import NamedTuple

import numpy as np
from numba import types

from mlops_tasks.features.kernels import FloatArray, IntArray
from mlops_tasks.kernels import inner, kernel, record

CHUNK = 256
"""Bars that are computed together: the buffer then stays in the processor's cache."""


class Op(IntEnum):
    """What a step does."""

    FIELD = auto()
    LITERAL = auto()
    ADD = auto()
    SUBTRACT = auto()
    MULTIPLY = auto()
    DIVIDE = auto()
    ABSOLUTE = auto()
    ROOT = auto()
    LOG = auto()
    GREATER = auto()
    LESS = auto()
    COALESCE = auto()
    SELECT = auto()
    TRUE_RANGE = auto()
    LAG = auto()
    SUM = auto()
    MEAN = auto()
    MEAN_KNOWN = auto()
    EXTREME = auto()
    EXTREME_KNOWN = auto()
    FIRST_EXTREME = auto()
    WEIGHTED_MEAN = auto()
    ABSOLUTE_DEVIATION = auto()
    STANDARD_DEVIATION = auto()
    EWM = auto()
    WILDER_MEAN = auto()
    WILDER_SUM = auto()
    TOTAL = auto()
    PRODUCT = auto()
    FIRST = auto()
    KAMA = auto()
    PSAR = auto()


class Tape(NamedTuple):
    """Steps made ready to run.

    Attributes
    ----------
    steps
        int64 (steps, 7): operation, row that is filled, three input rows, window, first place in the state.
    constants
        float64 (steps, 3).
    literals
        float64 (rows,): value of the rows that are constant, else NaN. The first rows are the bars' fields.
    histories
        int64 (rows with earlier bars, 3): row, number of earlier bars, first place in the state.
    outputs
        int64 (columns,): rows of the results.
    """

    steps: IntArray
    constants: FloatArray
    literals: FloatArray
    histories: IntArray
    outputs: IntArray


_I8, _F8 = types.int64[:, ::1], types.float64[:, ::1]


@kernel(record(Tape, _I8, _F8, types.float64[::1], _I8, types.int64[::1]), _F8, types.int64[::1], _F8, _F8)
def run(tape: Tape, fields: FloatArray, offsets: IntArray, state: FloatArray, out: FloatArray) -> None:
    """Compute all columns of some instruments, and advance their states to their last bar.

    Parameters
    ----------
    fields
        float64 (fields, bars), one instrument after the other, finite or NaN.
    offsets
        int64: instrument i is `[offsets[i], offsets[i + 1])`.
    state
        float64 (instruments, places); changed in place.
    out
        float64 (columns, bars), filled with finite numbers or NaN.
    """
    pad = 0
    for h in range(len(tape.histories)):
        pad = max(pad, tape.histories[h, 1])
    buffer = np.empty((len(tape.literals), pad + CHUNK))
    for row in range(len(tape.literals)):
        buffer[row] = tape.literals[row]
    for i in range(len(offsets) - 1):
        for begin in range(offsets[i], offsets[i + 1], CHUNK):
            n = min(CHUNK, offsets[i + 1] - begin)
            for f in range(len(fields)):
                buffer[f, pad : pad + n] = fields[f, begin : begin + n]
            for h in range(len(tape.histories)):
                row, bars, at = tape.histories[h]
                buffer[row, pad - bars : pad] = state[i, at : at + bars]
            for s in range(len(tape.steps)):
                _step(tape.steps[s], tape.constants[s], buffer, (pad, n), state[i])
            for h in range(len(tape.histories)):
                row, bars, at = tape.histories[h]
                state[i, at : at + bars] = buffer[row, pad + n - bars : pad + n]
            for column in range(len(tape.outputs)):
                values, results = buffer[tape.outputs[column], pad : pad + n], out[column, begin : begin + n]
                for j in range(n):
                    results[j] = values[j] if np.isfinite(values[j]) else np.nan


@inner
def _step(  # noqa: PLR0912 - one branch an operation
    step: IntArray, constants: FloatArray, buffer: FloatArray, span: tuple[int, int], state: FloatArray
) -> None:
    op, window = step[0], step[5]
    pad, n = span
    x, out, slots = buffer[step[2]], buffer[step[1], pad : pad + n], state[step[6] :]
    if op <= Op.TRUE_RANGE:
        now = pad + n
        _elementwise((op, constants[0]), x[pad:now], buffer[step[3], pad:now], buffer[step[4], pad:now], out)
    elif op == Op.LAG:
        out[:] = x[pad - window : pad - window + n]
    elif op == Op.SUM:
        _sum(x, pad, window, out)
    elif op == Op.MEAN:
        _mean(x, pad, window, out)
    elif op == Op.MEAN_KNOWN:
        _mean_known(x, pad, window, out)
    elif op == Op.EXTREME:
        _extreme(x, pad, window, constants[0], out)
    elif op == Op.EXTREME_KNOWN:
        _known_extreme(x, pad, window, constants[0], out)
    elif op == Op.FIRST_EXTREME:
        _first_extreme(x, pad, window, constants[0], out)
    elif op == Op.WEIGHTED_MEAN:
        _weighted_mean(x, pad, window, out)
    elif op == Op.ABSOLUTE_DEVIATION:
        _absolute_deviation(x, buffer[step[3], pad : pad + n], pad, window, out)
    elif op == Op.STANDARD_DEVIATION:
        _standard_deviation(x, buffer[step[3], pad : pad + n], pad, window, out)
    elif op == Op.PSAR:
        bars = (x[pad : pad + n], buffer[step[3], pad : pad + n], buffer[step[4], pad : pad + n])
        _stop_and_reverse(bars, constants, slots, out)
    else:
        _recursive((op, window), constants, (x[pad : pad + n], buffer[step[3], pad : pad + n]), slots, out)


@inner
def _elementwise(  # noqa: PLR0912 - one branch an operation
    operation: tuple[int, float], x: FloatArray, y: FloatArray, z: FloatArray, out: FloatArray
) -> None:
    op, constant = operation
    if op == Op.ADD:
        for j in range(len(out)):
            out[j] = x[j] + y[j]
    elif op == Op.SUBTRACT:
        for j in range(len(out)):
            out[j] = x[j] - y[j]
    elif op == Op.MULTIPLY:
        for j in range(len(out)):
            out[j] = x[j] * y[j]
    elif op == Op.DIVIDE:
        for j in range(len(out)):
            out[j] = x[j] / y[j] if y[j] != 0.0 else constant
    elif op == Op.ABSOLUTE:
        for j in range(len(out)):
            out[j] = abs(x[j])
    elif op == Op.ROOT:
        for j in range(len(out)):
            out[j] = np.sqrt(x[j])
    elif op == Op.LOG:
        for j in range(len(out)):
            out[j] = np.log(x[j]) if x[j] > 0.0 else np.nan
    elif op == Op.GREATER:
        for j in range(len(out)):
            out[j] = y[j] if y[j] > x[j] or np.isnan(y[j]) else x[j]
    elif op == Op.LESS:
        for j in range(len(out)):
            out[j] = y[j] if y[j] < x[j] or np.isnan(y[j]) else x[j]
    elif op == Op.COALESCE:
        for j in range(len(out)):
            out[j] = x[j] if not np.isnan(x[j]) else y[j]
    elif op == Op.SELECT:
        for j in range(len(out)):
            chosen = y[j] if x[j] > 0.0 else z[j]
            out[j] = chosen if not np.isnan(x[j]) else np.nan
    elif op == Op.TRUE_RANGE:
        for j in range(len(out)):
            widest = x[j] - y[j]
            for other in (abs(x[j] - z[j]), abs(y[j] - z[j])):
                widest = other if other > widest or np.isnan(widest) else widest
            out[j] = widest


@inner
def _sum(x: FloatArray, pad: int, window: int, out: FloatArray) -> None:
    n = len(out)
    out[:] = x[pad : pad + n]
    for k in range(1, window):
        past = x[pad - k : pad - k + n]
        for j in range(n):
            out[j] += past[j]


@inner
def _mean(x: FloatArray, pad: int, window: int, out: FloatArray) -> None:
    n = len(out)
    newest = x[pad : pad + n]
    out[:] = 0.0
    for k in range(1, window):
        past = x[pad - k : pad - k + n]
        for j in range(n):
            out[j] += past[j] - newest[j]
    for j in range(n):
        out[j] = newest[j] + out[j] / window


@inner
def _mean_known(x: FloatArray, pad: int, window: int, out: FloatArray) -> None:
    for j in range(len(out)):
        newest, rest, known = np.nan, 0.0, 0
        for k in range(window):
            value = x[pad + j - k]
            if not np.isnan(value):
                newest = value if known == 0 else newest
                rest += value - newest
                known += 1
        out[j] = newest + rest / known if known else np.nan


@inner
def _extreme(x: FloatArray, pad: int, window: int, sign: float, out: FloatArray) -> None:
    n = len(out)
    for j in range(n):
        out[j] = sign * x[pad + j]
    for k in range(1, window):
        past = x[pad - k : pad - k + n]
        for j in range(n):
            value = sign * past[j]
            out[j] = value if value > out[j] or np.isnan(value) else out[j]
    for j in range(n):
        out[j] *= sign


@inner
def _known_extreme(x: FloatArray, pad: int, window: int, sign: float, out: FloatArray) -> None:
    n = len(out)
    for j in range(n):
        out[j] = sign * x[pad + j]
    for k in range(1, window):
        past = x[pad - k : pad - k + n]
        for j in range(n):
            value = sign * past[j]
            out[j] = value if value > out[j] or np.isnan(out[j]) else out[j]
    for j in range(n):
        out[j] *= sign


@inner
def _first_extreme(x: FloatArray, pad: int, window: int, sign: float, out: FloatArray) -> None:
    n = len(out)
    best = sign * x[pad : pad + n]
    out[:] = window - 1.0
    for k in range(1, window):
        past = x[pad - k : pad - k + n]
        for j in range(n):
            value = sign * past[j]
            better = value >= best[j] or np.isnan(value)
            out[j] = window - 1.0 - k if better else out[j]
            best[j] = value if better else best[j]
    for j in range(n):
        out[j] = out[j] if not np.isnan(best[j]) else np.nan


@inner
def _weighted_mean(x: FloatArray, pad: int, window: int, out: FloatArray) -> None:
    n = len(out)
    out[:] = 0.0
    for k in range(window):
        past, weight = x[pad - k : pad - k + n], (window - k) * 2.0 / (window * (window + 1.0))
        for j in range(n):
            out[j] += weight * past[j]


@inner
def _absolute_deviation(x: FloatArray, centre: FloatArray, pad: int, window: int, out: FloatArray) -> None:
    n = len(out)
    out[:] = 0.0
    for k in range(window):
        past = x[pad - k : pad - k + n]
        for j in range(n):
            out[j] += abs(past[j] - centre[j])
    for j in range(n):
        out[j] /= window


@inner
def _standard_deviation(x: FloatArray, centre: FloatArray, pad: int, window: int, out: FloatArray) -> None:
    n = len(out)
    out[:] = 0.0
    for k in range(window):
        past = x[pad - k : pad - k + n]
        for j in range(n):
            d = past[j] - centre[j]
            out[j] += d * d
    for j in range(n):
        out[j] = np.sqrt(out[j] / window)


@inner
def _recursive(
    operation: tuple[int, int],
    constants: FloatArray,
    inputs: tuple[FloatArray, FloatArray],
    slots: FloatArray,
    out: FloatArray,
) -> None:
    (op, window), (x, y) = operation, inputs
    if op == Op.EWM:
        _ewm(x, constants[0], constants[1], slots, out)
    elif op == Op.WILDER_MEAN:
        _wilder(x, window, 1.0 / window, slots, out)
    elif op == Op.WILDER_SUM:
        _wilder(x, window, 1.0, slots, out)
    elif op == Op.TOTAL:
        total = slots[0]
        for j in range(len(out)):
            total = total + x[j] if np.isfinite(x[j]) else total
            out[j] = total if np.isfinite(x[j]) else np.nan
        slots[0] = total
    elif op == Op.PRODUCT:
        product = slots[0]
        for j in range(len(out)):
            product = product * x[j] if np.isfinite(x[j]) else product
            out[j] = product if np.isfinite(x[j]) else np.nan
        slots[0] = product
    elif op == Op.FIRST:
        first = slots[0]
        for j in range(len(out)):
            first = x[j] if np.isnan(first) else first
            out[j] = first
        slots[0] = first
    elif op == Op.KAMA:
        _adaptive_mean(x, y, window, slots, out)


@inner
def _ewm(x: FloatArray, alpha: float, least: float, slots: FloatArray, out: FloatArray) -> None:
    """The recursion of pandas 3, with its own weight after missing values where alpha is exactly 1 / 2."""
    average, old_weight, known = slots[0], slots[1], slots[2]
    for j in range(len(out)):
        value, is_known = x[j], np.isfinite(x[j])
        if not np.isnan(average):
            old_weight *= 1.0 - alpha
            if is_known:
                if average != value:
                    new_weight = 1.0 - old_weight if alpha == 0.5 else alpha
                    average = old_weight * average + new_weight * value
                    weights = old_weight + new_weight
                    if weights != 1.0:  # a division by 1 changes nothing, but takes most of the time
                        average /= weights
                old_weight = 1.0
        elif is_known:
            average = value
        known += 1.0 if is_known else 0.0
        out[j] = average if known >= least else np.nan
    slots[0], slots[1], slots[2] = average, old_weight, known


@inner
def _wilder(x: FloatArray, window: int, share: float, slots: FloatArray, out: FloatArray) -> None:
    """`share` of the sum of the first `window` values, then each step less 1 / window of itself plus `share` * x."""
    value, known = slots[0], slots[1]
    for j in range(len(out)):
        out[j] = np.nan
        if np.isfinite(x[j]):
            value = value + x[j] * share if known < window else value - value / window + x[j] * share
            known += 1.0
            if known >= window:
                out[j] = value
    slots[0], slots[1] = value, known


@inner
def _adaptive_mean(x: FloatArray, speed: FloatArray, window: int, slots: FloatArray, out: FloatArray) -> None:
    value, known = slots[0], slots[1]
    for j in range(len(out)):
        known += 1.0 if not np.isnan(x[j]) else 0.0
        out[j] = np.nan
        if np.isnan(value):
            if known >= window:
                value = x[j]
                out[j] = value
        elif not np.isnan(speed[j]) and not np.isnan(x[j]):
            value += speed[j] * (x[j] - value)
            out[j] = value
    slots[0], slots[1] = value, known


@inner
def _trend_of(seen: float, trend: float) -> float:
    return trend if seen > 2.0 else 0.0


@inner
def _stop_and_reverse(  # noqa: PLR0912 - the rules are that many
    bars: tuple[FloatArray, FloatArray, FloatArray],
    constants: FloatArray,
    slots: FloatArray,
    out: FloatArray,
) -> None:
    """Wilder's rules as `ta` has them: the stop is held at the low (high) of the last two bars, the older one first."""
    highs, lows, closes = bars
    step, max_step, wants_stop = constants[0], constants[1], constants[2] == 1.0
    seen, stop, trend, speed, top, bottom = slots[0], slots[1], slots[2], slots[3], slots[4], slots[5]
    high1, high2, low1, low2 = slots[6], slots[7], slots[8], slots[9]
    for j in range(len(out)):
        high, low = highs[j], lows[j]
        if np.isnan(high) or np.isnan(low) or np.isnan(closes[j]):
            out[j] = np.nan if wants_stop else _trend_of(seen, trend)
            continue
        if seen == 0.0:
            trend, speed, top, bottom = 1.0, step, high, low
        if seen < 2.0:
            stop = closes[j]
        elif trend > 0.0:
            stop += speed * (top - stop)
            if low < stop:
                trend, stop, bottom, speed = -1.0, top, low, step
            else:
                if high > top:
                    top, speed = high, min(speed + step, max_step)
                if low2 < stop:
                    stop = low2
                elif low1 < stop:
                    stop = low1
        else:
            stop -= speed * (stop - bottom)
            if high > stop:
                trend, stop, top, speed = 1.0, bottom, high, step
            else:
                if low < bottom:
                    bottom, speed = low, min(speed + step, max_step)
                if high2 > stop:
                    stop = high2
                elif high1 > stop:
                    stop = high1
        seen += 1.0
        high1, high2, low1, low2 = high, high1, low, low1
        out[j] = stop if wants_stop else _trend_of(seen, trend)
    slots[0], slots[1], slots[2], slots[3], slots[4], slots[5] = seen, stop, trend, speed, top, bottom
    slots[6], slots[7], slots[8], slots[9] = high1, high2, low1, low2
