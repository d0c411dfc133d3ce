"""The factor language once more, as slowly and plainly as it can be said: the judge where two engines differ."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.features.expressions import FIELD, OPERATORS, Kind, Node

Array = NDArray[np.float64]

ELEMENT: dict[str, Callable[..., Array]] = {
    "Abs": np.abs,
    "Sign": np.sign,
    "Log": np.log,
    "Not": np.logical_not,
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
    "And": np.logical_and,
    "Or": np.logical_or,
    "If": lambda c, x, y: np.where(c != 0, x, y),
}


def value_of(node: Node | float, series: dict[str, Array], at: int) -> float:
    """The value of an expression at one row of one instrument's series (calendar rows from its first bar on)."""
    if not isinstance(node, Node):
        return node
    if node.op == FIELD:
        return float(series[str(node.params[0])][at]) if 0 <= at < len(series["close"]) else math.nan
    if OPERATORS[node.op].kind is Kind.ELEMENT:
        return float(ELEMENT[node.op](*(np.float64(value_of(arg, series, at)) for arg in node.args)))
    n = int(node.window)
    if node.op == "Ref":
        return value_of(node.args[0], series, at - n) if 0 <= at - n < len(series["close"]) else math.nan
    rows = range(max(at - n + 1, 0), at + 1)
    windows = [[value_of(arg, series, row) for row in rows] for arg in node.args]
    return WINDOW[node.op](*(np.array(window) for window in windows), *node.params)


def _kept(x: Array) -> Array:
    return x[np.isfinite(x)]


def _std(x: Array) -> float:
    x = _kept(x)
    if len(x) < 2:
        return math.nan
    mean = math.fsum(x) / len(x)
    return math.sqrt(math.fsum((x - mean) ** 2) / (len(x) - 1))


def _line(x: Array) -> tuple[float, float, float]:
    at = np.flatnonzero(np.isfinite(x)).astype(float)
    y = _kept(x)
    if len(y) < 2:
        return math.nan, math.nan, math.nan
    da, dy = at - math.fsum(at) / len(at), y - math.fsum(y) / len(y)
    slope = math.fsum(da * dy) / math.fsum(da * da)
    rest = x[-1] - math.fsum(y) / len(y) - slope * (len(x) - 1 - math.fsum(at) / len(at))
    spread = math.fsum(da * da) * math.fsum(dy * dy)
    return slope, rest, math.fsum(da * dy) ** 2 / spread if spread else math.nan


def _corr(x: Array, y: Array, _window: float) -> float:
    if _std(x) <= 2e-5 or _std(y) <= 2e-5:
        return math.nan
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if len(x) < 2:
        return math.nan
    dx, dy = x - math.fsum(x) / len(x), y - math.fsum(y) / len(y)
    spread = math.fsum(dx * dx) * math.fsum(dy * dy)
    return math.fsum(dx * dy) / math.sqrt(spread) if spread else math.nan


def _rank(x: Array, _window: float) -> float:
    kept = _kept(x)
    return ((kept < x[-1]).sum() + ((kept == x[-1]).sum() + 1) / 2) / len(kept) if np.isfinite(x[-1]) else math.nan


def _position(x: Array, sign: float) -> float:
    return float(np.argmax(sign * x)) + 1 if len(_kept(x)) else math.nan


def _over(function: Callable[[Array], float]) -> Callable[[Array, float], float]:
    return lambda x, _window: float(function(_kept(x))) if len(_kept(x)) else math.nan


WINDOW: dict[str, Callable[..., float]] = {
    "Sum": _over(math.fsum),
    "Mean": _over(lambda x: math.fsum(x) / len(x)),
    "Max": _over(np.max),
    "Min": _over(np.min),
    "Std": lambda x, _window: _std(x),
    "Slope": lambda x, _window: _line(x)[0],
    "Resi": lambda x, _window: _line(x)[1],
    "Rsquare": lambda x, _window: math.nan if _std(x) <= 2e-5 else _line(x)[2],
    "Corr": _corr,
    "Rank": _rank,
    "IdxMax": lambda x, _window: _position(x, 1.0),
    "IdxMin": lambda x, _window: _position(x, -1.0),
    "Quantile": lambda x, _window, level: float(np.quantile(_kept(x), level)) if len(_kept(x)) else math.nan,
}
