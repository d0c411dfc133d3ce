"""The factor language once more, as slowly and plainly as it can be said: the judge where two engines differ.

It shares the syntax tree with the engine and nothing else: no plan, no kernel, no rewriting into other operators.
Sums are exact (`math.fsum`), every window is looked at on its own.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlops_tasks.features.expressions import FIELD, FOREIGN, OPERATORS, Node, OperatorKind
from mlops_tasks.features.panel import Panel

Array = NDArray[np.float64]

NEAR_ZERO = 2e-5
"""Qlib leaves out `Corr` and `Rsquare` where a window's standard deviation is at most this."""

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

EXACT = {"Abs", "Sign", "Not", "Greater", "Less", "Gt", "Ge", "Lt", "Le", "Eq", "Ne", "And", "Or", "If"} | {
    "Ref", "Max", "Min", "IdxMax", "IdxMin", "Count",
}  # fmt: skip
"""Operators that never round."""


class Reference:
    """Values of expressions over a panel.

    With `noise`, every result that may be rounded is off by about that share of itself; with `residue`, one of a window
    by about that share of the largest value that was ever in it, as in running sums. What then moves far, or becomes
    NaN, hangs on the last digits, and no two ways of computing it need agree.
    """

    def __init__(self, panel: Panel, noise: float = 0.0, seed: int = 0, *, residue: bool = False) -> None:
        self.length: dict[str, int] = {}
        self.first_row: dict[str, int] = {}
        self.fields: dict[str, dict[str, Array]] = {}
        for number, name in enumerate(panel.instruments):
            begin, end = panel.offsets[number : number + 2]
            self.length[name], self.first_row[name] = int(end - begin), int(panel.rows[begin])
            self.fields[name] = {field: values[begin:end] for field, values in panel.fields.items()}
        self.noise, self.residue, self.random = noise, residue, np.random.default_rng(seed)
        self.overflown: set[str] = set()
        """Instruments of which a window had an infinite value, or one that float32 cannot hold."""

    def values(self, node: Node | float, instrument: str, begin: int, end: int) -> Array:
        """Values of the instrument's rows `begin` to `end` - 1, counted from its first bar."""
        with np.errstate(all="ignore"):
            return self._values(node, instrument, begin, end)

    def _values(self, node: Node | float, instrument: str, begin: int, end: int) -> Array:
        if not isinstance(node, Node):
            return np.full(end - begin, node)
        if node.op == FIELD:
            return self.fields[instrument][str(node.params[0])][begin:end]
        if node.op == FOREIGN:
            other = str(node.params[0])
            shift = self.first_row[instrument] - self.first_row[other]
            return self._cut(node.args[0], other, begin + shift, end + shift)
        return self._operator(node, instrument, begin, end)

    def _cut(self, node: Node | float, instrument: str, begin: int, end: int) -> Array:
        """As `_values`, NaN for rows that the instrument has not."""
        first, last = min(max(begin, 0), self.length[instrument]), max(min(end, self.length[instrument]), 0)
        out = np.full(end - begin, np.nan)
        if first < last:
            out[first - begin : last - begin] = self._values(node, instrument, first, last)
        return out

    def _operator(self, node: Node, instrument: str, begin: int, end: int) -> Array:
        if OPERATORS[node.op].kind is OperatorKind.ELEMENT:
            args = [self._values(arg, instrument, begin, end) for arg in node.args]
            return self._rounded(node, np.asarray(ELEMENT[node.op](*args), float), 0.0)
        if node.op in {"Ref", "Delta"}:
            return self._shifted(node, instrument, begin, end)
        rows = self.length[instrument] if node.window == 0 or node.op == "EMA" else int(node.window)
        first = max(begin - rows + 1, 0)
        series = [self._values(arg, instrument, first, end) for arg in node.args]
        windows = (slice(max(at - rows + 1, 0) - first, at + 1 - first) for at in range(begin, end))
        found = [WINDOW[node.op](*(each[window] for each in series), *node.params) for window in windows]
        largest = max(np.abs(each[~np.isnan(each)]).max(initial=0) for each in series)
        if largest > np.finfo(np.float32).max:
            self.overflown.add(instrument)
        return self._rounded(node, np.array(found), largest if self.residue else 0.0)

    def _shifted(self, node: Node, instrument: str, begin: int, end: int) -> Array:
        rows = int(node.window)
        if rows == 0:
            past = np.repeat(self._values(node.args[0], instrument, 0, 1), end - begin)
        else:
            past = self._cut(node.args[0], instrument, begin - rows, end - rows)
        if node.op == "Ref":
            return past
        return self._rounded(node, self._values(node.args[0], instrument, begin, end) - past, 0.0)

    def _rounded(self, node: Node, values: Array, largest: float) -> Array:
        if not self.noise or node.op in EXACT:
            return values
        share, residue = self.noise * self.random.uniform(-1, 1, (2, len(values)))
        return values * (1 + share) + residue * largest


def _kept(x: Array) -> Array:
    return x[np.isfinite(x)]


def _over(function: Callable[[Array], float], least: int = 1) -> Callable[..., float]:
    """A function of the finite values of a window, NaN for fewer than `least`."""
    return lambda x, *_: float(function(_kept(x))) if len(_kept(x)) >= least else math.nan


def _mean(x: Array) -> float:
    return math.fsum(x) / len(x)


def _about_mean(x: Array) -> Array:
    return np.zeros(len(x)) if (x == x[0]).all() else x - _mean(x)


def _var(x: Array) -> float:
    return math.fsum(_about_mean(x) ** 2) / (len(x) - 1)


def _is_steady(x: Array) -> bool:
    x = _kept(x)
    return len(x) > 1 and math.sqrt(_var(x)) <= NEAR_ZERO


def _skew(x: Array) -> float:
    n, d = len(x), _about_mean(x)
    second = math.fsum(d**2)
    return n * math.sqrt(n - 1) / (n - 2) * math.fsum(d**3) / second**1.5 if second else math.nan


def _kurt(x: Array) -> float:
    n, d = len(x), _about_mean(x)
    second = math.fsum(d**2)
    if not second:
        return math.nan
    shape = n * (n + 1) * (n - 1) / (n - 2) / (n - 3) * math.fsum(d**4) / second**2
    return shape - 3 * (n - 1) ** 2 / (n - 2) / (n - 3)


def _line(x: Array) -> tuple[float, float, float]:
    """Slope, residual of the newest row, R squared."""
    at, y = np.flatnonzero(np.isfinite(x)).astype(float), _kept(x)
    if len(y) < 2:
        return math.nan, math.nan, math.nan
    da, dy = _about_mean(at), _about_mean(y)
    slope = math.fsum(da * dy) / math.fsum(da * da)
    rest = x[-1] - _mean(y) - slope * (len(x) - 1 - _mean(at)) if np.isfinite(x[-1]) else math.nan
    spread = math.fsum(da * da) * math.fsum(dy * dy)
    return slope, rest, math.fsum(da * dy) ** 2 / spread if spread else math.nan


def _pairs(x: Array, y: Array) -> tuple[Array, Array]:
    both = np.isfinite(x) & np.isfinite(y)
    return x[both], y[both]


def _cov(x: Array, y: Array, _window: float) -> float:
    x, y = _pairs(x, y)
    return math.fsum(_about_mean(x) * _about_mean(y)) / (len(x) - 1) if len(x) > 1 else math.nan


def _corr(x: Array, y: Array, window: float) -> float:
    if _is_steady(x) or _is_steady(y) or len(_pairs(x, y)[0]) < 2:
        return math.nan
    spread = math.prod(_var(each) for each in _pairs(x, y))
    return _cov(x, y, window) / math.sqrt(spread) if spread else math.nan


def _rank(x: Array, _window: float) -> float:
    kept = _kept(x)
    return ((kept < x[-1]).sum() + ((kept == x[-1]).sum() + 1) / 2) / len(kept) if np.isfinite(x[-1]) else math.nan


def _position(x: Array, sign: float) -> float:
    # NumPy takes a NaN for the largest value of all, and so does Qlib.
    return float(np.argmax(sign * np.where(np.isfinite(x), x, np.nan))) + 1 if len(_kept(x)) else math.nan


def _wma(x: Array, _window: float) -> float:
    weights = (np.arange(len(x)) + 1) / math.fsum(np.arange(len(x)) + 1)
    weighted = _kept(weights * x)
    return _mean(weighted) if len(weighted) else math.nan


def _ema(x: Array, window: float) -> float:
    if not len(_kept(x)):
        return math.nan
    alpha = window if 0 < window < 1 else 2 / (1 + (window or len(x)))
    if window == 1:
        return float(_kept(x)[-1])
    weights, finite = (1 - alpha) ** np.arange(len(x))[::-1].astype(float), np.isfinite(x)
    # Expanding, the weights of all rows count; else those of the rows that have a value.
    return math.fsum(weights[finite] * x[finite]) / math.fsum(weights[finite] if window else weights)


WINDOW: dict[str, Callable[..., float]] = {
    "Sum": _over(math.fsum),
    "Mean": _over(_mean),
    "Count": lambda x, _window: float((~np.isnan(x)).sum()),
    "Max": _over(np.max),
    "Min": _over(np.min),
    "Med": _over(np.median),
    "Mad": _over(lambda x: _mean(np.abs(_about_mean(x)))),
    "Var": _over(_var, 2),
    "Std": _over(lambda x: math.sqrt(_var(x)), 2),
    "Skew": _over(_skew, 3),
    "Kurt": _over(_kurt, 4),
    "Slope": lambda x, _window: _line(x)[0],
    "Resi": lambda x, _window: _line(x)[1],
    "Rsquare": lambda x, window: math.nan if window and _is_steady(x) else _line(x)[2],
    "Cov": _cov,
    "Corr": _corr,
    "Rank": _rank,
    "IdxMax": lambda x, _window: _position(x, 1.0),
    "IdxMin": lambda x, _window: _position(x, -1.0),
    "Quantile": lambda x, _window, level: _over(lambda kept: np.quantile(kept, level))(x),
    "WMA": _wma,
    "EMA": _ema,
}
