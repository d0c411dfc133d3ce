"""The steps that indicators are made of: a small language of series, in which a definition reads like its formula.

A node is a series of one instrument, one value for each of its bars; nodes combine with `+ - * /`, numbers included,
and with the functions below. A value is a number or NaN, and every function gives NaN for NaN unless it says otherwise;
recursions treat an infinity as NaN, so that it does not stay. Bars before the first one count as NaN. No function looks
at later bars.
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
"""Recursive operations, each with its initial state before an instrument's first bar."""


@dataclass(frozen=True)
class SeriesNode:
    """A series: an operation on others.

    Attributes
    ----------
    window
        Bars of its first input that a window or lag spans; 0 for operations without one.
    constants
        Further numbers of the operation.
    """

    op: Op
    inputs: tuple["SeriesNode", ...] = ()
    window: int = 0
    constants: tuple[float, ...] = ()
    field: str = ""

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Cached, since it runs through everything that the series is made of."""
        return hash((self.op, self.inputs, self.window, self.constants, self.field))

    def __add__(self, other: "SeriesNode | float") -> "SeriesNode":
        return SeriesNode(Op.ADD, (self, _node(other)))

    def __sub__(self, other: "SeriesNode | float") -> "SeriesNode":
        return SeriesNode(Op.SUBTRACT, (self, _node(other)))

    def __mul__(self, other: "SeriesNode | float") -> "SeriesNode":
        return SeriesNode(Op.MULTIPLY, (self, _node(other)))

    def __truediv__(self, other: "SeriesNode | float") -> "SeriesNode":
        return divide(self, other)

    def __radd__(self, other: float) -> "SeriesNode":
        return SeriesNode(Op.ADD, (_node(other), self))

    def __rsub__(self, other: float) -> "SeriesNode":
        return SeriesNode(Op.SUBTRACT, (_node(other), self))

    def __rmul__(self, other: float) -> "SeriesNode":
        return SeriesNode(Op.MULTIPLY, (_node(other), self))

    def __rtruediv__(self, other: float) -> "SeriesNode":
        return divide(_node(other), self)

    def __neg__(self) -> "SeriesNode":
        return -1.0 * self

    @property
    def history(self) -> int:
        """Earlier bars of the first input that a value is made of."""
        if self.op in INITIAL_STATE:
            return 0
        return self.window if self.op == Op.LAG else max(self.window - 1, 0)


class Bar(NamedTuple):
    """The fields of a bar, as series."""

    open: SeriesNode
    high: SeriesNode
    low: SeriesNode
    close: SeriesNode
    volume: SeriesNode


BAR = Bar(*(SeriesNode(Op.FIELD, field=name) for name in (OPEN, HIGH, LOW, CLOSE, VOLUME)))


def walk(roots: Iterable[SeriesNode]) -> Iterator[SeriesNode]:
    """All distinct nodes, each after its inputs."""
    done: set[SeriesNode] = set()

    def visit(node: SeriesNode) -> Iterator[SeriesNode]:
        if node not in done:
            for part in node.inputs:
                yield from visit(part)
            done.add(node)
            yield node

    for root in roots:
        yield from visit(root)


def fields_of(roots: Iterable[SeriesNode]) -> tuple[str, ...]:
    """Fields of the bar that the nodes are made of."""
    return tuple(node.field for node in walk(roots) if node.op == Op.FIELD)


def lookback(node: SeriesNode) -> int | None:
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


def _node(value: SeriesNode | float) -> SeriesNode:
    return value if isinstance(value, SeriesNode) else SeriesNode(Op.LITERAL, constants=(float(value),))


def divide(x: SeriesNode, y: SeriesNode | float, empty: float = math.nan) -> SeriesNode:
    """x / y; `empty` where y is zero."""
    return SeriesNode(Op.DIVIDE, (x, _node(y)), constants=(empty,))


def absolute(x: SeriesNode) -> SeriesNode:
    """|x|."""
    return SeriesNode(Op.ABSOLUTE, (x,))


def root(x: SeriesNode) -> SeriesNode:
    """Square root; NaN below zero."""
    return SeriesNode(Op.ROOT, (x,))


def log(x: SeriesNode) -> SeriesNode:
    """Natural logarithm; NaN at and below zero."""
    return SeriesNode(Op.LOG, (x,))


def greater(x: SeriesNode, y: SeriesNode | float) -> SeriesNode:
    """The greater of two."""
    return SeriesNode(Op.GREATER, (x, _node(y)))


def less(x: SeriesNode, y: SeriesNode | float) -> SeriesNode:
    """The lesser of two."""
    return SeriesNode(Op.LESS, (x, _node(y)))


def coalesce(x: SeriesNode, y: SeriesNode | float) -> SeriesNode:
    """x, or y where x is NaN."""
    return SeriesNode(Op.COALESCE, (x, _node(y)))


def where_positive(condition: SeriesNode, x: SeriesNode | float, y: SeriesNode | float) -> SeriesNode:
    """x where `condition` is above zero, else y; NaN where it is NaN."""
    return SeriesNode(Op.SELECT, (condition, _node(x), _node(y)))


def true_range(high: SeriesNode, low: SeriesNode, previous_close: SeriesNode) -> SeriesNode:
    """Greatest of high - low and the distances of both to the previous close, NaN ones left out (Wilder 1978)."""
    return SeriesNode(Op.TRUE_RANGE, (high, low, previous_close))


def lag(x: SeriesNode, bars: int = 1) -> SeriesNode:
    """The value `bars` bars ago."""
    return SeriesNode(Op.LAG, (x,), bars) if bars else x


def change(x: SeriesNode) -> SeriesNode:
    """Difference to the previous bar."""
    return x - lag(x)


def rolling_sum(x: SeriesNode, window: int) -> SeriesNode:
    """Sum of the last `window` values, summed anew each time from the newest to the oldest."""
    return SeriesNode(Op.SUM, (x,), window)


def mean(x: SeriesNode, window: int) -> SeriesNode:
    """Mean of the last `window` values, taken about the newest: exact where all are equal."""
    return SeriesNode(Op.MEAN, (x,), window)


def mean_known(x: SeriesNode, window: int) -> SeriesNode:
    """Mean of the last `window` values, NaN left out."""
    return SeriesNode(Op.MEAN_KNOWN, (x,), window)


def highest(x: SeriesNode, window: int) -> SeriesNode:
    """Largest of the last `window` values."""
    return SeriesNode(Op.EXTREME, (x,), window, _HIGH)


def lowest(x: SeriesNode, window: int) -> SeriesNode:
    """Smallest of the last `window` values."""
    return SeriesNode(Op.EXTREME, (x,), window, _LOW)


def highest_known(x: SeriesNode, window: int) -> SeriesNode:
    """Largest of the last `window` values, NaN left out."""
    return SeriesNode(Op.EXTREME_KNOWN, (x,), window, _HIGH)


def lowest_known(x: SeriesNode, window: int) -> SeriesNode:
    """Smallest of the last `window` values, NaN left out."""
    return SeriesNode(Op.EXTREME_KNOWN, (x,), window, _LOW)


def first_highest(x: SeriesNode, window: int) -> SeriesNode:
    """Place of the largest of the last `window` values, 0 the oldest; the oldest of equal ones."""
    return SeriesNode(Op.FIRST_EXTREME, (x,), window, _HIGH)


def first_lowest(x: SeriesNode, window: int) -> SeriesNode:
    """Place of the smallest of the last `window` values, 0 the oldest; the oldest of equal ones."""
    return SeriesNode(Op.FIRST_EXTREME, (x,), window, _LOW)


def weighted_mean(x: SeriesNode, window: int) -> SeriesNode:
    """Mean of the last `window` values with weights 1 (oldest) to `window` (newest)."""
    return SeriesNode(Op.WEIGHTED_MEAN, (x,), window)


def absolute_deviation(x: SeriesNode, window: int) -> SeriesNode:
    """Mean distance of the last `window` values from their mean."""
    return SeriesNode(Op.ABSOLUTE_DEVIATION, (x, mean(x, window)), window)


def standard_deviation(x: SeriesNode, window: int) -> SeriesNode:
    """Standard deviation of the last `window` values (divisor `window`)."""
    return SeriesNode(Op.STANDARD_DEVIATION, (x, mean(x, window)), window)


def ewm(x: SeriesNode, com: float, least: int) -> SeriesNode:
    """pandas' `ewm(com, adjust=False, min_periods=least).mean()`: x weighs 1 / (1 + com).

    Starts with the first value; a NaN keeps the mean and makes the next value weigh more; NaN before `least` values.
    """
    return SeriesNode(Op.EWM, (x,), constants=(1.0 / (1.0 + com), float(least)))


def exponential_mean(x: SeriesNode, window: int) -> SeriesNode:
    """Exponential mean of span `window`: x weighs 2 / (window + 1); NaN before `window` values."""
    return ewm(x, (window - 1) / 2.0, window)


def wilder_mean(x: SeriesNode, window: int) -> SeriesNode:
    """Wilder's mean: that of the first `window` values, then (mean * (window - 1) + x) / window; skips NaN."""
    return SeriesNode(Op.WILDER_MEAN, (x,), window)


def wilder_sum(x: SeriesNode, window: int) -> SeriesNode:
    """Wilder's sum: that of the first `window` values, then sum - sum / window + x; skips NaN."""
    return SeriesNode(Op.WILDER_SUM, (x,), window)


def total(x: SeriesNode) -> SeriesNode:
    """Sum since the first bar; skips NaN."""
    return SeriesNode(Op.TOTAL, (x,))


def product(x: SeriesNode) -> SeriesNode:
    """Product since the first bar; skips NaN."""
    return SeriesNode(Op.PRODUCT, (x,))


def first(x: SeriesNode) -> SeriesNode:
    """The first value that is not NaN, from there on."""
    return SeriesNode(Op.FIRST, (x,))


def adaptive_mean(x: SeriesNode, speed: SeriesNode, window: int) -> SeriesNode:
    """Begins as the `window`-th value, then moves by `speed` times its distance to x; skips NaN."""
    return SeriesNode(Op.KAMA, (x, speed), window)


def stop_and_reverse(bar: Bar, step: float, max_step: float) -> tuple[SeriesNode, SeriesNode]:
    """Wilder's parabolic stop, and its trend: 1 up, -1 down, 0 on the first two bars.

    A bar that lacks a price has no stop and leaves the trend unchanged.
    """
    stop, trend = (
        SeriesNode(Op.PSAR, (bar.high, bar.low, bar.close), constants=(step, max_step, wants_stop))
        for wants_stop in (1, 0)
    )
    return stop, trend
