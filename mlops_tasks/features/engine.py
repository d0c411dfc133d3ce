"""Runs factor expressions over a panel: one plan for all, shared parts once, blocks of instruments in parallel.

Qlib's semantics in float64: windows over calendar rows, fewer at a series' beginning, NaN rows left out. Values differ
from Qlib's in the last digits, because Qlib rounds elementwise results to float32 in between (most visible in
`Corr($close, Log($volume+1), d)` near zero), and where Qlib is wrong: its running sums keep a residue of what has left
the window, so that a constant window can have a spread (`VSTD`, `WVMA` of suspended stocks) or an `Rsquare`. An
infinite value counts as missing in every window; in Qlib's `Slope`, `Resi` and `Rsquare` it spoils all later rows.

A plan is made in three passes: expressions are rewritten in the operators of the virtual machine in `kernels`; equal
parts become one step, and so do windows over one series; and, going back from the results, each step is told how many
rows around the wanted ones it must provide.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isqrt
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.errors import StoreError
from mlops_tasks.features import kernels
from mlops_tasks.features.expressions import FIELD, FOREIGN, Node, lookback, walk
from mlops_tasks.features.kernels import FloatArray, IntArray, Op, Program
from mlops_tasks.features.panel import Panel

_TILE_VALUES = 1 << 22
"""Results of a block of instruments before they are written out (16 MiB): they fit into the last-level cache."""

_ALL_ROWS = 1 << 20
"""More rows than a series has: the window of an expanding operator. It is composed of few others."""

_Argument: TypeAlias = Node | float
_Params: TypeAlias = tuple[float | str, ...]

_STATISTICS: Mapping[Op, tuple[str, ...]] = {
    Op.Sums: ("Sum", "Mean"),
    Op.Variances: ("Var", "Std"),
    Op.Comoments: ("Cov", "RawCorr", "Slope", "Resi", "LineFit"),
    Op.Highs: ("Max",),
    Op.HighRows: ("IdxMax",),
    Op.Ranks: ("Rank",),
    Op.Quantiles: ("Quantile",),
    Op.WeightedMeans: ("WMA",),
    Op.Deviations: ("Mad", "Skew", "Kurt"),
}
"""Windowed operators by the step that computes them together, in the order of its statistics."""

_FAMILY = {name: op for op, names in _STATISTICS.items() for name in names}
_JOINED = frozenset({Op.Sums, Op.Variances, Op.Comoments, Op.Highs, Op.HighRows})
"""Steps whose windows are composed of shorter ones."""


@dataclass(frozen=True)
class _Output:
    """One value of a windowed step."""

    window: int
    statistic: int
    level: float
    number: int


@dataclass(frozen=True)
class _Step:
    """A part of a plan: reads values by their numbers and fills others.

    Attributes
    ----------
    series
        For `Field`, the number of the field; for `Lookup` and `Export`, that of the series which instruments share.
    parameter
        Rows of `Ref`, window of `EMA`.
    windowed
        What a windowed step fills, windows ascending; the others fill `output`.
    """

    op: Op
    inputs: tuple[int, ...] = ()
    output: int | None = None
    series: int | None = None
    parameter: float = 0.0
    windowed: tuple[_Output, ...] = ()

    @property
    def outputs(self) -> tuple[int, ...]:
        """Numbers of the values that it fills."""
        return tuple(each.number for each in self.windowed) if self.output is None else (self.output,)

    @property
    def reach(self) -> tuple[int, int]:
        """How many rows before and after one it reads; negative for a side on which it stops short of it."""
        if self.windowed:
            return self.windowed[-1].window - 1, 0
        if self.op == Op.EMA or (self.op == Op.Ref and self.parameter == 0):
            return _ALL_ROWS, 0
        return (int(self.parameter), -int(self.parameter)) if self.op == Op.Ref else (0, 0)


@dataclass(frozen=True)
class Plan:
    """Expressions made ready to run.

    Attributes
    ----------
    names
        Names of the results, in their order.
    fields
        Bar fields that are read.
    lookback_rows
        Calendar rows before the current one that a value depends on; infinite where the first bar matters.
    steps
        What is computed for each instrument.
    program
        The same, as the machine reads it.
    shared
        Instruments whose series others look up, each with the program of that series; a program finds there what it
        looks up itself.
    """

    names: tuple[str, ...]
    fields: tuple[str, ...]
    lookback_rows: float
    steps: tuple[_Step, ...]
    program: Program
    shared: tuple[tuple[str, Program], ...]


def plan_computation(expressions: Mapping[str, Node]) -> Plan:
    """Order the distinct parts of all expressions, and join windows of one kernel over one series."""
    roots = [_lower(node) for node in expressions.values()]
    parts = dict.fromkeys(part for root in roots for part in walk(root))
    fields = tuple(dict.fromkeys(str(part.params[0]) for part in parts if part.op == FIELD))
    foreign = {part: number for number, part in enumerate(part for part in parts if part.op == FOREIGN)}
    builder = _Builder(fields, foreign)
    steps, program = builder.build(roots)
    return Plan(
        names=tuple(expressions),
        fields=fields,
        lookback_rows=max((lookback(node) for node in expressions.values()), default=0),
        steps=steps,
        program=program,
        shared=tuple((str(node.params[0]), builder.build_shared(node)) for node in foreign),
    )


def evaluate(plan: Plan, panel: Panel, positions: IntArray, threads: int | None = None) -> NDArray[np.float32]:
    """Values of all expressions.

    Parameters
    ----------
    plan, panel
        What to compute over what; the panel has the plan's fields.
    positions
        For each value of the panel its column in the result, or a negative number to leave it out; int64. The rows from
        an instrument's first to its last wanted one are computed, and what these depend on.
    threads
        Default: one per processor. Results do not depend on it.

    Returns
    -------
    float32 array (expressions, largest position + 1); NaN where an expression has no value.

    Raises
    ------
    StoreError
        The panel lacks an instrument that `ChangeInstrument` names.
    """
    width = int(positions.max(initial=-1)) + 1
    out = np.empty((len(plan.names), width), np.float32)
    if np.count_nonzero(positions >= 0) < width:
        out[:] = np.nan
    shared = np.full((len(plan.shared), len(panel.calendar)), np.nan)
    machine = _Machine(plan, panel, shared)
    for instrument, program in plan.shared:
        place = _place(panel, instrument)
        machine.run(program, [(place, place + 1)], np.zeros_like(positions), out[:0])
    blocks = _blocks(panel.offsets, max(_TILE_VALUES // max(len(plan.names), 1), 1))
    workers = min(threads or len(os.sched_getaffinity(0)), max(len(blocks), 1))
    # The workers take blocks from one iterator, which hands out each of them once.
    left = iter(blocks)
    with ThreadPoolExecutor(workers) as pool:
        runs = [pool.submit(machine.run, plan.program, left, positions, out) for _ in range(workers)]
    for run in runs:
        run.result()
    return out


def _place(panel: Panel, instrument: str) -> int:
    place = int(panel.instruments.get_indexer([instrument])[0])
    if place < 0:
        raise StoreError(
            f"ChangeInstrument: there are no bars of {instrument!r} here; name an instrument of the market data"
        )
    return place


@dataclass(frozen=True)
class _Machine:
    """Runs programs over the instruments of a panel."""

    plan: Plan
    panel: Panel
    shared: FloatArray

    def run(
        self,
        program: Program,
        blocks: Iterable[tuple[int, int]],
        positions: IntArray,
        out: NDArray[np.float32],
    ) -> None:
        """Run a program over ranges of instruments, in memory that is reused from one to the next."""
        panel, fields = self.panel, self.plan.fields
        longest = int(np.diff(panel.offsets).max(initial=0))
        buffers = np.empty((program.buffers, longest))
        arrays = np.empty((kernels.WORK + kernels.QUANTITIES * program.slots) * longest)
        bars, tile = np.empty((len(fields), 0)), np.empty((len(out), 0), np.float32)
        for first, last in blocks:
            begin, end = int(panel.offsets[first]), int(panel.offsets[last])
            if end - begin > bars.shape[1]:
                bars, tile = np.empty((len(fields), end - begin)), np.empty((len(out), end - begin), np.float32)
            for number, name in enumerate(fields):
                bars[number, : end - begin] = panel.fields[name][begin:end]
            # Copies, because arrays that are read-only or of another layout would each need code compiled for them.
            rows, columns = (np.array(each[begin:end], np.int64) for each in (panel.rows, positions))
            block = kernels.Block(bars, rows, columns, panel.offsets[first : last + 1] - begin)
            kernels.run_block(program, block, kernels.Memory(buffers, arrays, tile, self.shared), out)


def _blocks(offsets: IntArray, size: int) -> list[tuple[int, int]]:
    """Ranges of instruments of about `size` values each."""
    block_of = offsets[:-1] // size
    begins = np.flatnonzero(np.diff(block_of, prepend=-1))
    return list(zip(begins.tolist(), [*begins[1:].tolist(), len(block_of)], strict=True))


def _steady(fit: str, args: tuple[_Argument, ...], params: _Params) -> Node:
    """A fit of two series, NaN where one of them hardly moves."""
    spreads = (Node("Var", (arg,), params) for arg in args if arg != _ROW)
    return Node("Steady", (Node(fit, args, params), *spreads))


_ROW = Node("Row")
"""The number of a row: a line through a window is a fit over it."""


def _steady_line(args: tuple[_Argument, ...], params: _Params) -> Node:
    """Qlib requires only windows to move, not all rows so far."""
    return _steady("LineFit", args, params) if params[0] else Node("LineFit", args, params)


_LOWERED: Mapping[str, Callable[[tuple[_Argument, ...], _Params], Node]] = {
    "Count": lambda args, params: Node("Sum", (Node("NotNaN", args),), params),
    "Min": lambda args, params: Node("Neg", (Node("Max", (Node("Neg", args),), params),)),
    "IdxMin": lambda args, params: Node("IdxMax", (Node("Neg", args),), params),
    "Med": lambda args, params: Node("Quantile", args, (*params, 0.5)),
    "Delta": lambda args, params: Node("Sub", (args[0], Node("Ref", args, params))),
    "Slope": lambda args, params: Node("Slope", (_ROW, *args), params),
    "Resi": lambda args, params: Node("Resi", (_ROW, *args), params),
    "Rsquare": lambda args, params: _steady_line((_ROW, *args), params),
    "Corr": lambda args, params: _steady("RawCorr", args, params),
}


def _lower(node: Node) -> Node:
    """Rewrite an expression in the operators that the machine has."""
    args = tuple(_lower(arg) if isinstance(arg, Node) else arg for arg in node.args)
    if node.op in _LOWERED:
        return _LOWERED[node.op](args, node.params)
    return Node(node.op, args, node.params)


def _own_parts(node: Node) -> Iterator[Node]:
    """The nodes that are computed for an instrument itself, children first."""
    for child in node.children if node.op != FOREIGN else ():
        yield from _own_parts(child)
    yield node


class _Places:
    """Places for temporary values; one that is free again is used next, since it is still in cache."""

    def __init__(self, taken: int = 0) -> None:
        self.count = taken
        self.free: list[int] = []

    def take(self) -> int:
        if self.free:
            return self.free.pop()
        self.count += 1
        return self.count - 1


class _Builder:
    """Compiles expressions into programs.

    Parameters
    ----------
    fields
        Bar fields, by their numbers.
    foreign
        Number of the shared series that a `ChangeInstrument` node looks up.
    """

    def __init__(self, fields: Sequence[str], foreign: Mapping[Node, int]) -> None:
        self.fields = fields
        self.foreign = foreign

    def build(self, roots: Sequence[Node]) -> tuple[tuple[_Step, ...], Program]:
        """Steps and program of expressions."""
        constants, numbers = self._numbers(roots)
        steps = tuple(self._steps(numbers))
        return steps, _program(steps, constants, [numbers[root] for root in roots])

    def build_shared(self, node: Node) -> Program:
        """The program that computes the series which a `ChangeInstrument` node looks up."""
        (child,) = node.children
        constants, numbers = self._numbers([child])
        export = _Step(Op.Export, (numbers[child],), series=self.foreign[node])
        return _program((*self._steps(numbers), export), constants, [])

    def _numbers(self, roots: Sequence[Node]) -> tuple[list[float], dict[_Argument, int]]:
        """The constants, and a number for each of them and for each distinct part of the expressions."""
        nodes = list(dict.fromkeys(part for root in roots for part in _own_parts(root)))
        constants = list(dict.fromkeys(arg for node in nodes for arg in node.args if not isinstance(arg, Node)))
        values: list[_Argument] = [*constants, *nodes]
        return constants, {value: number for number, value in enumerate(values)}

    def _steps(self, numbers: Mapping[_Argument, int]) -> Iterator[_Step]:
        """The steps, in an order in which each finds its inputs."""
        groups: dict[tuple[Op, tuple[_Argument, ...]], list[Node]] = {}
        nodes = [node for node in numbers if isinstance(node, Node)]
        for node in nodes:
            if node.op in _FAMILY:
                groups.setdefault((_FAMILY[node.op], node.args), []).append(node)
        for node in nodes:
            if node.op == FIELD:
                yield _Step(Op.Field, (), numbers[node], series=self.fields.index(str(node.params[0])))
            elif node.op == FOREIGN:
                yield _Step(Op.Lookup, (), numbers[node], series=self.foreign[node])
            elif node.op not in _FAMILY:
                inputs, parameter = _inputs(node, numbers), node.window if node.params else 0.0
                yield _Step(Op[node.op], inputs, numbers[node], parameter=parameter)
            elif group := groups.pop((_FAMILY[node.op], node.args), []):
                yield _Step(_FAMILY[node.op], _inputs(node, numbers), windowed=_windowed(group, numbers))


def _inputs(node: Node, numbers: Mapping[_Argument, int]) -> tuple[int, ...]:
    return tuple(numbers[arg] for arg in node.args)


def _windowed(nodes: Iterable[Node], numbers: Mapping[_Argument, int]) -> tuple[_Output, ...]:
    outputs = []
    for node in nodes:
        level = float(node.params[1]) if node.op == "Quantile" else 0.0
        statistic = _STATISTICS[_FAMILY[node.op]].index(node.op)
        outputs.append(_Output(int(node.window) or _ALL_ROWS, statistic, level, numbers[node]))
    return tuple(sorted(outputs, key=lambda output: output.window))


def _program(steps: Sequence[_Step], constants: Sequence[float], results: Sequence[int]) -> Program:
    """Steps as the machine reads them; `results` are the numbers of the values that it hands out."""
    buffer_of, buffers = _buffers(steps, len(constants))
    needed = _needed(steps)
    sources: list[tuple[int, ...]] = []
    ladders: list[tuple[int, ...]] = []
    outputs: list[tuple[int, int]] = []
    levels: list[float] = []
    handed_out: list[tuple[int, int]] = []
    ladder_ends, result_ends = [0], [0]
    places = 0
    for step in steps:
        read = [*(buffer_of[number] for number in step.inputs), *([] if step.series is None else [step.series])]
        sources.append((*read, *[(read or [0])[-1]] * 3)[:3])
        ladder, kept = _ladder(step)
        for window, *made_of in ladder:
            filled = [output for output in step.windowed if output.window == window]
            ladders.append((window, *made_of, len(outputs), len(outputs) + len(filled)))
            outputs += [(output.statistic, buffer_of[output.number]) for output in filled]
            levels += [output.level for output in filled]
        handed_out += [
            (row, buffer_of[each]) for each in step.outputs for row, number in enumerate(results) if number == each
        ]
        ladder_ends.append(len(ladders))
        result_ends.append(len(handed_out))
        places = max(places, kept)
    return Program(
        ops=_integers([step.op for step in steps]),
        sources=_integers(sources, 3),
        targets=_integers([0 if step.output is None else buffer_of[step.output] for step in steps]),
        numbers=np.array([step.parameter for step in steps], np.float64),
        before=_integers([rows for rows, _ in needed]),
        after=_integers([rows for _, rows in needed]),
        ladders=_integers(ladders, 7),
        ladder_ends=_integers(ladder_ends),
        outputs=_integers(outputs, 2),
        levels=np.array(levels, np.float64),
        results=_integers(handed_out, 2),
        result_ends=_integers(result_ends),
        constants=np.array(constants, np.float64),
        buffers=buffers,
        slots=places,
    )


def _integers(values: Sequence[Any], columns: int = 0) -> IntArray:
    return np.array(values, np.int64).reshape((-1, columns) if columns else -1)


def _buffers(steps: Sequence[_Step], constants: int) -> tuple[dict[int, int], int]:
    """The buffer of each value, and their number; a value's buffer is free again after the last step that reads it."""
    last_use = {number: index for index, step in enumerate(steps) for number in (*step.outputs, *step.inputs)}
    places, buffer_of = _Places(constants), {number: number for number in range(constants)}
    for index, step in enumerate(steps):
        buffer_of |= {number: places.take() for number in step.outputs}
        done = {number for number in (*step.outputs, *step.inputs) if last_use[number] == index and number >= constants}
        places.free += sorted(buffer_of[number] for number in done)
    return buffer_of, places.count


def _needed(steps: Sequence[_Step]) -> list[tuple[int, int]]:
    """How many rows before the first and after the last wanted one each step must provide."""
    of_value: dict[int, tuple[int, int]] = {}
    of_step = []
    for step in reversed(steps):
        # What no step reads is a result: it is needed on the wanted rows.
        own = [of_value.get(number, (0, 0)) for number in step.outputs] or [(0, 0)]
        before, after = max(rows for rows, _ in own), max(rows for _, rows in own)
        of_step.append((before, after))
        for number in step.inputs:
            reach, known = step.reach, of_value.get(number, (0, 0))
            of_value[number] = (max(before + reach[0], known[0]), max(after + reach[1], known[1]))
    return of_step[::-1]


def _ladder(step: _Step) -> tuple[list[tuple[int, int, int, int, int]], int]:
    """Windows of a step, ascending: rows, place, places of the two windows it is made of and the lag of the older one.

    The number of places is returned too. Windows that are not composed have none.
    """
    windows = sorted({output.window for output in step.windowed})
    if step.op not in _JOINED:
        return [(window, 0, 0, 0, 0) for window in windows], 0
    widths, pending = {1}, [*windows]
    while pending:
        width = pending.pop()
        if width not in widths:
            widths.add(width)
            pending += _halves(width)
    ladder = sorted(widths)
    last_use = {half: width for width in ladder[1:] for half in _halves(width)}
    places = _Places()
    place_of: dict[int, int] = {}
    rows = []
    for width in ladder:
        place_of[width] = places.take()
        newer, older = _halves(width) if width > 1 else (width, width)
        rows.append((width, place_of[width], place_of[newer], place_of[older], newer if width > 1 else 0))
        places.free += {
            place_of[each] for each in (newer, older, width) if last_use.get(each, 0) <= width and width > 1
        }
    return rows, places.count


def _halves(window: int) -> tuple[int, int]:
    """Rows of the newer and the older of the two windows that make up one of 2 rows and more.

    The newer one is the whole divided by its smallest prime factor: windows that are multiples of each other share
    most of their parts, and what a window is made of depends on its length alone.
    """
    factor = next((prime for prime in range(2, isqrt(window) + 1) if window % prime == 0), window)
    return window // factor, window - window // factor
