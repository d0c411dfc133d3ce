"""Runs factor expressions over a panel: one plan for all, shared parts once, blocks of instruments in parallel.

Qlib's semantics in float64: windows over calendar rows, fewer at a series' beginning, NaN rows left out. Values differ
from Qlib's in the last digits, because Qlib rounds elementwise results to float32 in between (most visible in
`Corr($close, Log($volume+1), d)` near zero), and where Qlib is wrong: its running sums keep a residue of what has left
the window, so that a constant window can have a spread (`VSTD`, `WVMA` of suspended stocks) or an `Rsquare`. An
infinite value counts as missing in every window; in Qlib's `Slope`, `Resi` and `Rsquare` it spoils all later rows.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.features import kernels
from mlops_tasks.features.expressions import FIELD, Node, lookback, walk
from mlops_tasks.features.kernels import FloatArray, IntArray
from mlops_tasks.features.panel import Panel

_BLOCK_VALUES = 16_384
"""Values a block: its arrays (128 KiB each) stay in the processor's cache from one step to the next."""

_NEAR_ZERO = 2e-5
"""Qlib leaves out correlations where a window's standard deviation is within this of zero."""

_LONGEST = 2**31 - 1

_Argument: TypeAlias = Node | float
_Params: TypeAlias = tuple[float | str, ...]

_ELEMENTWISE: Mapping[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Sign": np.sign,
    "Log": np.log,
    "Sqrt": np.sqrt,
    "Neg": np.negative,
    "NotNaN": lambda x, out: np.equal(x, x, out=out),
    "Not": lambda x, out: np.subtract(1.0, x, out=out),
    "Power": np.power,
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Greater": np.maximum,
    "Less": np.minimum,
    "Gt": np.greater,
    "Ge": np.greater_equal,
    "Lt": np.less,
    "Le": np.less_equal,
    "Eq": np.equal,
    "Ne": np.not_equal,
    "And": np.minimum,
    "Or": np.maximum,
    "If": lambda condition, x, y, out: np.copyto(out, np.where(condition != 0, x, y)),
    "Steady": lambda x, spread, out: np.copyto(out, np.where(spread <= _NEAR_ZERO, np.nan, x)),
}
"""Elementwise operators; lowering adds `Sqrt`, `Neg`, `NotNaN` and `Steady` (NaN where the spread is near zero)."""


@dataclass(frozen=True)
class _Family:
    """A kernel and the operators whose values it computes together, in the order of its slots."""

    kernel: Callable[..., None]
    slots: tuple[str, ...]


_FAMILIES = (
    _Family(kernels.counts, ("FiniteCount",)),
    _Family(kernels.sums, ("Sum",)),
    _Family(kernels.variances, ("Var",)),
    _Family(kernels.trends, ("Slope", "Resi", "LineFit")),
    _Family(kernels.highs, ("Max",)),
    _Family(kernels.high_rows, ("IdxMax",)),
    _Family(kernels.ranks, ("Rank",)),
    _Family(kernels.comoments, ("Cov", "RawCorr")),
    _Family(kernels.weighted_means, ("WMA",)),
    _Family(kernels.deviations, ("Mad", "Skew", "Kurt")),
)
_FAMILY_OF = {op: family for family in _FAMILIES for op in family.slots}


class _Step(Protocol):
    """A part of a plan: reads values by number and adds those it computes."""

    @property
    def inputs(self) -> tuple[int, ...]: ...

    @property
    def outputs(self) -> tuple[int, ...]: ...

    def run(self, values: dict[int, FloatArray], offsets: IntArray) -> None: ...


@dataclass(frozen=True)
class _Elementwise:
    op: str
    args: tuple["int | float", ...]
    output: int

    @property
    def inputs(self) -> tuple[int, ...]:
        return tuple(arg for arg in self.args if isinstance(arg, int))

    @property
    def outputs(self) -> tuple[int, ...]:
        return (self.output,)

    def run(self, values: dict[int, FloatArray], offsets: IntArray) -> None:
        out = np.empty(offsets[-1])
        args = (values[arg] if isinstance(arg, int) else arg for arg in self.args)
        _ELEMENTWISE[self.op](*args, out=out)
        values[self.output] = out


@dataclass(frozen=True)
class _Shift:
    source: int
    rows: int
    output: int

    @property
    def inputs(self) -> tuple[int, ...]:
        return (self.source,)

    @property
    def outputs(self) -> tuple[int, ...]:
        return (self.output,)

    def run(self, values: dict[int, FloatArray], offsets: IntArray) -> None:
        out = np.empty(offsets[-1])
        kernels.shift(values[self.source], offsets, self.rows, out)
        values[self.output] = out


@dataclass(frozen=True)
class _Exponential:
    source: int
    window: float
    output: int

    @property
    def inputs(self) -> tuple[int, ...]:
        return (self.source,)

    @property
    def outputs(self) -> tuple[int, ...]:
        return (self.output,)

    def run(self, values: dict[int, FloatArray], offsets: IntArray) -> None:
        out = np.empty(offsets[-1])
        if self.window == 0:
            kernels.expanding_exponential_mean(values[self.source], offsets, out)
        else:
            alpha = self.window if self.window < 1 else 2.0 / (self.window + 1.0)
            kernels.exponential_mean(values[self.source], offsets, alpha, out)
        values[self.output] = out


@dataclass(frozen=True)
class _Rolling:
    """All windows (and levels) of one kernel over the same series."""

    kernel: Callable[..., None]
    sources: tuple[int, ...]
    windows: tuple[int, ...]
    slots: int
    levels: tuple[float, ...]
    places: tuple[tuple[int, int, int], ...]
    """(slot, window number, value number)"""

    @property
    def inputs(self) -> tuple[int, ...]:
        return self.sources

    @property
    def outputs(self) -> tuple[int, ...]:
        return tuple(number for _, _, number in self.places)

    def run(self, values: dict[int, FloatArray], offsets: IntArray) -> None:
        out = np.empty((self.slots, len(self.windows), offsets[-1]))
        levels = (np.array(self.levels),) if self.levels else ()
        windows = np.array(self.windows, np.int64)
        self.kernel(*(values[source] for source in self.sources), offsets, windows, *levels, out)
        for slot, window, number in self.places:
            values[number] = out[slot, window]


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
    """

    names: tuple[str, ...]
    fields: tuple[str, ...]
    lookback_rows: float
    steps: tuple[_Step, ...]
    field_numbers: tuple[int, ...]
    rows_of: Mapping[int, tuple[int, ...]]
    """Rows of the result that a value fills."""
    last_uses: tuple[tuple[int, ...], ...]
    """Before the first step and after each, the values that no later one reads: they are written out and forgotten."""


def make_plan(expressions: Mapping[str, Node]) -> Plan:
    """Order the distinct parts of all expressions, and join windows of one kernel over one series."""
    lowered = {name: _lower(node) for name, node in expressions.items()}
    numbers: dict[Node, int] = {}
    for node in (part for root in lowered.values() for part in walk(root)):
        numbers.setdefault(node, len(numbers))
    fields = tuple(node for node in numbers if node.op == FIELD)
    rows_of: dict[int, tuple[int, ...]] = {}
    for row, node in enumerate(lowered.values()):
        rows_of[numbers[node]] = (*rows_of.get(numbers[node], ()), row)
    steps = tuple(_steps(numbers))
    return Plan(
        names=tuple(expressions),
        fields=tuple(str(node.params[0]) for node in fields),
        lookback_rows=max((lookback(node) for node in expressions.values()), default=0),
        steps=steps,
        field_numbers=tuple(numbers[node] for node in fields),
        rows_of=rows_of,
        last_uses=_last_uses(steps, [numbers[node] for node in fields]),
    )


def evaluate(plan: Plan, panel: Panel, positions: IntArray, threads: int | None = None) -> NDArray[np.float32]:
    """Values of all expressions.

    Parameters
    ----------
    plan, panel
        What to compute over what; the panel has the plan's fields.
    positions
        For each value of the panel its column in the result, or a negative number to leave it out; int64.
    threads
        Default: one a processor. Results do not depend on it.

    Returns
    -------
    float32 array (expressions, largest position + 1); NaN where an expression has no value.
    """
    width = int(positions.max(initial=-1)) + 1
    out = np.full((len(plan.names), width), np.nan, np.float32)
    blocks = _blocks(panel.offsets)

    def run(block: tuple[int, int]) -> None:
        _run_block(plan, panel, block, positions, out)

    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(run, blocks):
            pass
    return out


def _run_block(plan: Plan, panel: Panel, block: tuple[int, int], positions: IntArray, out: NDArray[np.float32]) -> None:
    offsets = panel.offsets[block[0] : block[1] + 1]
    begin, end = int(offsets[0]), int(offsets[-1])
    values = {n: panel.fields[name][begin:end] for name, n in zip(plan.fields, plan.field_numbers, strict=True)}
    offsets = offsets - begin

    def write_out(numbers: Iterable[int]) -> None:
        for number in numbers:
            for row in plan.rows_of.get(number, ()):
                kernels.scatter(values[number], positions[begin:end], out[row])
            del values[number]

    write_out(plan.last_uses[0])
    with np.errstate(all="ignore"):
        for step, unused in zip(plan.steps, plan.last_uses[1:], strict=True):
            step.run(values, offsets)
            write_out(unused)


def _blocks(offsets: IntArray) -> list[tuple[int, int]]:
    """Ranges of instruments of about `_BLOCK_VALUES` values each."""
    block_of = offsets[:-1] // _BLOCK_VALUES
    begins = np.flatnonzero(np.diff(block_of, prepend=-1))
    return list(zip(begins.tolist(), [*begins[1:].tolist(), len(block_of)], strict=True))


def _std(series: _Argument, params: _Params) -> Node:
    return Node("Sqrt", (Node("Var", (series,), params),))


def _steady_corr(args: tuple[_Argument, ...], params: _Params) -> Node:
    steady = Node("Steady", (Node("RawCorr", args, params), _std(args[0], params)))
    return Node("Steady", (steady, _std(args[1], params)))


_LOWERED: Mapping[str, Callable[[tuple[_Argument, ...], _Params], Node]] = {
    "Mean": lambda args, params: Node("Div", (Node("Sum", args, params), Node("FiniteCount", args, params))),
    "Count": lambda args, params: Node("Sum", (Node("NotNaN", args),), params),
    "Std": lambda args, params: _std(args[0], params),
    "Min": lambda args, params: Node("Neg", (Node("Max", (Node("Neg", args),), params),)),
    "IdxMin": lambda args, params: Node("IdxMax", (Node("Neg", args),), params),
    "Med": lambda args, params: Node("Quantile", args, (*params, 0.5)),
    "Delta": lambda args, params: Node("Sub", (args[0], Node("Ref", args, params))),
    "Rsquare": lambda args, params: Node("Steady", (Node("LineFit", args, params), _std(args[0], params))),
    "Corr": _steady_corr,
}


def _lower(node: Node) -> Node:
    """Rewrite an expression by the operators that have a kernel."""
    args = tuple(_lower(arg) if isinstance(arg, Node) else arg for arg in node.args)
    if node.op in _LOWERED:
        return _LOWERED[node.op](args, node.params)
    return Node(node.op, args, node.params)


def _steps(numbers: Mapping[Node, int]) -> Iterable[_Step]:
    """The steps in an order in which each finds its inputs."""
    rolling: dict[tuple[object, ...], list[Node]] = {}
    for node in numbers:
        if node.op in _FAMILY_OF or node.op == "Quantile":
            rolling.setdefault(_group(node), []).append(node)
    done: set[tuple[object, ...]] = set()
    for node, number in numbers.items():
        args = tuple(numbers[arg] if isinstance(arg, Node) else arg for arg in node.args)
        if node.op in _ELEMENTWISE:
            yield _Elementwise(node.op, args, number)
        elif node.op == "Ref":
            yield _Shift(numbers[node.children[0]], int(node.window), number)
        elif node.op == "EMA":
            yield _Exponential(numbers[node.children[0]], node.window, number)
        elif node.op != FIELD and _group(node) not in done:
            done.add(_group(node))
            yield _rolling_step(rolling[_group(node)], numbers)


def _group(node: Node) -> tuple[object, ...]:
    """What nodes of one rolling step share: the kernel and the series."""
    return (_FAMILY_OF[node.op].slots if node.op in _FAMILY_OF else node.op, node.args)


def _rolling_step(nodes: Sequence[Node], numbers: Mapping[Node, int]) -> _Rolling:
    sources = tuple(numbers[child] for child in nodes[0].children)
    windows = sorted({_rows(node) for node in nodes})
    if nodes[0].op == "Quantile":
        levels = sorted({float(node.params[1]) for node in nodes})
        slots = [levels.index(float(node.params[1])) for node in nodes]
        kernel, count = kernels.quantiles, len(levels)
    else:
        family, levels = _FAMILY_OF[nodes[0].op], []
        slots = [family.slots.index(node.op) for node in nodes]
        kernel, count = family.kernel, len(family.slots)
    outputs = [(slot, windows.index(_rows(node)), numbers[node]) for slot, node in zip(slots, nodes, strict=True)]
    return _Rolling(kernel, sources, tuple(windows), count, tuple(levels), tuple(outputs))


def _rows(node: Node) -> int:
    return int(node.window) or _LONGEST


def _last_uses(steps: Sequence[_Step], fields: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    last = dict.fromkeys(fields, 0)
    for index, step in enumerate(steps, start=1):
        last.update(dict.fromkeys((*step.inputs, *step.outputs), index))
    done: list[list[int]] = [[] for _ in range(len(steps) + 1)]
    for number, index in last.items():
        done[index].append(number)
    return tuple(map(tuple, done))
