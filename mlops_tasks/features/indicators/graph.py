"""The steps that indicators are made of: a small language of series, in which a definition reads like its formula.

A node is a series of one instrument, one value a bar it has; nodes combine with `+ - * /`, numbers included, and with
the functions below. A value is a number or NaN, and NaN is what every function makes of NaN unless it says otherwise;
recursions take an infinity for NaN, lest it stay. Bars before the first one count as NaN. No function looks at later
bars.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from mlops_tasks.columns import CLOSE, HIGH, LOW, OPEN, VOLUME
from mlops_tasks.features.indicators.kernels import Op

_HIGH, _LOW = (1.0,), (-1.0,)

INITIAL_STATE: dict[Op, tuple[float, ...]] = {
    Op.EWM: (math.nan, 1.0, 0.0),
    Op.WILDER_MEAN: (0.0, 0.0),
    Op.WILDER_SUM: (0.0, 0.0),
    Op.TOTAL: (0.0,),
    Op.PRODUCT: (1.0,),
    Op.FIRST: (math.nan,),
    Op.KAMA: (math.nan, 0.0),
    Op.PSAR: (0.0,) * 10,
}
"""Recursive operations, with what each remembers of an instrument before its first bar."""


@dataclass(frozen=True)
class Node:
    """A series: an operation on others.

    Attributes
    ----------
    window
        Bars of its first input that a window or lag spans; 0 for operations without one.
    constants
        Further numbers of the operation.
    """

    op: Op
    inputs: tuple["Node", ...] = ()
    window: int = 0
    constants: tuple[float, ...] = ()
    field: str = ""

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Kept, for it runs through all that the series is made of."""
        return hash((self.op, self.inputs, self.window, self.constants, self.field))

    def __add__(self, other: "Node | float") -> "Node":
        return Node(Op.ADD, (self, _node(other)))

    def __sub__(self, other: "Node | float") -> "Node":
        return Node(Op.SUBTRACT, (self, _node(other)))

    def __mul__(self, other: "Node | float") -> "Node":
        return Node(Op.MULTIPLY, (self, _node(other)))

    def __truediv__(self, other: "Node | float") -> "Node":
        return divide(self, other)

    def __radd__(self, other: float) -> "Node":
        return Node(Op.ADD, (_node(other), self))

    def __rsub__(self, other: float) -> "Node":
        return Node(Op.SUBTRACT, (_node(other), self))

    def __rmul__(self, other: float) -> "Node":
        return Node(Op.MULTIPLY, (_node(other), self))

    def __rtruediv__(self, other: float) -> "Node":
        return divide(_node(other), self)

    def __neg__(self) -> "Node":
        return -1.0 * self

    @property
    def history(self) -> int:
        """Earlier bars of the first input that a value is made of."""
        if self.op in INITIAL_STATE:
            return 0
        return self.window if self.op == Op.LAG else max(self.window - 1, 0)


class Bar(NamedTuple):
    """The fields of a bar, as series."""

    open: Node
    high: Node
    low: Node
    close: Node
    volume: Node


BAR = Bar(*(Node(Op.FIELD, field=name) for name in (OPEN, HIGH, LOW, CLOSE, VOLUME)))


def walk(roots: Iterable[Node]) -> Iterator[Node]:
    """All distinct nodes, each after its inputs."""
    done: set[Node] = set()

    def visit(node: Node) -> Iterator[Node]:
        if node not in done:
            for part in node.inputs:
                yield from visit(part)
            done.add(node)
            yield node

    for root in roots:
        yield from visit(root)


def fields_of(roots: Iterable[Node]) -> tuple[str, ...]:
    """Fields of the bar that the nodes are made of."""
    return tuple(node.field for node in walk(roots) if node.op == Op.FIELD)


def lookback(node: Node) -> int | None:
    """Earlier bars that a value depends on; None where every one since the first matters."""
    if node.op in INITIAL_STATE:
        return None
    deepest = 0
    for number, part in enumerate(node.inputs):
        bars = lookback(part)
        if bars is None:
            return None
        deepest = max(deepest, bars + (node.history if number == 0 else 0))
    return deepest


def _node(value: Node | float) -> Node:
    return value if isinstance(value, Node) else Node(Op.LITERAL, constants=(float(value),))


def divide(x: Node, y: Node | float, empty: float = math.nan) -> Node:
    """x / y; `empty` where y is zero."""
    return Node(Op.DIVIDE, (x, _node(y)), constants=(empty,))


def absolute(x: Node) -> Node:
    """|x|."""
    return Node(Op.ABSOLUTE, (x,))


def root(x: Node) -> Node:
    """Square root; NaN below zero."""
    return Node(Op.ROOT, (x,))


def log(x: Node) -> Node:
    """Natural logarithm; NaN at and below zero."""
    return Node(Op.LOG, (x,))


def greater(x: Node, y: Node | float) -> Node:
    """The greater of two."""
    return Node(Op.GREATER, (x, _node(y)))


def less(x: Node, y: Node | float) -> Node:
    """The lesser of two."""
    return Node(Op.LESS, (x, _node(y)))


def coalesce(x: Node, y: Node | float) -> Node:
    """x, or y where x is NaN."""
    return Node(Op.COALESCE, (x, _node(y)))


def where_positive(condition: Node, x: Node | float, y: Node | float) -> Node:
    """x where `condition` is above zero, else y; NaN where it is NaN."""
    return Node(Op.SELECT, (condition, _node(x), _node(y)))


def true_range(high: Node, low: Node, previous_close: Node) -> Node:
    """Greatest of high - low and the distances of both to the previous close, NaN ones left out (Wilder 1978)."""
    return Node(Op.TRUE_RANGE, (high, low, previous_close))


def lag(x: Node, bars: int = 1) -> Node:
    """The value of `bars` bars ago."""
    return Node(Op.LAG, (x,), bars) if bars else x


def change(x: Node) -> Node:
    """Difference to the previous bar."""
    return x - lag(x)


def rolling_sum(x: Node, window: int) -> Node:
    """Sum of the last `window` values, each time afresh from the newest to the oldest."""
    return Node(Op.SUM, (x,), window)


def mean(x: Node, window: int) -> Node:
    """Mean of the last `window` values, taken about the newest: exact where all are equal."""
    return Node(Op.MEAN, (x,), window)


def mean_known(x: Node, window: int) -> Node:
    """Mean of those of the last `window` values that are not NaN."""
    return Node(Op.MEAN_KNOWN, (x,), window)


def highest(x: Node, window: int) -> Node:
    """Largest of the last `window` values."""
    return Node(Op.EXTREME, (x,), window, _HIGH)


def lowest(x: Node, window: int) -> Node:
    """Smallest of the last `window` values."""
    return Node(Op.EXTREME, (x,), window, _LOW)


def highest_known(x: Node, window: int) -> Node:
    """Largest of those of the last `window` values that are not NaN."""
    return Node(Op.EXTREME_KNOWN, (x,), window, _HIGH)


def lowest_known(x: Node, window: int) -> Node:
    """Smallest of those of the last `window` values that are not NaN."""
    return Node(Op.EXTREME_KNOWN, (x,), window, _LOW)


def first_highest(x: Node, window: int) -> Node:
    """Place of the largest of the last `window` values, 0 the oldest; the oldest of equal ones."""
    return Node(Op.FIRST_EXTREME, (x,), window, _HIGH)


def first_lowest(x: Node, window: int) -> Node:
    """Place of the smallest of the last `window` values, 0 the oldest; the oldest of equal ones."""
    return Node(Op.FIRST_EXTREME, (x,), window, _LOW)


def weighted_mean(x: Node, window: int) -> Node:
    """Mean of the last `window` values with weights 1 (oldest) to `window` (newest)."""
    return Node(Op.WEIGHTED_MEAN, (x,), window)


def absolute_deviation(x: Node, window: int) -> Node:
    """Mean distance of the last `window` values to their mean."""
    return Node(Op.ABSOLUTE_DEVIATION, (x, mean(x, window)), window)


def standard_deviation(x: Node, window: int) -> Node:
    """Standard deviation of the last `window` values (divisor `window`)."""
    return Node(Op.STANDARD_DEVIATION, (x, mean(x, window)), window)


def ewm(x: Node, com: float, least: int) -> Node:
    """pandas' `ewm(com, adjust=False, min_periods=least).mean()`: x weighs 1 / (1 + com).

    Starts with the first value; a NaN keeps the mean and makes the next value weigh more; NaN before `least` values.
    """
    return Node(Op.EWM, (x,), constants=(1.0 / (1.0 + com), float(least)))


def exponential_mean(x: Node, window: int) -> Node:
    """Exponential mean of span `window`: x weighs 2 / (window + 1); NaN before `window` values."""
    return ewm(x, (window - 1) / 2.0, window)


def wilder_mean(x: Node, window: int) -> Node:
    """Wilder's mean: that of the first `window` values, then (mean * (window - 1) + x) / window; passes over NaN."""
    return Node(Op.WILDER_MEAN, (x,), window)


def wilder_sum(x: Node, window: int) -> Node:
    """Wilder's sum: that of the first `window` values, then sum - sum / window + x; passes over NaN."""
    return Node(Op.WILDER_SUM, (x,), window)


def total(x: Node) -> Node:
    """Sum since the first bar; passes over NaN."""
    return Node(Op.TOTAL, (x,))


def product(x: Node) -> Node:
    """Product since the first bar; passes over NaN."""
    return Node(Op.PRODUCT, (x,))


def first(x: Node) -> Node:
    """The first value that is not NaN, from there on."""
    return Node(Op.FIRST, (x,))


def adaptive_mean(x: Node, speed: Node, window: int) -> Node:
    """Begins as the `window`-th value, then moves by `speed` times its distance to x; passes over NaN."""
    return Node(Op.KAMA, (x, speed), window)


def stop_and_reverse(bar: Bar, step: float, max_step: float) -> tuple[Node, Node]:
    """Wilder's parabolic stop, and its trend: 1 up, -1 down, 0 on the first two bars.

    A bar that lacks a price has no stop and leaves the trend.
    """
    stop, trend = (
        Node(Op.PSAR, (bar.high, bar.low, bar.close), constants=(step, max_step, wants_stop)) for wants_stop in (1, 0)
    )
    return stop, trend
