"""Qlib's factor language: text to a checked syntax tree.

Qlib evaluates an expression as Python after replacing `$close` by a feature object, so Python's own grammar gives the
precedence of every operator and the column of every error.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from math import inf

from mlops_tasks.columns import BAR_FIELDS
from mlops_tasks.errors import ConfigError


class Kind(Enum):
    """What the arguments of an operator are."""

    ELEMENT = "series"
    WINDOW = "series and a window"
    QUANTILE = "series, a window and a level"


@dataclass(frozen=True)
class Operator:
    """Signature of an operator: how many series it takes and what follows them."""

    series: int
    kind: Kind = Kind.ELEMENT
    least_window: int = 1

    @property
    def arity(self) -> int:
        """Number of arguments in the text."""
        return self.series + {Kind.ELEMENT: 0, Kind.WINDOW: 1, Kind.QUANTILE: 2}[self.kind]


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
    **{name: Operator(1, Kind.WINDOW) for name in _WINDOW},
    "Skew": Operator(1, Kind.WINDOW, least_window=3),
    "Kurt": Operator(1, Kind.WINDOW, least_window=4),
    "Quantile": Operator(1, Kind.QUANTILE),
    "Corr": Operator(2, Kind.WINDOW),
    "Cov": Operator(2, Kind.WINDOW),
}
"""Operators by Qlib's names. `Greater` and `Less` are the elementwise maximum and minimum, as in Qlib."""

CONDITIONS = frozenset({"Gt", "Ge", "Lt", "Le", "Eq", "Ne", "And", "Or", "Not"})
"""Operators whose values are 1 (true) or 0 (false), never NaN: a comparison with NaN is false."""

FIELD = "$"
_SHIFTS = frozenset({"Ref", "Delta"})

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


@dataclass(frozen=True)
class Node:
    """One operator applied to series; equal nodes compute equal values.

    `params` holds the field's name of a `$` node, the window of a rolling one, window and level of `Quantile`.
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
    """Calendar rows before the current one that a value depends on; infinite where it depends on the first row."""
    return max(dependencies(node).values())


def dependencies(node: Node) -> dict[str, float]:
    """The fields that a value depends on, each with the calendar rows before the current one that it reaches back.

    0 is the current row alone; windows of nested operators add up; infinite where the first row matters.
    """
    if node.op == FIELD:
        return {str(node.params[0]): 0.0}
    reach = _reach(node)
    found: dict[str, float] = {}
    for child in node.children:
        for name, rows in dependencies(child).items():
            found[name] = max(found.get(name, -inf), rows + reach)
    return found


def _reach(node: Node) -> float:
    """Rows before the current one that an operator itself reads."""
    if node.op not in OPERATORS or OPERATORS[node.op].kind is Kind.ELEMENT:
        return 0.0
    if node.window == 0 or node.op == "EMA":
        return inf
    return node.window if node.op in _SHIFTS else node.window - 1


def _error(text: str, column: int, reason: str) -> ConfigError:
    return ConfigError(f"{reason}\n  {text}\n  {' ' * (column - 1)}^ column {column}")


class _Parser:
    """Translates Python's tree of one expression into ours."""

    def __init__(self, text: str) -> None:
        self.text = text.replace("\n", " ").replace("\t", " ").rstrip()
        self.indent = len(self.text) - len(self.text.lstrip())

    def parse(self) -> Node:
        # A dollar sign is no Python; an underscore keeps every column, and no other name may begin with one.
        source = self.text.strip().replace("$", "_")
        try:
            tree = ast.parse(source, mode="eval").body
        except SyntaxError as error:
            column = self.indent + max(error.offset or 1, 1)
            raise _error(self.text, column, f"not an expression: {error.msg}") from None
        node = self.translate(tree)
        if not isinstance(node, Node):
            raise _error(self.text, self.indent + 1, "a constant is no factor; use a field such as $close")
        return node

    def error(self, tree: ast.expr, reason: str) -> ConfigError:
        return _error(self.text, self.column(tree), reason)

    def column(self, tree: ast.expr) -> int:
        before = self.text.strip().encode()[: tree.col_offset].decode()
        return self.indent + len(before) + 1

    def translate(self, tree: ast.expr) -> Node | float:
        match tree:
            case ast.Constant(value=value):
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise self.error(tree, f"{value!r} is no number")
                return float(value)
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
            case ast.UnaryOp(op=ast.USub()):
                return self.negative(tree)
            case _:
                raise self.error(tree, f"{type(tree).__name__} is not part of the factor language")

    def field(self, tree: ast.Name) -> Node:
        if self.text[self.column(tree) - 1] != "$" or tree.id.startswith("__"):
            raise self.error(tree, f"unknown name; fields begin with one dollar sign: {_field_names()}")
        name = tree.id[1:]
        if name not in BAR_FIELDS:
            raise self.error(tree, f"unknown field ${name}; known: {_field_names()}")
        return Node(FIELD, (), (name,), self.column(tree))

    def operator(self, tree: ast.expr, op: ast.AST) -> str:
        name = _BINARY.get(type(op))
        if name is None:
            raise self.error(tree, f"{type(op).__name__} is not part of the factor language")
        return name

    def negative(self, tree: ast.UnaryOp) -> Node | float:
        value = self.translate(tree.operand)
        return Node("Mul", (value, -1.0), (), self.column(tree)) if isinstance(value, Node) else -value

    def call(self, tree: ast.Call) -> Node:
        if not isinstance(tree.func, ast.Name) or tree.func.id not in OPERATORS:
            name = tree.func.id if isinstance(tree.func, ast.Name) else ast.unparse(tree.func)
            raise self.error(tree, f"unknown operator {name}; known: {', '.join(sorted(OPERATORS))}")
        name, operator = tree.func.id, OPERATORS[tree.func.id]
        if tree.keywords or len(tree.args) != operator.arity:
            given = len(tree.args) + len(tree.keywords)
            raise self.error(tree, f"{name} takes {operator.arity} arguments ({operator.kind.value}), got {given}")
        series = tree.args[: operator.series]
        if operator.kind is Kind.ELEMENT:
            node = self.apply(name, tuple(series), tree)
            if not isinstance(node, Node):
                raise self.error(tree, f"{name} of constants is no factor")
            return node
        args = tuple(self.translate(each) for each in series)
        for arg, each in zip(args, series, strict=True):
            if not isinstance(arg, Node):
                raise self.error(each, f"{name} needs a series here, got a constant")
        window = self.window(name, tree.args[operator.series])
        level = (self.level(tree.args[-1]),) if operator.kind is Kind.QUANTILE else ()
        return Node(name, args, (window, *level), self.column(tree))

    def apply(self, name: str, parts: tuple[ast.expr, ...], tree: ast.expr) -> Node | float:
        args = tuple(self.translate(part) for part in parts)
        if all(isinstance(arg, float) for arg in args):
            return self.fold(name, args, tree)
        if name in {"And", "Or", "Not"}:
            for arg, part in zip(args, parts, strict=True):
                if not isinstance(arg, Node) or arg.op not in CONDITIONS:
                    raise self.error(part, f"{name} joins comparisons, and this is none")
        return Node(name, args, (), self.column(tree))

    def fold(self, name: str, args: tuple[Node | float, ...], tree: ast.expr) -> float:
        match name, args:
            case "Add", (float(a), float(b)):
                return a + b
            case "Sub", (float(a), float(b)):
                return a - b
            case "Mul", (float(a), float(b)):
                return a * b
            case "Div", (float(a), float(b)) if b != 0:
                return a / b
            case "Power", (float(a), float(b)) if a > 0:
                return float(a**b)
            case _:
                raise self.error(tree, f"{name} of constants is no factor")

    def window(self, name: str, tree: ast.expr) -> float:
        value = self.translate(tree)
        if not isinstance(value, float):
            raise self.error(tree, f"the window of {name} must be a number")
        if name == "EMA" and 0 < value < 1:
            return value
        if value != int(value):
            raise self.error(tree, f"the window of {name} must be a whole number, got {value:g}")
        if name in {"Corr", "Cov"} and value == 0:
            raise self.error(tree, f"{name} has no expanding form; give a window of 1 or more")
        if name not in _SHIFTS and value != 0 and value < OPERATORS[name].least_window:
            raise self.error(
                tree, f"the window of {name} must be at least {OPERATORS[name].least_window}, got {value:g}"
            )
        return value

    def level(self, tree: ast.expr) -> float:
        value = self.translate(tree)
        if not isinstance(value, float) or not 0 <= value <= 1:
            raise self.error(tree, "the level of Quantile must be a number from 0 to 1")
        return value


def _field_names() -> str:
    return ", ".join(f"${name}" for name in BAR_FIELDS)
