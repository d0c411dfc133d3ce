"""The engine's promises: values depend on the bars of their windows, and on nothing else that a caller chooses."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.errors import StoreError
from mlops_tasks.features import kernels
from mlops_tasks.features.alpha158 import alpha158
from mlops_tasks.features.engine import Plan, evaluate, plan_computation
from mlops_tasks.features.expressions import FIELD, Node, parse
from mlops_tasks.features.panel import Panel, build_panel

FIELDS = ("close", "high", "volume")
UNARY = ("Abs", "Sign", "Log", "Not")
PAIR = ("Power", "Add", "Sub", "Mul", "Div", "Greater", "Less", "Gt", "Ge", "Lt", "Le", "Eq", "Ne", "And", "Or")
WINDOWED = (
    "Mean", "Sum", "Count", "Std", "Var", "Max", "Min", "IdxMax", "IdxMin", "Med", "Mad", "Rank", "Slope", "Rsquare",
    "Resi", "WMA", "Skew", "Kurt",
)  # fmt: skip
WINDOWS = st.sampled_from([0, 1, 2, 3, 5, 8, 15, 35])


def nodes() -> st.SearchStrategy[Node]:
    """Random expressions of every operator, references to the future among them."""
    fields = st.sampled_from([Node(FIELD, (), (name,)) for name in FIELDS])

    def extend(child: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        operand = child | st.sampled_from([1e-12, 0.5, 1.0, 2.0])
        return st.one_of(
            st.builds(lambda op, x: Node(op, (x,)), st.sampled_from(UNARY), child),
            st.builds(lambda op, x, y: Node(op, (x, y)), st.sampled_from(PAIR), child, operand),
            st.builds(lambda x, y, z: Node("If", (x, y, z)), child, operand, operand),
            st.builds(lambda op, x, n: Node(op, (x,), (n,)), st.sampled_from(WINDOWED), child, WINDOWS),
            st.builds(
                lambda op, x, y, n: Node(op, (x, y), (n,)), st.sampled_from(["Corr", "Cov"]), child, child, WINDOWS
            ),
            st.builds(
                lambda x, n, q: Node("Quantile", (x,), (n, q)), child, WINDOWS, st.sampled_from([0.0, 0.2, 0.5, 1.0])
            ),
            st.builds(
                lambda op, x, n: Node(op, (x,), (n,)), st.sampled_from(["Ref", "Delta"]), child, st.integers(-4, 4)
            ),
            st.builds(lambda x, n: Node("EMA", (x,), (n,)), child, st.sampled_from([0, 0.3, 5])),
            st.builds(lambda x, name: Node("ChangeInstrument", (x,), (name,)), child, st.sampled_from(["A", "C"])),
        )

    return st.recursive(fields, extend, max_leaves=6)


def random_bars(seed: int, days: int = 70) -> pd.DataFrame:
    """Bars of four instruments with gaps, ties, flat stretches, a late listing and an early end."""
    random = np.random.default_rng(seed)
    frames = []
    for number, name in enumerate("ABCD"):
        close = 20 * np.exp(np.cumsum(random.normal(0, 0.02, days)))
        if number == 1:
            close = close.round(0)
        flat = random.integers(0, days - 30)
        close[flat : flat + 25] = close[flat]
        frame = pd.DataFrame({DATETIME: pd.bdate_range("2020-01-01", periods=days), INSTRUMENT: name, "close": close})
        frame["high"] = np.where(random.random(days) < 0.05, np.nan, close * (1 + random.random(days) / 50))
        frame["volume"] = random.lognormal(10, 1, days).round() * (random.random(days) > 0.1)
        first, last = (random.integers(0, 30), days - random.integers(0, 30)) if number > 1 else (0, days)
        kept = (random.random(days) > 0.1) & (np.arange(days) >= first) & (np.arange(days) < last)
        frames.append(frame[kept])
    return pd.concat(frames, ignore_index=True)


def panel_of(bars: pd.DataFrame) -> Panel:
    """The series of bars, over the days on which there is any."""
    return build_panel(bars, pd.DatetimeIndex(np.unique(bars[DATETIME])), FIELDS)


def everything(plan: Plan, panel: Panel, threads: int = 1) -> np.ndarray:
    """All expressions on all rows."""
    return evaluate(plan, panel, np.arange(panel.offsets[-1]), threads)


def named(expressions: list[Node]) -> Mapping[str, Node]:
    """Expressions under some names."""
    return {str(number): node for number, node in enumerate(expressions)}


EXPRESSIONS = st.lists(nodes(), min_size=1, max_size=4)


@settings(max_examples=150)
@given(EXPRESSIONS, st.integers(0, 5), st.data())
def test_wanted_rows_have_the_values_that_all_rows_have(
    expressions: list[Node], seed: int, data: st.DataObject
) -> None:
    """Whichever rows are wanted, in whatever order, each has the bits that it has when all are computed."""
    plan, panel = plan_computation(named(expressions)), panel_of(random_bars(seed))
    size = int(panel.offsets[-1])
    wanted = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=5, unique=True)))
    values = evaluate(plan, panel, panel.positions(wanted), threads=1)
    np.testing.assert_array_equal(values, everything(plan, panel)[:, wanted])


@settings(max_examples=100)
@given(EXPRESSIONS, st.integers(0, 5), st.integers(1, 60))
def test_a_panel_may_begin_where_the_windows_do(expressions: list[Node], seed: int, begin: int) -> None:
    """Without the bars before the lookback of a row its values are the same; only expanding windows know the first."""
    plan, bars = plan_computation(named(expressions)), random_bars(seed)
    whole = panel_of(bars)
    began = pd.Series(whole.rows[whole.offsets[:-1]], whole.instruments)
    later = bars[bars[DATETIME] >= whole.calendar[begin]].reset_index(drop=True)
    part = build_panel(later, whole.calendar[begin:], FIELDS, np.maximum(began - begin, 0))
    if np.isinf(plan.lookback_rows) or len(part.instruments) < 4:
        return
    kept = np.flatnonzero(part.rows >= plan.lookback_rows)
    same = np.flatnonzero(whole.rows >= plan.lookback_rows + begin)
    np.testing.assert_array_equal(everything(plan, part)[:, kept], everything(plan, whole)[:, same])


@settings(max_examples=50)
@given(EXPRESSIONS, st.integers(0, 5))
def test_expressions_do_not_influence_each_other(expressions: list[Node], seed: int) -> None:
    """Alone or among others, in one step with other windows or not, an expression has the same bits."""
    panel = panel_of(random_bars(seed))
    together = everything(plan_computation(named(expressions)), panel)
    for row, node in enumerate(expressions):
        np.testing.assert_array_equal(everything(plan_computation({"alone": node}), panel)[0], together[row])


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_and_threads_do_not_matter(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the instruments are cut into blocks, every bit is the same."""
    nodes = {name: parse(text) for name, text in alpha158().items()}
    bars = random_bars(0)
    bars = bars.assign(open=bars["close"].shift(1), low=bars["close"] * 0.99, vwap=bars["high"])
    plan = plan_computation(nodes)
    panel = build_panel(bars, pd.DatetimeIndex(np.unique(bars[DATETIME])), plan.fields)
    whole = everything(plan, panel)
    monkeypatch.setattr("mlops_tasks.features.engine._TILE_VALUES", 1)
    np.testing.assert_array_equal(everything(plan, panel, threads), whole)


def test_one_machine_serves_arrays_of_any_layout() -> None:
    """Strided and read-only arrays give the same values, and nothing is compiled for them."""
    panel, plan = panel_of(random_bars(0)), plan_computation({"mean": parse("Mean($close, 3)")})
    expected = everything(plan, panel)
    positions = np.arange(panel.offsets[-1])
    positions.flags.writeable = False
    rows = np.repeat(panel.rows, 2)[::2]
    values = evaluate(plan, replace(panel, rows=rows, fields={"close": panel.fields["close"]}), positions)
    np.testing.assert_array_equal(values, expected)
    assert len(kernels.run_block.signatures) == 1


def test_rows_that_nobody_wants_are_left_empty() -> None:
    """A column of the result that no row was given is NaN, and no wanted row makes an empty result."""
    panel, plan = panel_of(random_bars(0)), plan_computation({"close": parse("$close")})
    positions = np.full(panel.offsets[-1], -1)
    assert evaluate(plan, panel, positions).shape == (1, 0)
    positions[3] = 2
    values = evaluate(plan, panel, positions)
    np.testing.assert_array_equal(values[0], np.array([np.nan, np.nan, panel.fields["close"][3]], np.float32))


def test_another_instruments_factor_is_computed_on_its_own_rows() -> None:
    """Beta to `A`: its moving mean runs over the rows of `A`, whatever rows the instrument that looks it up has."""
    bars = random_bars(1)
    panel = panel_of(bars)
    mean = Node("ChangeInstrument", (parse("Mean($close, 5)"),), ("A",))
    plan = plan_computation(
        {"foreign": mean, "own": Node("Div", (parse("$close"), mean)), "later": Node("Ref", (mean,), (2.0,))}
    )
    values = everything(plan, panel, threads=2)
    closes = bars.pivot(index=DATETIME, columns=INSTRUMENT, values="close").astype(np.float32).astype(float)
    own = closes["A"].loc[closes["A"].first_valid_index() : closes["A"].last_valid_index()]
    expected = own.rolling(5, min_periods=1).mean().reindex(closes.index)
    for number, name in enumerate(panel.instruments):
        begin, end = panel.offsets[number : number + 2]
        days = panel.calendar[panel.rows[begin:end]]
        foreign = expected.reindex(days)
        np.testing.assert_allclose(values[0, begin:end], foreign, rtol=1e-6)
        np.testing.assert_allclose(values[1, begin:end], closes[name].reindex(days) / foreign, rtol=1e-6)
        np.testing.assert_allclose(values[2, begin:end], foreign.shift(2), rtol=1e-6)


def test_one_instrument_may_look_up_another_that_looks_up_a_third() -> None:
    """Nested references are computed from the inside out."""
    panel = panel_of(random_bars(2))
    inner = Node("ChangeInstrument", (parse("$close"),), ("C",))
    outer = Node("ChangeInstrument", (Node("Sub", (parse("$close"), inner)),), ("A",))
    plan = plan_computation({"nested": outer, "a": Node("ChangeInstrument", (parse("$close"),), ("A",)), "c": inner})
    nested, a, c = everything(plan, panel)
    np.testing.assert_allclose(nested, a - c, rtol=1e-4, atol=1e-5)
    assert np.isfinite(nested).mean() > 0.3


def test_an_instrument_that_is_not_there_is_named() -> None:
    """A reference to an instrument without bars is an error that names it."""
    plan = plan_computation({"x": Node("ChangeInstrument", (parse("$close"),), ("NOPE",))})
    with pytest.raises(StoreError, match="NOPE"):
        everything(plan, panel_of(random_bars(0)))


def test_windows_of_any_length_have_pandas_values() -> None:
    """Sums, spreads and extremes of every length from 1 to beyond the series are those of pandas."""
    random = np.random.default_rng(0)
    close = pd.Series(20 * np.exp(np.cumsum(random.normal(0, 0.02, 90)))).astype(np.float32).astype(float)
    close[random.random(90) < 0.1] = np.nan
    bars = pd.DataFrame({DATETIME: pd.bdate_range("2020-01-01", periods=90), INSTRUMENT: "A", "close": close})
    panel = build_panel(bars.assign(high=1.0, volume=1.0), pd.DatetimeIndex(bars[DATETIME]), FIELDS)
    for window in range(1, 101):
        texts = [f"{op}($close, {window})" for op in ("Sum", "Mean", "Var", "Max", "Min", "Med")]
        values = everything(plan_computation(named([parse(text) for text in texts])), panel)
        rolling = close.rolling(window, min_periods=1)
        expected = [rolling.sum(), rolling.mean(), rolling.var(), rolling.max(), rolling.min(), rolling.median()]
        np.testing.assert_allclose(values, expected, rtol=2e-5, err_msg=str(window))
