"""Compiled code of the factor engine: a small virtual machine that runs a program of steps over series of instruments.

`run_block` takes one instrument after the other through all steps of a program. A step reads and fills buffers (one
float64 value per calendar row of the instrument) on the rows that are needed and no others, so that a series stays in
the processor's nearest cache from step to step. Results that are wanted by day are first gathered as float32 for a
block of instruments, because there the values of one day lie side by side.

A window is the last `window` rows, fewer at a series' beginning; NaN and infinite values are left out, as in pandas,
and a window with none left is NaN. A window of n rows is composed of two shorter ones, one behind the other
(`engine._halves`), down to single rows: few passes over the series give all windows, sums have the small error of
pairwise summation, and a value depends on the rows of its window only, never on where the series begins. Sums of
squares and products are taken about a value of their window and moved from one such centre to the other when two
windows are joined: exact zeros for constant series, and no cancellation beyond that between values of one window.

Loops fill one array each: the compiler then turns them into vector instructions, without changing any result.
"""

from collections.abc import Callable
from enum import IntEnum, auto
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from mlops_tasks.kernels import kernel, record

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
SingleArray = NDArray[np.float32]

_inner: Callable[..., Any] = numba.njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, _nrt=False)
"""For functions that only compiled code calls: cached with their callers, without reference counts of arrays."""
_inlined: Callable[..., Any] = numba.njit(inline="always")
"""As `_inner`, returning arrays."""
_allocating: Callable[..., Any] = numba.njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, _nrt=True)
"""As `_inner`, with arrays of its own."""

NEAR_ZERO = 2e-5**2
"""Qlib omits fits of series whose standard deviation is within 2e-5 of zero."""

_CHUNK = 16
"""Days that are written out together: as many lines of the result as the nearest cache holds easily."""


class Op(IntEnum):
    """What a step does; elementwise and windowed operators have their names in the factor language."""

    Field = auto()
    Row = auto()
    Lookup = auto()
    Export = auto()
    Ref = auto()
    EMA = auto()
    Abs = auto()
    Sign = auto()
    Log = auto()
    Neg = auto()
    Not = auto()
    NotNaN = auto()
    Power = auto()
    Add = auto()
    Sub = auto()
    Mul = auto()
    Div = auto()
    Greater = auto()
    Less = auto()
    Gt = auto()
    Ge = auto()
    Lt = auto()
    Le = auto()
    Eq = auto()
    Ne = auto()
    And = auto()
    Or = auto()
    If = auto()
    Steady = auto()
    Sums = auto()
    Variances = auto()
    Comoments = auto()
    Highs = auto()
    HighRows = auto()
    Ranks = auto()
    Quantiles = auto()
    WeightedMeans = auto()
    Deviations = auto()


WINDOW, SLOT, NEWER, OLDER, LAG, FIRST, LAST = range(7)
"""Columns of a ladder: a window's rows, where it is kept, the two windows it is made of, how far the older one lies
back, and its outputs; the first row of a ladder is the window of one row, made of none."""


WORK, QUANTITIES = 5, 6
"""Arrays of a series' length that a windowed step needs, and those that it needs for each window that it keeps."""


class Program(NamedTuple):
    """Steps in the form that the machine reads: one entry per step unless said otherwise."""

    ops: IntArray
    sources: IntArray
    """(steps, 3): buffers that are read; for `Field` and `Lookup`, the number of the series."""
    targets: IntArray
    """Buffer that is filled; windowed steps have theirs in `outputs`."""
    numbers: FloatArray
    """Rows of `Ref`, window of `EMA`."""
    before: IntArray
    after: IntArray
    """Rows before the first and after the last wanted one that are needed."""
    ladders: IntArray
    """(windows, 7): the windows of all steps."""
    ladder_ends: IntArray
    """(steps + 1): which of them are a step's."""
    outputs: IntArray
    """(outputs, 2): statistic and buffer."""
    levels: FloatArray
    """Level of an output of `Quantiles`."""
    results: IntArray
    """(results, 2): row of the result and buffer."""
    result_ends: IntArray
    """(steps + 1): which of them are final after a step."""
    constants: FloatArray
    """Held by the first buffers."""
    buffers: int
    """How many there are."""
    slots: int
    """Windows that are kept at a time."""


class Block(NamedTuple):
    """Series of some instruments, one after the other; instrument i is `[offsets[i], offsets[i + 1])`."""

    bars: FloatArray
    """(fields, values)"""
    rows: IntArray
    """Calendar row of each value."""
    positions: IntArray
    """Column of the result of each value; negative where it is not wanted."""
    offsets: IntArray


class Memory(NamedTuple):
    """What a program works with."""

    buffers: FloatArray
    """(`program.buffers`, longest series)"""
    arrays: FloatArray
    """`WORK + program.slots * QUANTITIES` arrays as long as the longest series, in one piece."""
    tile: SingleArray
    """(results, values of the largest block)"""
    shared: FloatArray
    """(series, calendar rows): what `Export` writes and `Lookup` reads."""


class _Span(NamedTuple):
    """A part of an instrument's series: it goes from `begin` to before `end`, the part from its row `low` to `high`."""

    begin: int
    end: int
    low: int
    high: int


class _Windows(NamedTuple):
    """A windowed step on one series: its windows, and where their statistics go."""

    ladder: IntArray
    outputs: IntArray
    levels: FloatArray
    slots: FloatArray
    """(slots, quantities, rows)"""
    work: FloatArray
    """(arrays, rows)"""
    buffers: FloatArray
    low: int
    high: int
    """The rows that are filled."""
    skip: int
    """Rows of the series before these."""


class _Join(NamedTuple):
    """Two windows and the one that they make up, each as sums (quantities, rows)."""

    newer: FloatArray
    older: FloatArray
    whole: FloatArray
    moves: FloatArray
    """(series, rows): from the centres of the newer window to those of the older one."""
    lag: int


_PROGRAM = record(
    Program,
    *(types.int64[::1], types.int64[:, ::1], types.int64[::1], types.float64[::1]),
    *(types.int64[::1], types.int64[::1], types.int64[:, ::1], types.int64[::1]),
    *(types.int64[:, ::1], types.float64[::1], types.int64[:, ::1], types.int64[::1]),
    *(types.float64[::1], types.int64, types.int64),
)
_BLOCK = record(Block, types.float64[:, ::1], types.int64[::1], types.int64[::1], types.int64[::1])
_MEMORY = record(Memory, types.float64[:, ::1], types.float64[::1], types.float32[:, ::1], types.float64[:, ::1])


@kernel(_PROGRAM, _BLOCK, _MEMORY, types.float32[:, ::1])
def run_block(program: Program, block: Block, memory: Memory, out: SingleArray) -> None:
    """Run a program over some instruments and fill `out` (results, columns) where a value is wanted."""
    for constant in range(len(program.constants)):
        memory.buffers[constant] = program.constants[constant]
    in_order = _are_in_order(block.positions)
    for i in range(len(block.offsets) - 1):
        begin, end = block.offsets[i], block.offsets[i + 1]
        first, last = begin, end
        while first < end and block.positions[first] < 0:
            first += 1
        while last > first and block.positions[last - 1] < 0:
            last -= 1
        if first == last:
            continue
        for step in range(len(program.ops)):
            low = max(first - begin - program.before[step], 0)
            high = min(last - begin + program.after[step], end - begin)
            span = _Span(begin, end, low, high)
            if low < high and program.ops[step] < Op.Sums:
                _run_plain(program, step, span, block, memory)
            elif low < high:
                _run_windowed(program, step, span, memory)
            for result in range(program.result_ends[step], program.result_ends[step + 1]):
                row = program.results[result, 0]
                values = memory.buffers[program.results[result, 1], first - begin : last - begin]
                if in_order:
                    _copy(values, out[row, block.positions[first] : block.positions[first] + last - first])
                else:
                    _copy(values, memory.tile[row, first:last])
    if not in_order:
        _write_out(memory.tile, block, out)


@_inner
def _are_in_order(positions: IntArray) -> bool:
    """Whether the results have the order of the series, without gaps: then nothing needs to be gathered first."""
    for t in range(1, len(positions)):
        if positions[t] != positions[0] + t:
            return False
    return len(positions) > 0 and positions[0] >= 0


@_inner
def _write_out(tile: SingleArray, block: Block, out: SingleArray) -> None:
    """Wanted values to their columns, of all instruments a few days at a time, and four results at once."""
    offsets, rows, positions = block.offsets, block.rows, block.positions
    low, high = rows[0], rows[0]
    for i in range(len(offsets) - 1):
        low, high = min(low, rows[offsets[i]]), max(high, rows[offsets[i + 1] - 1])
    newest = len(out) - 1
    for result in range(0, len(out), 4):
        other, third, fourth = min(result + 1, newest), min(result + 2, newest), min(result + 3, newest)
        from_0, from_1, from_2, from_3 = tile[result], tile[other], tile[third], tile[fourth]
        to_0, to_1, to_2, to_3 = out[result], out[other], out[third], out[fourth]
        for day in range(low, high + 1, _CHUNK):
            for i in range(len(offsets) - 1):
                start = offsets[i] - rows[offsets[i]] + day
                for t in range(max(start, offsets[i]), min(start + _CHUNK, offsets[i + 1])):
                    position = positions[t]
                    if position >= 0:
                        to_0[position] = from_0[t]
                        to_1[position] = from_1[t]
                        to_2[position] = from_2[t]
                        to_3[position] = from_3[t]


@_inner
def _run_plain(program: Program, step: int, span: _Span, block: Block, memory: Memory) -> None:
    """A step that reads single rows, on a part of one instrument's series."""
    op, number, low, high = program.ops[step], program.numbers[step], span.low, span.high
    buffers, rows = memory.buffers, block.rows[span.begin + low : span.begin + high]
    a, b, c = program.sources[step, 0], program.sources[step, 1], program.sources[step, 2]
    out = buffers[program.targets[step], low:high]
    if op == Op.Field:
        _copy(block.bars[a, span.begin + low : span.begin + high], out)
    elif op == Op.Row:
        for t in range(len(out)):
            out[t] = low + t
    elif op == Op.Lookup:
        for t in range(len(out)):
            out[t] = memory.shared[a, rows[t]]
    elif op == Op.Export:
        for t in range(len(out)):
            memory.shared[b, rows[t]] = buffers[a, low + t]
    elif op == Op.Ref:
        _shift(buffers[a, : span.end - span.begin], int(number), low, out)
    elif op == Op.EMA:
        _exponential_mean(buffers[a, :high], number, low, out)
    else:
        _elementwise(op, buffers[a, low:high], buffers[b, low:high], buffers[c, low:high], out)


@_inner
def _run_windowed(program: Program, step: int, span: _Span, memory: Memory) -> None:
    """A step that reads windows, on a part of one instrument's series."""
    op, low, high = program.ops[step], span.low, span.high
    ladder = program.ladders[program.ladder_ends[step] : program.ladder_ends[step + 1]]
    start = max(low - ladder[-1, WINDOW] + 1, 0)
    x, y = memory.buffers[program.sources[step, 0], start:high], memory.buffers[program.sources[step, 1], start:high]
    work = memory.arrays[: WORK * len(x)].reshape((WORK, len(x)))
    slots = memory.arrays[WORK * len(x) : (WORK + program.slots * QUANTITIES) * len(x)]
    slots = slots.reshape((program.slots, QUANTITIES, len(x)))
    windows = _Windows(ladder, program.outputs, program.levels, slots, work, memory.buffers, low, high, low - start)
    if op == Op.Sums:
        _sums(x, windows)
    elif op == Op.Variances:
        _variances(x, windows)
    elif op == Op.Comoments:
        _comoments(x, y, windows)
    elif op == Op.Highs:
        _highs(x, windows)
    elif op == Op.HighRows:
        _high_rows(x, windows)
    elif op == Op.Ranks:
        _ranks(x, windows)
    elif op == Op.Quantiles:
        _quantiles(x, windows)
    elif op == Op.WeightedMeans:
        _weighted_means(x, windows)
    elif op == Op.Deviations:
        _deviations(x, windows)


@_inner
def _elementwise(  # noqa: PLR0912 - one branch an operator
    op: int, a: FloatArray, b: FloatArray, c: FloatArray, out: FloatArray
) -> None:
    """An operator on values of the same row; conditions are 1 and 0."""
    n = len(out)
    if op == Op.Abs:
        for t in range(n):
            out[t] = abs(a[t])
    elif op == Op.Sign:
        for t in range(n):
            out[t] = np.sign(a[t])
    elif op == Op.Log:
        for t in range(n):
            out[t] = np.log(a[t])
    elif op == Op.Neg:
        for t in range(n):
            out[t] = -a[t]
    elif op == Op.Not:
        for t in range(n):
            out[t] = 1.0 - a[t]
    elif op == Op.NotNaN:
        for t in range(n):
            out[t] = 1.0 if a[t] == a[t] else 0.0
    elif op == Op.Power:
        for t in range(n):
            out[t] = a[t] ** b[t]
    elif op == Op.Add:
        for t in range(n):
            out[t] = a[t] + b[t]
    elif op == Op.Sub:
        for t in range(n):
            out[t] = a[t] - b[t]
    elif op == Op.Mul:
        for t in range(n):
            out[t] = a[t] * b[t]
    elif op == Op.Div:
        for t in range(n):
            out[t] = a[t] / b[t]
    elif op in (Op.Greater, Op.Or):
        for t in range(n):
            out[t] = a[t] if a[t] > b[t] or a[t] != a[t] else b[t]
    elif op in (Op.Less, Op.And):
        for t in range(n):
            out[t] = a[t] if a[t] < b[t] or a[t] != a[t] else b[t]
    elif op == Op.Gt:
        for t in range(n):
            out[t] = 1.0 if a[t] > b[t] else 0.0
    elif op == Op.Ge:
        for t in range(n):
            out[t] = 1.0 if a[t] >= b[t] else 0.0
    elif op == Op.Lt:
        for t in range(n):
            out[t] = 1.0 if a[t] < b[t] else 0.0
    elif op == Op.Le:
        for t in range(n):
            out[t] = 1.0 if a[t] <= b[t] else 0.0
    elif op == Op.Eq:
        for t in range(n):
            out[t] = 1.0 if a[t] == b[t] else 0.0
    elif op == Op.Ne:
        for t in range(n):
            out[t] = 1.0 if a[t] != b[t] else 0.0
    elif op == Op.If:
        for t in range(n):
            out[t] = b[t] if a[t] != 0.0 else c[t]
    elif op == Op.Steady:
        for t in range(n):
            out[t] = np.nan if b[t] <= NEAR_ZERO or c[t] <= NEAR_ZERO else a[t]


@_inner
def _shift(x: FloatArray, rows: int, low: int, out: FloatArray) -> None:
    """The value `rows` rows ago (negative: ahead); 0 means the series' first value, as in Qlib."""
    for t in range(len(out)):
        source = low + t - rows if rows != 0 else 0
        out[t] = x[source] if 0 <= source < len(x) else np.nan


@_inner
def _exponential_mean(x: FloatArray, window: float, low: int, out: FloatArray) -> None:
    """Mean with weights (1 - alpha) ** lag over the finite values since the series' first row.

    alpha is the window itself where it is below 1, else 2 / (window + 1). For window 0 it is 2 / (rows so far + 1), and
    rows that are not finite have weight, but add nothing.
    """
    if window == 0.0:
        for t in range(low, len(x)):
            keep = 1.0 - 2.0 / (2.0 + t)
            weighted, weights, weight, n = 0.0, 0.0, 1.0, 0
            for k in range(t + 1):
                weights += weight
                if np.isfinite(x[t - k]):
                    weighted += weight * x[t - k]
                    n += 1
                weight *= keep
            out[t - low] = weighted / weights if n > 0 else np.nan
        return
    keep = 1.0 - (window if window < 1.0 else 2.0 / (window + 1.0))
    mean, weights = np.nan, 0.0
    for t in range(len(x)):
        weights *= keep
        if np.isfinite(x[t]):
            # The weights of distant rows vanish, and with alpha 1 that of the previous row.
            mean = (weights * mean + x[t]) / (weights + 1.0) if weights > 0.0 else x[t]
            weights += 1.0
        if t >= low:
            out[t - low] = mean


@_inner
def _copy(x: FloatArray, out: Any) -> None:
    """`x` to the beginning of `out`."""
    for t in range(len(x)):
        out[t] = x[t]


@_inner
def _fill(x: FloatArray, value: float, out: FloatArray) -> None:
    """`x` with `value` where it is not finite."""
    for t in range(len(x)):
        out[t] = x[t] if np.isfinite(x[t]) else value


@_inner
def _mark_finite(x: FloatArray, out: FloatArray) -> None:
    """1.0 where `x` is finite, else 0.0."""
    for t in range(len(x)):
        out[t] = 1.0 if np.isfinite(x[t]) else 0.0


@_inner
def _newest(x: FloatArray, valid: FloatArray, out: FloatArray) -> None:
    """The newest valid value at or before each row: it lies in every window that has one."""
    newest = 0.0
    for t in range(len(x)):
        newest = x[t] if valid[t] == 1.0 else newest
        out[t] = newest


@_inlined
def _filled(windows: _Windows, output: int) -> FloatArray:
    """The rows of a statistic's buffer."""
    return windows.buffers[windows.outputs[output, 1], windows.low : windows.high]


@_inlined
def _joined(windows: _Windows, row: int, centres: FloatArray) -> _Join:
    """A window of the ladder and the two that it is made of, with the way between their centres (series, rows)."""
    ladder, slots = windows.ladder, windows.slots
    lag = min(ladder[row, LAG], slots.shape[2])
    moves = windows.work[WORK - 2 :]
    for series in range(len(centres)):
        move, older, newer = moves[series], centres[series], centres[series, lag:]
        for t in range(len(newer)):
            move[t] = older[t] - newer[t]
    return _Join(slots[ladder[row, NEWER]], slots[ladder[row, OLDER]], slots[ladder[row, SLOT]], moves, lag)


@_inner
def _join_sums(join: _Join, quantity: int) -> None:
    """A sum over both windows."""
    whole, newer, older = join.whole[quantity], join.newer[quantity], join.older[quantity]
    _copy(newer[: join.lag], whole)
    whole, newer = whole[join.lag :], newer[join.lag :]
    for t in range(len(whole)):
        whole[t] = newer[t] + older[t]


@_inner
def _join_differences(join: _Join, series: int) -> None:
    """A sum of differences from the centre of a series: quantity 1 + `series`; quantity 0 is the number of rows."""
    whole, newer, older = join.whole[1 + series], join.newer[1 + series], join.older[1 + series]
    n, move = join.older[0], join.moves[series]
    _copy(newer[: join.lag], whole)
    whole, newer = whole[join.lag :], newer[join.lag :]
    for t in range(len(whole)):
        whole[t] = newer[t] + (older[t] + n[t] * move[t])


@_inner
def _join_products(join: _Join, quantity: int, x: int, y: int) -> None:
    """A sum of products of the differences of two series, or of the squares of one."""
    whole, newer, older = join.whole[quantity], join.newer[quantity], join.older[quantity]
    n, x_sum, y_sum, x_move, y_move = join.older[0], join.older[1 + x], join.older[1 + y], join.moves[x], join.moves[y]
    _copy(newer[: join.lag], whole)
    whole, newer = whole[join.lag :], newer[join.lag :]
    for t in range(len(whole)):
        moved = x_move[t] * (y_sum[t] + n[t] * y_move[t]) + y_move[t] * x_sum[t]
        whole[t] = newer[t] + (older[t] + moved)


@_inner
def _sums(x: FloatArray, windows: _Windows) -> None:
    """Statistics sum, mean."""
    ladder = windows.ladder
    for row in range(len(ladder)):
        sums = windows.slots[ladder[row, SLOT]]
        if row == 0:
            _mark_finite(x, sums[0])
            _fill(x, 0.0, sums[1])
        else:
            join = _joined(windows, row, windows.work[:0])
            _join_sums(join, 0)
            _join_sums(join, 1)
        n, total = sums[0, windows.skip :], sums[1, windows.skip :]
        for output in range(ladder[row, FIRST], ladder[row, LAST]):
            filled = _filled(windows, output)
            if windows.outputs[output, 0] == 0:
                for t in range(len(filled)):
                    filled[t] = total[t] if n[t] > 0.0 else np.nan
            else:
                for t in range(len(filled)):
                    filled[t] = total[t] / n[t]


@_inner
def _variances(x: FloatArray, windows: _Windows) -> None:
    """Statistics variance, standard deviation (one degree of freedom less; NaN for fewer than two values)."""
    ladder, centres = windows.ladder, windows.work[:1]
    for row in range(len(ladder)):
        sums = windows.slots[ladder[row, SLOT]]
        if row == 0:
            _mark_finite(x, sums[0])
            _newest(x, sums[0], centres[0])
            sums[1:3] = 0.0
        else:
            join = _joined(windows, row, centres)
            _join_sums(join, 0)
            _join_differences(join, 0)
            _join_products(join, 2, 0, 0)
        n, first, second = sums[0, windows.skip :], sums[1, windows.skip :], sums[2, windows.skip :]
        for output in range(ladder[row, FIRST], ladder[row, LAST]):
            filled = _filled(windows, output)
            for t in range(len(filled)):
                squares = max(second[t] - first[t] * first[t] / n[t], 0.0)
                filled[t] = squares / (n[t] - 1.0) if n[t] > 1.0 else np.nan
            if windows.outputs[output, 0] == 1:
                for t in range(len(filled)):
                    filled[t] = np.sqrt(filled[t])


@_inner
def _comoments(x: FloatArray, y: FloatArray, windows: _Windows) -> None:
    """Statistics, over rows where both are finite: covariance (one degree of freedom less), correlation, and of the
    least-squares line of y over x its slope, the newest row's distance from it, R squared."""
    ladder, centres, valid = windows.ladder, windows.work[:2], windows.work[2]
    for row in range(len(ladder)):
        sums = windows.slots[ladder[row, SLOT]]
        if row == 0:
            for t in range(len(x)):
                valid[t] = 1.0 if np.isfinite(x[t]) and np.isfinite(y[t]) else 0.0
            _newest(x, valid, centres[0])
            _newest(y, valid, centres[1])
            _copy(valid, sums[0])
            sums[1:6] = 0.0
        else:
            join = _joined(windows, row, centres)
            _join_sums(join, 0)
            _join_differences(join, 0)
            _join_differences(join, 1)
            _join_products(join, 3, 0, 0)
            _join_products(join, 4, 1, 1)
            _join_products(join, 5, 0, 1)
        for output in range(ladder[row, FIRST], ladder[row, LAST]):
            _finish_comoments(sums, windows, output)


@_inner
def _finish_comoments(sums: FloatArray, windows: _Windows, output: int) -> None:
    skip, statistic, out = windows.skip, windows.outputs[output, 0], _filled(windows, output)
    n, x, y = sums[0, skip:], sums[1, skip:], sums[2, skip:]
    xx, yy, xy = sums[3, skip:], sums[4, skip:], sums[5, skip:]
    for t in range(len(out)):
        out[t] = (n[t] * xy[t] - x[t] * y[t]) if n[t] > 1.0 else np.nan
    if statistic == 0:
        for t in range(len(out)):
            out[t] = out[t] / (n[t] * (n[t] - 1.0))
    elif statistic == 1:
        for t in range(len(out)):
            out[t] = out[t] / np.sqrt((n[t] * xx[t] - x[t] * x[t]) * (n[t] * yy[t] - y[t] * y[t]))
    elif statistic == 4:
        for t in range(len(out)):
            out[t] = out[t] * out[t] / ((n[t] * xx[t] - x[t] * x[t]) * (n[t] * yy[t] - y[t] * y[t]))
    else:
        for t in range(len(out)):
            out[t] = out[t] / (n[t] * xx[t] - x[t] * x[t])
    if statistic == 3:
        valid = windows.work[2, skip:]
        for t in range(len(out)):
            out[t] = (out[t] * x[t] - y[t]) / n[t] if valid[t] == 1.0 else np.nan


@_inner
def _highs(x: FloatArray, windows: _Windows) -> None:
    """The largest value."""
    ladder, slots = windows.ladder, windows.slots
    for row in range(len(ladder)):
        best = slots[ladder[row, SLOT], 0]
        if row == 0:
            _fill(x, -np.inf, best)
        else:
            newer, older, lag = (
                slots[ladder[row, NEWER], 0],
                slots[ladder[row, OLDER], 0],
                min(ladder[row, LAG], len(x)),
            )
            _copy(newer[:lag], best)
            whole, newer = best[lag:], newer[lag:]
            for t in range(len(whole)):
                whole[t] = older[t] if older[t] > newer[t] else newer[t]
        best = best[windows.skip :]
        for output in range(ladder[row, FIRST], ladder[row, LAST]):
            filled = _filled(windows, output)
            for t in range(len(filled)):
                filled[t] = best[t] if best[t] > -np.inf else np.nan


@_inner
def _high_rows(x: FloatArray, windows: _Windows) -> None:
    """1-based row of the window's first maximum; like NumPy's argmax, that of its first NaN if it has one."""
    ladder = windows.ladder
    for row in range(len(ladder)):
        sums = windows.slots[ladder[row, SLOT]]
        if row == 0:
            _mark_finite(x, sums[0])
            _fill(x, np.inf, sums[1])
            sums[2] = 0.0
        else:
            join = _joined(windows, row, windows.work[:0])
            _join_sums(join, 0)
            _join_highs(join)
        n, back = sums[0, windows.skip :], sums[2, windows.skip :]
        for output in range(ladder[row, FIRST], ladder[row, LAST]):
            filled = _filled(windows, output)
            for t in range(len(filled)):
                rows = min(ladder[row, WINDOW], t + windows.skip + 1)
                filled[t] = rows - back[t] if n[t] > 0.0 else np.nan


@_inner
def _join_highs(join: _Join) -> None:
    """The highest values of two windows, and how many rows back they are; of equal ones the older."""
    lag = join.lag
    whole, newer, older = join.whole[1, lag:], join.newer[1, lag:], join.older[1]
    whole_back, newer_back, older_back = join.whole[2, lag:], join.newer[2, lag:], join.older[2]
    _copy(join.newer[1, :lag], join.whole[1])
    _copy(join.newer[2, :lag], join.whole[2])
    for t in range(len(whole)):
        whole[t] = older[t] if older[t] >= newer[t] else newer[t]
    for t in range(len(whole)):
        whole_back[t] = older_back[t] + lag if older[t] >= newer[t] else newer_back[t]


@_inner
def _ranks(x: FloatArray, windows: _Windows) -> None:
    """Rank of the newest value as a share of the values; ties have their mean rank; NaN where it is NaN."""
    ladder, skip = windows.ladder, windows.skip
    values, n, below = windows.work[0], windows.work[1, skip:], windows.work[2, skip:]
    _fill(x, np.nan, values)
    n[:] = 0.0
    below[:] = 0.5
    lag = 0
    for row in range(len(ladder)):
        for k in range(lag, min(ladder[row, WINDOW], len(x))):
            start = max(skip, k)
            now, past = values[start:], values[start - k :]
            b, m = below[start - skip :], n[start - skip :]
            for t in range(len(now)):
                b[t] += (1.0 if past[t] < now[t] else 0.0) + (0.5 if past[t] == now[t] else 0.0)
            for t in range(len(now)):
                m[t] += 1.0 if past[t] == past[t] else 0.0
        lag, newest = ladder[row, WINDOW], values[skip:]
        for output in range(ladder[row, FIRST], ladder[row, LAST]):
            filled = _filled(windows, output)
            for t in range(len(filled)):
                filled[t] = below[t] / n[t] if newest[t] == newest[t] else np.nan


class _Ranked(NamedTuple):
    """A series by rank.

    Attributes
    ----------
    ordered
        Its values, ascending.
    ranks
        Rank of each row, negative where the value is not finite.
    members
        A bit for each rank that is in the window.
    """

    ordered: FloatArray
    ranks: IntArray
    members: NDArray[np.uint64]


@_allocating
def _quantiles(x: FloatArray, windows: _Windows) -> None:
    """Quantile with linear interpolation: the series is sorted once, then a set of its ranks slides along."""
    ladder, values, ordered = windows.ladder, windows.work[0], windows.work[1]
    _fill(x, np.inf, values)
    order = np.argsort(values)
    ranks = np.empty(len(x), np.int64)
    for rank in range(len(x)):
        ranks[order[rank]] = rank if np.isfinite(x[order[rank]]) else -1
        ordered[rank] = values[order[rank]]
    ranked = _Ranked(ordered, ranks, np.empty(len(x) // 64 + 1, np.uint64))
    for row in range(len(ladder)):
        for output in range(ladder[row, FIRST], ladder[row, LAST]):
            _slide_quantile(ranked, ladder[row, WINDOW], windows.levels[output], windows.skip, _filled(windows, output))


@_inner
def _slide_quantile(ranked: _Ranked, window: int, level: float, skip: int, out: FloatArray) -> None:
    """One level of one window: `at` is a rank, and `below` the number of members below it."""
    ordered, ranks, members = ranked.ordered, ranked.ranks, ranked.members
    members[:] = 0
    one, places = np.uint64(1), np.uint64(63)
    n, at, below = 0, 0, 0
    begin = max(skip - window + 1, 0)
    for t in range(begin, len(ranks)):
        rank = ranks[t]
        if rank >= 0:
            members[rank >> 6] |= one << (np.uint64(rank) & places)
            n += 1
            below += rank < at
        rank = ranks[t - window] if t - window >= begin else -1
        if rank >= 0:
            members[rank >> 6] &= ~(one << (np.uint64(rank) & places))
            n -= 1
            below -= rank < at
        if t < skip:
            continue
        if n == 0:
            out[t - skip] = np.nan
            continue
        position = level * (n - 1)
        lower = int(position)
        while below > lower:
            at = _member_before(members, at - 1)
            below -= 1
        at = _member_after(members, at)
        while below < lower:
            at = _member_after(members, at + 1)
            below += 1
        if lower == n - 1:
            out[t - skip] = ordered[at]
        else:
            upper = ordered[_member_after(members, at + 1)]
            out[t - skip] = ordered[at] + (upper - ordered[at]) * (position - lower)


@intrinsic
def _trailing_zeros(typing: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], context.get_constant(numba.types.boolean, False))

    return numba.types.int64(numba.types.uint64), generate


@intrinsic
def _leading_zeros(typing: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], context.get_constant(numba.types.boolean, False))

    return numba.types.int64(numba.types.uint64), generate


@_inner
def _member_after(members: Any, rank: int) -> int:
    """The first member at or after a rank; there is one."""
    word = rank >> 6
    bits = members[word] >> (np.uint64(rank) & np.uint64(63))
    if bits != 0:
        return rank + _trailing_zeros(bits)
    word += 1
    while members[word] == 0:
        word += 1
    return (word << 6) + _trailing_zeros(members[word])


@_inner
def _member_before(members: Any, rank: int) -> int:
    """The last member at or before a rank; there is one."""
    word = rank >> 6
    bits = members[word] << (np.uint64(63) - (np.uint64(rank) & np.uint64(63)))
    if bits != 0:
        return rank - _leading_zeros(bits)
    word -= 1
    while members[word] == 0:
        word -= 1
    return (word << 6) + 63 - _leading_zeros(members[word])


@_inner
def _weighted_means(x: FloatArray, windows: _Windows) -> None:
    """Qlib's WMA, the mean over the finite values of w * x with w = row / (sum of the rows 1..n)."""
    ladder, skip = windows.ladder, windows.skip
    for row in range(len(ladder)):
        for output in range(ladder[row, FIRST], ladder[row, LAST]):
            filled = _filled(windows, output)
            for t in range(skip, len(x)):
                rows = min(ladder[row, WINDOW], t + 1)
                total, n = 0.0, 0.0
                for k in range(rows):
                    if np.isfinite(x[t - k]):
                        total += (rows - k) * x[t - k]
                        n += 1.0
                filled[t - skip] = total / (0.5 * rows * (rows + 1)) / n


@_inner
def _deviations(x: FloatArray, windows: _Windows) -> None:
    """Statistics mean absolute deviation, skewness, excess kurtosis (both unbiased; NaN for constants)."""
    ladder, skip = windows.ladder, windows.skip
    for row in range(len(ladder)):
        for output in range(ladder[row, FIRST], ladder[row, LAST]):
            filled = _filled(windows, output)
            for t in range(skip, len(x)):
                window = x[max(t + 1 - ladder[row, WINDOW], 0) : t + 1]
                filled[t - skip] = _deviation(window, windows.outputs[output, 0])


@_inner
def _deviation(window: FloatArray, statistic: int) -> float:
    total, n, low, high = 0.0, 0.0, np.inf, -np.inf
    for value in window:
        if np.isfinite(value):
            total += value
            n += 1.0
            low, high = min(low, value), max(high, value)
    # A sum of equal values divided by their number need not be that value; constants must have no spread at all.
    mean = total / n if low < high else low
    absolute, second, third, fourth = 0.0, 0.0, 0.0, 0.0
    for value in window:
        if np.isfinite(value):
            d = value - mean
            absolute += abs(d)
            second += d * d
            third += d * d * d
            fourth += d * d * d * d
    if statistic == 0:
        return absolute / n
    if statistic == 1:
        return n * np.sqrt(n - 1.0) / (n - 2.0) * third / second**1.5 if n >= 3.0 else np.nan
    shape = n * (n + 1.0) * (n - 1.0) / (n - 2.0) / (n - 3.0) * fourth / second**2
    return shape - 3.0 * (n - 1.0) ** 2 / (n - 2.0) / (n - 3.0) if n >= 4.0 else np.nan


_WHOLE, _PLACES = types.float64[::1], types.int64[::1]


@kernel(_WHOLE, _PLACES, types.float32[::1], also=((_WHOLE, _PLACES, types.float64[::1]),))
def scatter(values: FloatArray, positions: IntArray, out: NDArray[np.floating[Any]]) -> None:
    """Write `values` to their columns of `out`, which is float32 or float64; a negative position is left out."""
    for t in range(len(values)):
        if positions[t] >= 0:
            out[positions[t]] = values[t]
