"""Qlib's factor language: text to a checked syntax tree.

Qlib evaluates an expression as Python after replacing `$close` by a feature object, so Python's own grammar gives the
precedence of every operator and the column of every error.
"""

import ast
import contextlib
import operator as python
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf

from mlops_tasks.columns import BAR_FIELDS
from mlops_tasks.errors import ConfigError, hint


class OperatorKind(Enum):
    """What the arguments of an operator are."""

    ELEMENT = "series"
    WINDOW = "series and a window"
    QUANTILE = "series, a window and a level"


@dataclass(frozen=True)
class Operator:
    """Signature of an operator: how many series it takes and what follows them."""

    series: int
    kind: OperatorKind = OperatorKind.ELEMENT
    least_window: int = 1

    @property
    def arity(self) -> int:
        """Number of arguments in the text."""
        return self.series + {OperatorKind.ELEMENT: 0, OperatorKind.WINDOW: 1, OperatorKind.QUANTILE: 2}[self.kind]


_UNARY = ("Abs", "Sign", "Log", "Not")
_PAIR = (
    "Power",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Greater",
    "Less",
    "Gt",
    "Ge",
    "Lt",
    "Le",
    "Eq",
    "Ne",
    "And",
    "Or",
)
_WINDOW = (
    "Ref", "Delta", "Mean", "Sum", "Count", "Std", "Var", "Max", "Min", "IdxMax", "IdxMin", "Med", "Mad", "Rank",
    "Slope", "Rsquare", "Resi", "WMA", "EMA",
)  # fmt: skip

OPERATORS: dict[str, Operator] = {
    **{name: Operator(1) for name in _UNARY},
    **{name: Operator(2) for name in _PAIR},
    "If": Operator(3),
    **{name: Operator(1, OperatorKind.WINDOW) for name in _WINDOW},
    "Skew": Operator(1, OperatorKind.WINDOW, least_window=3),
    "Kurt": Operator(1, OperatorKind.WINDOW, least_window=4),
    "Quantile": Operator(1, OperatorKind.QUANTILE),
    "Corr": Operator(2, OperatorKind.WINDOW),
    "Cov": Operator(2, OperatorKind.WINDOW),
}
"""Operators by Qlib's names. `Greater` and `Less` are the elementwise maximum and minimum, as in Qlib."""

CONDITIONS = frozenset({"Gt", "Ge", "Lt", "Le", "Eq", "Ne", "And", "Or", "Not"})
"""Operators whose values are 1 (true) or 0 (false), never NaN: a comparison with NaN is false."""

CROSS_SECTIONAL = ("CSRank", "CSZscore")
"""Operators over the universe's members of a day: rank (1/n to 1) and z-score. Qlib's expressions have none."""
MARKET = ""
"""Not an instrument's name: stands for all of them in dependencies."""

FIELD = "$"
FOREIGN = "ChangeInstrument"
"""The operator whose series is that of another instrument."""

ROLLING: Mapping[str, str] = {
    "count": "Count",
    "kurt": "Kurt",
    "max": "Max",
    "mean": "Mean",
    "median": "Med",
    "min": "Min",
    "skew": "Skew",
    "std": "Std",
    "sum": "Sum",
    "var": "Var",
}
"""Functions of `Rolling(series, window, function)` by pandas' names, and the operator that each is."""

REWRITTEN: Mapping[str, tuple[str, ...]] = {
    FOREIGN: ("instrument", "series"),
    "Mask": ("series", "instrument"),
    "Rolling": ("series", "window", "function"),
    "Feature": ("field",),
}
"""Operators that take a name in quotation marks, and their arguments; the parser rewrites them in terms of others."""

_NO_PERIODS = "reads data by reporting period, and the bars have none"
REFUSED: Mapping[str, str] = {
    "TResample": "needs dates, and Qlib's own daily loader gives it row numbers: it fails there too",
    "P": _NO_PERIODS,
    "PRef": _NO_PERIODS,
    "PFeature": _NO_PERIODS,
}
"""Qlib's operators that are not part of this language, each with the reason."""

_SHIFTS = frozenset({"Ref", "Delta"})
_LONGEST_WINDOW = 2**31 - 1

_BINARY: dict[type[ast.AST], str] = {
    ast.Add: "Add",
    ast.Sub: "Sub",
    ast.Mult: "Mul",
    ast.Div: "Div",
    ast.Pow: "Power",
    ast.BitAnd: "And",
    ast.BitOr: "Or",
    ast.Gt: "Gt",
    ast.GtE: "Ge",
    ast.Lt: "Lt",
    ast.LtE: "Le",
    ast.Eq: "Eq",
    ast.NotEq: "Ne",
}

_INSTEAD: dict[type[ast.AST], tuple[str, str]] = {
    ast.And: ("and", "join comparisons with &"),
    ast.Or: ("or", "join comparisons with |"),
    ast.Not: ("not", "write Not(...)"),
    ast.Invert: ("~", "write Not(...)"),
    ast.IfExp: ("if else", "write If(condition, series, series)"),
}
"""What Python has and Qlib's expressions lack, and what to write instead."""

_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "Add": python.add,
    "Sub": python.sub,
    "Mul": python.mul,
    "Div": python.truediv,
    "Power": python.pow,
}
"""How constants are folded."""


@dataclass(frozen=True)
class Node:
    """One operator applied to series; equal nodes compute equal values.

    `params` holds the field's name of a `$` node, the window of a rolling one, window and level of `Quantile`, the
    instrument of `ChangeInstrument`, whose one argument is a series of that instrument.
    """

    op: str
    args: tuple["Node | float", ...] = ()
    params: tuple[float | str, ...] = ()
    column: int = field(default=0, compare=False)
    """1-based column of the operator in its text."""

    @property
    def window(self) -> float:
        """Rows of the window; 0 means all rows from the first (Qlib's expanding form)."""
        return float(self.params[0])

    @property
    def children(self) -> tuple["Node", ...]:
        """The arguments that are series."""
        return tuple(arg for arg in self.args if isinstance(arg, Node))


def parse(text: str) -> Node:
    """The syntax tree of one expression; references to the future are allowed (labels need them).

    Raises
    ------
    ConfigError
        A syntax error, an unknown operator or field, a wrong arity or argument; points at the column.
    """
    return _Parser(text).parse()


def parse_feature(text: str) -> Node:
    """The syntax tree of a feature, which may see the past only.

    Raises
    ------
    ConfigError
        As `parse`, and for a negative shift (`Ref($close, -1)`).
    """
    node = parse(text)
    for each in walk(node):
        if each.op in _SHIFTS and each.window < 0:
            raise _error(
                text,
                each.column,
                f"{each.op} by {each.window:g} rows reads the future; a feature may shift by 1 or more",
            )
    return node


def walk(node: Node) -> Iterator[Node]:
    """All nodes of a tree, children first."""
    for child in node.children:
        yield from walk(child)
    yield node


def lookback(node: Node) -> float:
    """Calendar rows before the current one that a value depends on; infinite where it depends on the first row.

    Rows of other instruments count like its own.
    """
    reaches = [dependencies(node), market_dependencies(node), *foreign_dependencies(node).values()]
    return max(rows for fields in reaches for rows in fields.values())


def dependencies(node: Node) -> dict[str, float]:
    """The fields that a value depends on, each with the calendar rows before the current one that it reaches back.

    0 is the current row alone; windows of nested operators add up; infinite where the first row matters. Only the
    instrument's own fields: `foreign_dependencies` has those of others.
    """
    return _dependencies(node).get(None, {})


def foreign_dependencies(node: Node) -> dict[str, dict[str, float]]:
    """By other instrument, the fields of it that a value depends on, as `dependencies`."""
    return {name: fields for name, fields in _dependencies(node).items() if name}


def market_dependencies(node: Node) -> dict[str, float]:
    """The fields of all instruments that a value depends on, by operators across them, as `dependencies`."""
    return _dependencies(node).get(MARKET, {})


def foreign_instruments(node: Node) -> frozenset[str]:
    """The instruments named by `ChangeInstrument`, at whatever depth."""
    return frozenset(str(each.params[0]) for each in walk(node) if each.op == FOREIGN)


def _dependencies(node: Node) -> dict[str | None, dict[str, float]]:
    """Instrument (None: its own, `MARKET`: all of them) to field to rows back."""
    if node.op == FIELD:
        return {None: {str(node.params[0]): 0.0}}
    reach = _reach(node)
    found: dict[str | None, dict[str, float]] = {}
    for child in node.children:
        for instrument, fields in _dependencies(child).items():
            own = instrument is None and node.op == FOREIGN
            read = [str(node.params[0]) if own else instrument]
            for each in [*read, MARKET] if node.op in CROSS_SECTIONAL else read:
                deepest = found.setdefault(each, {})
                for name, rows in fields.items():
                    deepest[name] = max(deepest.get(name, -inf), rows + reach)
    return found


def _reach(node: Node) -> float:
    """Rows before the current one that an operator itself reads."""
    if node.op not in OPERATORS or OPERATORS[node.op].kind is OperatorKind.ELEMENT:
        return 0.0
    if node.window == 0 or node.op == "EMA":
        return inf
    return node.window if node.op in _SHIFTS else node.window - 1


def _error(text: str, column: int, reason: str) -> ConfigError:
    return ConfigError(f"{reason}\n  {text}\n  {' ' * (column - 1)}^ column {column}")


def _is_condition(node: Node | float) -> bool:
    """Whether a series is one of truth values: a comparison, or comparisons put together."""
    match node:
        case Node(op=op) if op in CONDITIONS:
            return True
        case Node(op="If", args=(_, *parts)) | Node(op="Greater" | "Less" | "Mul" | "ChangeInstrument", args=parts):
            return all(_is_condition(part) for part in parts)
        case _:
            return False


def _holds(condition: Node | float) -> Node | float:
    """A comparison of another instrument's series does not hold on a row that the other instrument lacks."""
    if isinstance(condition, Node) and condition.op == FOREIGN and _is_condition(condition):
        return Node("Eq", (condition, 1.0), (), condition.column)
    return condition


_PARSES = 10
"""How often an expression is parsed at most."""


def _tree_of(source: str) -> ast.Expression:
    """Python's tree; asked for again where two threads parse at once, which Python 3.11 may confuse.

    Its parser counts the depth of the tree for the whole process, and gives up (SystemError) if another thread has
    counted meanwhile.
    """
    for _ in range(_PARSES - 1):
        with contextlib.suppress(SystemError):
            return ast.parse(source, mode="eval")
    return ast.parse(source, mode="eval")


class _Parser:
    """Translates Python's tree of one expression into ours."""

    def __init__(self, text: str) -> None:
        self.text = text.replace("\n", " ").replace("\t", " ").rstrip()
        self.indent = len(self.text) - len(self.text.lstrip())

    def parse(self) -> Node:
        # A dollar sign is not Python; an underscore keeps every column, and no other name may begin with one.
        source = self.text.strip().replace("$", "_")
        try:
            node = self.translate(_tree_of(source).body)
        except SyntaxError as error:
            column = self.indent + max(error.offset or 1, 1)
            raise _error(self.text, column, f"not an expression: {error.msg}") from None
        except (RecursionError, MemoryError):
            raise _error(self.text, self.indent + 1, "too deeply nested") from None
        if not isinstance(node, Node):
            raise _error(self.text, self.indent + 1, "a constant is not a factor; use a field such as $close")
        return node

    def error(self, tree: ast.expr, reason: str) -> ConfigError:
        return _error(self.text, self.column(tree), reason)

    def column(self, tree: ast.expr) -> int:
        before = self.text.strip().encode()[: tree.col_offset].decode()
        return self.indent + len(before) + 1

    def translate(self, tree: ast.expr) -> Node | float:
        match tree:
            case ast.Constant(value=value):
                return self.number(value, tree)
            case ast.Name():
                return self.field(tree)
            case ast.Call():
                return self.call(tree)
            case ast.BinOp():
                return self.apply(self.operator(tree, tree.op), (tree.left, tree.right), tree)
            case ast.Compare(ops=[single]):
                return self.apply(self.operator(tree, single), (tree.left, tree.comparators[0]), tree)
            case ast.Compare():
                raise self.error(tree, "comparisons cannot be chained; join two with &")
            case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign):
                return self.signed(self.translate(tree.operand), sign, tree)
            case ast.BoolOp() | ast.UnaryOp():
                raise self.not_here(tree, tree.op)
            case _:
                raise self.not_here(tree, tree)

    def not_here(self, tree: ast.expr, what: ast.AST) -> ConfigError:
        symbol, instead = _INSTEAD.get(type(what), (type(what).__name__, ""))
        return self.error(tree, f"{symbol} is not part of the factor language" + (instead and f"; {instead}"))

    def signed(self, value: Node | float, sign: ast.unaryop, tree: ast.expr) -> Node | float:
        if isinstance(sign, ast.UAdd):
            return value
        return self.node("Mul", (value, -1.0), (), tree) if isinstance(value, Node) else -value

    def number(self, value: object, tree: ast.expr) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(tree, f"{value!r} is not a number")
        if not abs(value) <= sys.float_info.max:
            raise self.error(tree, "not a finite number")
        return float(value)

    def field(self, tree: ast.Name) -> Node:
        begin = self.text[self.column(tree) - 1 :]
        if begin.startswith("$$"):
            raise self.error(tree, f"a field with two dollar signs {_NO_PERIODS}")
        if not begin.startswith("$"):
            raise self.error(tree, f"unknown name {tree.id}; fields begin with a dollar sign; {_fields_like(tree.id)}")
        return self.field_named(tree.id[1:], tree)

    def field_named(self, name: str, tree: ast.expr) -> Node:
        if name not in BAR_FIELDS:
            raise self.error(tree, f"unknown field ${name}; {_fields_like(name)}")
        return Node(FIELD, (), (name,), self.column(tree))

    def operator(self, tree: ast.expr, op: ast.AST) -> str:
        name = _BINARY.get(type(op))
        if name is None:
            raise self.not_here(tree, op)
        return name

    def call(self, tree: ast.Call) -> Node:
        name = tree.func.id if isinstance(tree.func, ast.Name) else ast.unparse(tree.func)
        if name in REFUSED:
            raise self.error(tree, f"{name} {REFUSED[name]}")
        if name not in OPERATORS and name not in REWRITTEN and name not in CROSS_SECTIONAL:
            raise self.error(tree, f"unknown operator {name}; {hint(name, [*OPERATORS, *REWRITTEN, *CROSS_SECTIONAL])}")
        if name in CROSS_SECTIONAL:
            arity, meaning = 1, "series"
        elif name in REWRITTEN:
            arity, meaning = len(REWRITTEN[name]), ", ".join(REWRITTEN[name])
        else:
            arity, meaning = OPERATORS[name].arity, OPERATORS[name].kind.value
        if tree.keywords:
            raise self.error(tree, f"{name} takes its arguments without their names ({meaning})")
        if len(tree.args) != arity:
            raise self.error(tree, f"{name} takes {arity} arguments ({meaning}), got {len(tree.args)}")
        if name in CROSS_SECTIONAL:
            return Node(name, (self.series(tree.args[0], name),), (), self.column(tree))
        if name in REWRITTEN:
            return self.rewritten(name, tree)
        if OPERATORS[name].kind is not OperatorKind.ELEMENT:
            return self.windowed(name, tree.args, tree)
        node = self.apply(name, tuple(tree.args), tree)
        if not isinstance(node, Node):
            raise self.error(tree, f"{name} of constants is not a factor")
        return node

    def rewritten(self, name: str, tree: ast.Call) -> Node:
        given = dict(zip(REWRITTEN[name], tree.args, strict=True))
        if name == "Feature":
            return self.field_named(self.quoted(given["field"], "a field, such as 'close'"), tree)
        if name == "Rolling":
            function = self.quoted(given["function"], "a function of pandas, such as 'mean'")
            if function not in ROLLING:
                raise self.error(given["function"], f"unknown function {function}; {hint(function, ROLLING)}")
            return self.windowed(ROLLING[function], [given["series"], given["window"]], tree)
        instrument = self.quoted(given["instrument"], "an instrument, such as 'SH000300'")
        node = self.series(given["series"], name)
        # Of two nested instruments, the inner one is read.
        return node if node.op == FOREIGN else Node(FOREIGN, (node,), (instrument,), self.column(tree))

    def quoted(self, tree: ast.expr, what: str) -> str:
        """A name in quotation marks, as it was before its dollar signs were replaced."""
        if not isinstance(tree, ast.Constant) or not isinstance(tree.value, str) or not tree.value.strip():
            raise self.error(tree, f"expected {what}, in quotation marks")
        written = self.text.strip().encode()[tree.col_offset : tree.end_col_offset].decode()
        return str(ast.literal_eval(written))

    def windowed(self, name: str, parts: list[ast.expr], tree: ast.expr) -> Node:
        operator = OPERATORS[name]
        args = tuple(self.series(part, name) for part in parts[: operator.series])
        window = self.window(name, parts[operator.series])
        level = (self.level(parts[-1]),) if operator.kind is OperatorKind.QUANTILE else ()
        return self.node(name, args, (window, *level), tree)

    def series(self, tree: ast.expr, name: str) -> Node:
        node = self.translate(tree)
        if not isinstance(node, Node):
            raise self.error(tree, f"{name} needs a series here, got a constant")
        return node

    def apply(self, name: str, parts: tuple[ast.expr, ...], tree: ast.expr) -> Node | float:
        args = tuple(self.translate(part) for part in parts)
        match args:
            case (float(a), float(b)) if name in _ARITHMETIC:
                return self.fold(name, a, b, tree)
            case _ if all(isinstance(arg, float) for arg in args):
                raise self.error(tree, f"{name} of constants is not a factor")
        if name in {"And", "Or", "Not"}:
            for arg, part in zip(args, parts, strict=True):
                if not _is_condition(arg):
                    raise self.error(part, f"{name} joins comparisons, and this is not one")
        if name == "If" and not isinstance(args[0], Node):
            raise self.error(parts[0], "If needs a series here, got a constant")
        if name == "Add" and all(_is_condition(arg) for arg in args):
            raise self.error(tree, "a sum of two comparisons is 1 in Qlib where both hold; write Or, or If(..., 1, 0)")
        return self.node(name, args, (), tree)

    def node(self, name: str, args: tuple[Node | float, ...], params: tuple[float, ...], tree: ast.expr) -> Node:
        """An operator's node; where all its series are another instrument's, it is computed there, as in Qlib."""
        column = self.column(tree)
        series = [arg for arg in args if isinstance(arg, Node)]
        instruments = {arg.params if arg.op == FOREIGN else () for arg in series}
        if len(instruments) == 1 and instruments != {()}:
            inner = tuple(arg.args[0] if isinstance(arg, Node) else arg for arg in args)
            return Node(FOREIGN, (Node(name, inner, params, column),), instruments.pop(), column)
        if not params and all(_is_condition(arg) for arg in args):
            args = tuple(_holds(arg) for arg in args)
        elif name == "If":
            args = (_holds(args[0]), *args[1:])
        return Node(name, args, params, column)

    def fold(self, name: str, a: float, b: float, tree: ast.expr) -> float:
        try:
            return self.number(_ARITHMETIC[name](a, b), tree)
        except ArithmeticError:
            raise self.error(tree, "not a finite number") from None

    def window(self, name: str, tree: ast.expr) -> float:
        value = self.translate(tree)
        if not isinstance(value, float):
            raise self.error(tree, f"the window of {name} must be a number")
        if name == "EMA" and value > 0:
            return value
        if value != int(value):
            instead = "; for a share of the past use EMA" if 0 < value < 1 else ""
            raise self.error(tree, f"the window of {name} must be a whole number, got {value:g}{instead}")
        if name in {"Corr", "Cov"} and value == 0:
            raise self.error(tree, f"{name} has no expanding form; give a window of 1 or more")
        if name not in _SHIFTS and value != 0 and value < OPERATORS[name].least_window:
            raise self.error(
                tree, f"the window of {name} must be at least {OPERATORS[name].least_window}, got {value:g}"
            )
        if abs(value) > _LONGEST_WINDOW:
            raise self.error(tree, f"the window of {name} must be at most {_LONGEST_WINDOW}, got {value:g}")
        return value

    def level(self, tree: ast.expr) -> float:
        value = self.translate(tree)
        if not isinstance(value, float) or not 0 <= value <= 1:
            raise self.error(tree, "the level of Quantile must be a number from 0 to 1")
        return value


def _fields_like(name: str) -> str:
    return hint(f"${name}", [f"${each}" for each in BAR_FIELDS])
