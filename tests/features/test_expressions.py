"""The factor language: what it accepts, and where its errors point."""

from math import inf

import pytest

from mlops_tasks.errors import ConfigError
from mlops_tasks.features.engine import make_plan
from mlops_tasks.features.expressions import lookback, parse, parse_feature


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("Mean($close, 5)/Meen($close, 5)", 17, "unknown operator Meen"),
        ("$close/Mean($close)", 8, "Mean takes 2 arguments"),
        ("$close + Ref($close, -1)", 10, "Ref by -1 rows reads the future"),
        ("Mean(Delta($close, -2), 5)", 6, "Delta by -2 rows reads the future"),
        ("  Mean($clos, 5)", 8, "unknown field $clos"),
        ("Mean($close, $open)", 14, "the window of Mean must be a number"),
        ("Mean($close, 2.5)", 14, "the window of Mean must be a whole number"),
        ("Mean($close, -3)", 14, "the window of Mean must be at least 1"),
        ("Kurt($close, 3)", 14, "the window of Kurt must be at least 4"),
        ("Corr($close, $open, 0)", 21, "Corr has no expanding form"),
        ("Quantile($close, 5, 1.5)", 21, "level of Quantile"),
        ("Mean(3, 5)", 6, "Mean needs a series here"),
        ("$close < $open < $high", 1, "comparisons cannot be chained"),
        ("And($close, $open > 1)", 5, "And joins comparisons"),
        ("$close + close", 10, "unknown name"),
        ("$$roe + 1", 1, "unknown name"),
        ("$close // 2", 1, "FloorDiv is not part"),
        ("$close + 'a'", 10, "'a' is no number"),
        ("[$close]", 1, "List is not part"),
        ("1 + 2", 1, "a constant is no factor"),
        ("$close + )", 10, "not an expression"),
        ("", 1, "not an expression"),
    ],
)
def test_an_error_points_at_its_column(text: str, column: int, reason: str) -> None:
    """A mistake is named, and the caret stands under it."""
    with pytest.raises(ConfigError) as error:
        parse_feature(text)
    message = str(error.value)
    assert reason in message
    assert message.endswith(f"\n  {' ' * (column - 1)}^ column {column}")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("$close", 0),
        ("Ref($close, 3)", 3),
        ("Mean($close, 5)", 4),
        ("Mean(Ref($close, 1), 5) + Max($high, 2)", 5),
        ("Corr($close/Ref($close, 1), Log($volume), 60)", 60),
        ("Sum($close, 0)", inf),
        ("EMA($close, 5)", inf),
    ],
)
def test_lookback_counts_the_rows_before(text: str, rows: float) -> None:
    """The reach of an expression is the sum of the reaches along its deepest path."""
    assert lookback(parse(text)) == rows


def test_labels_may_see_the_future() -> None:
    """`parse` takes what `parse_feature` refuses."""
    assert parse("Ref($close, -2)/Ref($close, -1)-1").op == "Sub"


def test_python_precedence_and_constants() -> None:
    """Expressions bind as Python binds them, and constants are folded."""
    assert parse("$close-$open/2*3") == parse("Sub($close, Mul(Div($open, 2), 3))")
    assert parse("($close>1)&($open<2)") == parse("And(Gt($close, 1), Lt($open, 2))")
    assert parse("Mean($close, 2*5)") == parse("Mean($close, 10)")


def test_equal_parts_are_computed_once() -> None:
    """Two expressions that share a part, and windows of one operator, need one step each."""
    one = make_plan({"a": parse("Sum($close, 5)")})
    both = make_plan({"a": parse("Sum($close, 5)"), "b": parse("Sum($close, 9)"), "c": parse("Sum($close, 5)")})
    assert len(one.steps) == len(both.steps) == 1
