"""The factor language: what it accepts, and where its errors point."""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from math import inf

import pytest

from mlops_tasks.errors import ConfigError
from mlops_tasks.features.engine import plan_computation
from mlops_tasks.features.expressions import (
    dependencies,
    foreign_dependencies,
    foreign_instruments,
    lookback,
    parse,
    parse_feature,
)


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("Mean($close, 5)/Meen($close, 5)", 17, "unknown operator Meen"),
        ("Mean($close, 5)/Meen($close, 5)", 17, "did you mean Mean"),
        ("1 + mean($close, 5)", 5, "did you mean Mean"),
        ("$close/Mean($close)", 8, "Mean takes 2 arguments"),
        ("$close/Mean($close, N=5)", 8, "Mean takes its arguments without their names"),
        ("$close + Ref($close, -1)", 10, "Ref by -1 rows reads the future"),
        ("Mean(Delta($close, -2), 5)", 6, "Delta by -2 rows reads the future"),
        ("ChangeInstrument('SPY', Ref($close, -1))", 25, "Ref by -1 rows reads the future"),
        ("  Mean($clos, 5)", 8, "unknown field $clos; did you mean $close"),
        ("Mean($close, $open)", 14, "the window of Mean must be a number"),
        ("Mean($close, 2.5)", 14, "the window of Mean must be a whole number"),
        ("Mean($close, -3)", 14, "the window of Mean must be at least 1"),
        ("Kurt($close, 3)", 14, "the window of Kurt must be at least 4"),
        ("Corr($close, $open, 0)", 21, "Corr has no expanding form"),
        ("Quantile($close, 5, 1.5)", 21, "level of Quantile"),
        ("Mean($close, 0.5)", 14, "for a share of the past use EMA"),
        ("Mean($close, 1e10)", 14, "the window of Mean must be at most"),
        ("EMA($close, -1)", 13, "the window of EMA must be at least 1"),
        ("Mean(3, 5)", 6, "Mean needs a series here"),
        ("If(1, $close, $open)", 4, "If needs a series here"),
        ("1 + Abs(-3)", 5, "Abs of constants is not a factor"),
        ("ChangeInstrument('SPY', 1)", 25, "ChangeInstrument needs a series here"),
        ("ChangeInstrument($close, 'SPY')", 18, "expected an instrument"),
        ("Mask('SPY', $close)", 13, "expected an instrument"),
        ("Rolling($close, 5, mean)", 20, "expected a function of pandas"),
        ("Rolling($close, 5, 'avg')", 20, "unknown function avg"),
        ("Rolling($close, 3, 'kurt')", 17, "the window of Kurt must be at least 4"),
        ("Feature('clos')", 1, "did you mean $close"),
        ("$close + TResample($close, 'W', 'sum')", 10, "TResample needs dates"),
        ("P($$roe)", 1, "P reads data by reporting period"),
        ("PRef($$roe, 201901)", 1, "PRef reads data by reporting period"),
        ("$close < $open < $high", 1, "comparisons cannot be chained"),
        ("And($close, $open > 1)", 5, "And joins comparisons"),
        ("($close > 1) + ($open > 1)", 1, "a sum of two comparisons"),
        ("~($close > 1)", 1, "~ is not part of the factor language; write Not(...)"),
        ("not $close > 1", 1, "not is not part of the factor language; write Not(...)"),
        ("$close > 1 and $open > 1", 1, "and is not part of the factor language; join comparisons with &"),
        ("$close if $open > 1 else 2", 1, "write If(condition, series, series)"),
        ("$close + close", 10, "unknown name close; fields begin with a dollar sign; did you mean $close"),
        ("$$roe + 1", 1, "two dollar signs reads data by reporting period"),
        ("$close // 2", 1, "FloorDiv is not part"),
        ("$close + 'a'", 10, "'a' is not a number"),
        ("[$close]", 1, "List is not part"),
        ("1 + 2", 1, "a constant is not a factor"),
        ("$close + 1e999", 10, "not a finite number"),
        ("$close + 1/0", 10, "not a finite number"),
        ("$close + (-1)**0.5", 10, "is not a number"),
        ("+".join(["$close"] * 5000), 1, "too deeply nested"),
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
        ("Rolling(Ref($close, 2), 5, 'median')", 6),
        ("ChangeInstrument('SPY', Mean($close, 9))", 8),
        ("Mean($close/ChangeInstrument('SPY', Ref($close, 3)), 5) + Ref($open, 6)", 7),
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
    assert parse("Ref($close, +1)*2**-1") == parse("Ref($close, 1)*0.5")
    assert parse("-$close**2") == parse("Mul(Power($close, 2), -1)")


def test_names_in_quotation_marks() -> None:
    """`Feature` is a field, `Rolling` the operator of its function, `Mask` is `ChangeInstrument`; names are kept."""
    assert parse("Feature('close')/2") == parse("$close/2")
    assert parse("Rolling($close, 5, 'median')") == parse("Med($close, 5)")
    assert parse("Mask($close, 'SPY')") == parse("ChangeInstrument('SPY', $close)")
    assert parse("ChangeInstrument('BRK$A', $close)").params == ("BRK$A",)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Mean(ChangeInstrument('SPY', $close), 5)", "ChangeInstrument('SPY', Mean($close, 5))"),
        ("Mask($close, 'SPY')*2 > Mask($open, 'SPY')", "Mask($close*2 > $open, 'SPY')"),
        ("ChangeInstrument('SPY', ChangeInstrument('QQQ', $close))", "ChangeInstrument('QQQ', $close)"),
        ("Corr(Mask($close, 'SPY'), Ref(Mask($open, 'SPY'), 1), 5)", "Mask(Corr($close, Ref($open, 1), 5), 'SPY')"),
    ],
)
def test_what_is_all_of_another_instrument_is_computed_there(text: str, same: str) -> None:
    """A window over another instrument's series is that of its own days, as in Qlib."""
    assert parse(text) == parse(same)


@pytest.mark.parametrize(
    ("text", "own", "foreign"),
    [
        ("$close", {"close": 0}, {}),
        ("Mean(Mask($close, 'SPY'), 5)", {}, {"SPY": {"close": 4}}),
        (
            "Corr($close/Ref($close, 1), Mask($close/Ref($close, 1), 'SPY'), 10)",
            {"close": 10},
            {"SPY": {"close": 10}},
        ),
        (
            "Mask($close/Ref(Mask($open, 'QQQ'), 2), 'SPY') - Mask(Sum($volume, 0), 'SPY')*$low",
            {"low": 0},
            {"SPY": {"close": 0, "volume": inf}, "QQQ": {"open": 2}},
        ),
    ],
)
def test_foreign_dependencies(text: str, own: dict[str, float], foreign: dict[str, dict[str, float]]) -> None:
    """What is read of other instruments is stated for each, apart from what is read of the own one."""
    node = parse(text)
    assert dependencies(node) == own
    assert foreign_dependencies(node) == foreign
    assert foreign_instruments(node) == foreign.keys()


def test_equal_parts_are_computed_once() -> None:
    """Two expressions that share a part, and windows of one operator, need one step each."""
    one = plan_computation({"a": parse("Sum($close, 5)")})
    both = plan_computation({"a": parse("Sum($close, 5)"), "b": parse("Sum($close, 9)"), "c": parse("Sum($close, 5)")})
    assert len(one.steps) == len(both.steps)


def test_threads_may_parse_at_once() -> None:
    """Python 3.11's own parser gives up now and then (SystemError) if another thread parses, too: garbage is collected
    here as often as can be, which lets the others run."""
    text = "Mean(If(Gt($close/Ref($close, 1) - 1, 0), $close/Ref($close, 1) - 1, 0), 20)/(Std($close, 5) + 1e-12)"
    expected, found = parse(text), []

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            sum(range(50))

    def work(count: int) -> None:
        for _ in range(count):
            Garbage()
            found.append(parse(text) == expected)

    before, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(1)
    try:
        with ThreadPoolExecutor(4) as threads:
            for each in [threads.submit(work, 1000) for _ in range(4)]:
                each.result()
    finally:
        sys.setswitchinterval(before)
        gc.set_threshold(*threshold)
    assert found == [True] * 4000
