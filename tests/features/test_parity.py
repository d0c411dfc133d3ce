"""Values against Qlib's own, and against a plain reference where the two differ."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from qlib.contrib.data.loader import Alpha158DL, Alpha360DL
from qlib.data.ops import OpsList

from mlops_tasks.errors import ConfigError
from mlops_tasks.features.alpha158 import alpha158
from mlops_tasks.features.alpha360 import alpha360
from mlops_tasks.features.expressions import REFUSED, parse
from mlops_tasks.features.labels import forward_return, forward_returns, label_dates, label_expressions
from tests.features.brute_force import Reference
from tests.features.parity import FLOAT32, Market, differs, is_at_hand, market_of, real_bars, wrong

SETS: dict[str, Mapping[str, str]] = {"alpha158": alpha158(), "alpha360": alpha360()}

DRIFTING = re.compile(r"(CORR|CORD|VSTD|WVMA)\d+")
"""Columns in which Qlib rounds to float32 in between, or keeps a residue of what has left the window."""

RESIDUE = {"RSQR30", "RSQR60"}
"""NaN for a constant window, in which Qlib sees a spread of 2.7e-5, just above what it takes for constant: in awkward
markets, which have flat stretches, and not in 70 real instruments."""

WINDOWED = (
    "Mean", "Sum", "Count", "Std", "Var", "Skew", "Kurt", "Max", "Min", "IdxMax", "IdxMin", "Med", "Mad", "Rank",
    "Slope", "Rsquare", "Resi", "WMA", "EMA", "Ref", "Delta",
)  # fmt: skip

OPERATORS = {
    **{f"{op}{n}": f"{op}($close, {n})" for op in WINDOWED for n in (4, 23)},
    **{f"{op}_of_volume": f"{op}($volume, 9)" for op in WINDOWED},
    **{f"{op}_of_ratio": f"{op}($close/$open, 11)" for op in WINDOWED},
    **{f"{op}_of_condition": f"{op}($close>$open, 6)" for op in WINDOWED},
    **{f"{op}_expanding": f"{op}($close, 0)" for op in WINDOWED},
    **{f"{op}_window_1": f"{op}($close, 1)" for op in WINDOWED if op not in {"Skew", "Kurt"}},
    "ahead": "Ref($close, -3)/$close - Delta($close, -2)",
    "ema_alpha": "EMA($close, 0.3)",
    "ema_span": "EMA($close, 2.5)",
    "ema_span_1_with_nan": "EMA(Log($close-$open), 1)",
    "rsquare_of_nearly_constant": "Rsquare(1+$close*1e-9, 0) + Rsquare(1+$close*1e-9, 9)",
    "rsquare_expanding_of_nearly_constant": "Rsquare($close*1e-8, 0)",
    "quantile": "Quantile($high, 7, 0.35)",
    "quantile_expanding": "Quantile($high, 0, 0.8)",
    "cov": "Cov($close, $volume, 12)",
    "corr": "Corr($close, $high, 12)",
    "corr_of_volume": "Corr($close, Log($volume+1), 12)",
    "sign": "Sign($close-$open)",
    "abs": "Abs($close-$open)",
    "power": "Power($close, 2) + $open**0.5 + 2**($open/$close)",
    "reflected": "1 + 2*$close - (3 - $open) + 5/$open + (1 > $close/$open)",
    "condition": "If(($close>$open)&($volume>0), $close, 0-$open)",
    "either": "If(Or($close>=$high, Not($close<=$low)), 1, $low)",
    "number_as_condition": "If($volume, $close, $open)",
    "bar_or": "If(($close>=$high)|($close<=$low), $open, Feature('low'))",
    "truth_of_truths": "If(And(If($close>$open, $close>$low, $open>$low), Greater($volume>0, $close<0)), 1, 2)",
    "equal": "Sum($close==Ref($close, 1), 9) - Sum($close!=$open, 9)",
    "equal_words": "Sum(Eq($close, Ref($close, 1)), 9) - Sum(Ne($close, $open), 9)",
    "words": "Div(Mul(Add($close, 1), Sub($open, 2)), Greater($high, Less($low, 3)))",
    "compare": "Sum(Ge($close, $open), 5) + Sum(Lt($close, $open), 5) + Sum(Gt($close, $low), 3) + Sum(Le($low, 9), 2)",
    **{f"rolling_{name}": f"Rolling($close, 8, '{name}')" for name in (
        "count", "kurt", "max", "mean", "median", "min", "skew", "std", "sum", "var",
    )},
    "other": "ChangeInstrument('I00', $close/Ref($close, 1)-1)",
    "other_of_other": "ChangeInstrument('I01', ChangeInstrument('I00', $close))",
    "window_of_other": "Mean(ChangeInstrument('I01', $close), 5)",
    "mask": "Std(Mask($close, 'I03'), 9)*2 + $close",
    "covariance": "Cov($close/Ref($close, 1), Mask($close/Ref($close, 1), 'I00'), 20)",
    "relative": "Sum(Log($close/Mask($close, 'I01')), 7)",
}  # fmt: skip
"""I00 has a bar on every day, I01 is listed late and has gaps."""

MAGNIFIED = {"Skew_of_ratio": 0.05, "Kurt_of_ratio": 0.05, "Rsquare_of_ratio": 1e-3, "corr_of_volume": 2e-3}
"""Shares of values that differ because Qlib rounds what it computes them from to float32."""


@pytest.mark.parametrize(("ours", "theirs"), [(alpha158(), Alpha158DL), (alpha360(), Alpha360DL)])
def test_the_lists_are_qlibs(ours: dict[str, str], theirs: type) -> None:
    """Names and expressions of Alpha158 and Alpha360 are those of Qlib's default configurations, in order."""
    texts, names = theirs.get_feature_config()
    assert list(ours.items()) == list(zip(names, texts, strict=True))


@pytest.fixture(scope="module", params=["awkward", "us_sp500_5yr", "cn_csi300_qlib_2010_2026"])
def bars(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Market:
    """An awkward market; 40 American and 30 Chinese instruments with all their history, suspensions among it."""
    if request.param == "awkward":
        return request.getfixturevalue("market")
    home = tmp_path_factory.mktemp("real")
    return market_of(home, real_bars(home, request.param, 40 if request.param == "us_sp500_5yr" else 30))


@pytest.mark.parametrize("name", SETS)
def test_a_set_equals_qlibs_or_is_the_closer_one(name: str, bars: Market, request: pytest.FixtureRequest) -> None:
    """Same NaN positions, 99.99% of each column within 1e-4; where they differ the reference sides with the engine."""
    ours, theirs = bars.by_engine(SETS[name]), bars.by_qlib(SETS[name])
    other_nan = (ours.isna() != theirs.isna()).sum()
    residue = set(other_nan.index[other_nan > 0])
    assert residue <= (set() if is_at_hand(request.node.callspec.params["bars"]) else RESIDUE)
    assert other_nan.max() <= 3e-3 * len(ours)
    assert ours.notna().to_numpy().mean() > 0.8
    share = differs(ours, theirs, FLOAT32).mean()
    steady = [column for column in ours if not DRIFTING.fullmatch(column) and column not in residue]
    assert len(steady) == len(ours.columns) - len(residue) - (20 if name == "alpha158" else 0)
    assert share[steady].max() <= 1e-4, share[steady].nlargest(5)
    judged = bars.judge(ours, theirs, SETS[name])
    assert len(judged) == differs(ours, theirs).to_numpy().sum()
    assert wrong(judged).empty, wrong(judged).head(10)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("panel", ["us_sp500_5yr", "cn_csi300_qlib_2010_2026"])
def test_whole_panels_equal_qlibs(panel: str, tmp_path: Path) -> None:
    """The same of every instrument of both panels, 50 at a time; long suspensions leave residues in more columns."""
    whole = market_of(tmp_path, real_bars(tmp_path, panel, 0))
    names = whole.vintage.instrument_names()
    for name, expressions in SETS.items():
        apart, far, other_nan = (pd.Series(0, list(expressions)) for _ in range(3))
        for first in range(0, len(names), 50):
            batch = names[first : first + 50]
            ours, theirs = whole.by_engine(expressions, batch), whole.by_qlib(expressions, batch)
            other_nan = other_nan + (ours.isna() != theirs.isna()).sum()
            assert wrong(whole.judge(ours, theirs, expressions)).empty
            apart, far = apart + differs(ours, theirs).sum(), far + differs(ours, theirs, FLOAT32).sum()
        family = [re.sub(r"\d+$", "", column) if name == "alpha158" else "all" for column in expressions]
        counts = pd.DataFrame({"apart": apart, "far": far, "other_nan": other_nan})
        print(panel, name, whole.vintage.rows, counts.groupby(family).sum().query("apart > 0"))
        suspended = re.compile(rf"{DRIFTING.pattern}|(STD|RSQR)\d+")
        steady = [column for column in expressions if not suspended.fullmatch(column)]
        assert far[steady].max() <= 1e-4 * whole.vintage.rows
        assert other_nan[steady].max() == 0
        assert other_nan.sum() <= 1e-5 * whole.vintage.rows * len(expressions)


def test_every_operator_of_qlib_is_compared_or_refused() -> None:
    """The table of comparisons below names each operator that Qlib has, but for those that are refused."""
    named = {name for text in OPERATORS.values() for name in re.findall(r"(\w+)\(", text)}
    symbols = {"ChangeInstrument", "Mask"}
    assert {operator.__name__ for operator in OpsList} <= named | symbols | REFUSED.keys()


@pytest.fixture(scope="module")
def reference(market: Market) -> Reference:
    """The plain reference over the awkward market."""
    return Reference(market.panel())


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_equals_qlibs(name: str, market: Market, reference: Reference) -> None:
    """An operator has the reference's value everywhere, and Qlib's where Qlib is not further from the reference."""
    from qlib.data.cache import H

    H.clear()  # Qlib's cache takes `Rolling` with another function for the same
    expression = {name: OPERATORS[name]}
    ours, theirs = market.by_engine(expression), market.by_qlib(expression)
    node, true = parse(OPERATORS[name]), pd.Series(np.nan, ours.index)
    for instrument, rows in ours.groupby(level="instrument").indices.items():
        at = market.calendar.get_indexer(ours.index[rows].get_level_values(0)) - reference.first_row[instrument]
        true.iloc[rows] = reference.values(node, instrument, 0, reference.length[instrument])[at]
    np.testing.assert_allclose(ours[name], true, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ours[name].isna(), theirs[name].isna())
    assert wrong(market.judge(ours, theirs, expression)).empty
    scale = theirs.abs().max().item()
    assert differs(ours, theirs, 2e-6 * scale).to_numpy().mean() <= MAGNIFIED.get(name, 1e-4)


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("TResample($close, 'W', 'sum')", TypeError),
        ("Corr($close, $open, 0)", ValueError),
        ("Cov($close, $open, 0)", ValueError),
        ("Mean($close, 2.5)", ValueError),
        ("~($close > 1)", TypeError),
        ("$close > 1 and $open > 1", SyntaxError),
        ("$close if $open > 1 else 2", SyntaxError),
        ("And($close, $open > 1)", TypeError),
    ],
)
def test_what_is_refused_fails_in_qlib_too(text: str, failure: type[Exception], market: Market) -> None:
    """Some of what the language refuses never worked."""
    with pytest.raises(ConfigError):
        parse(text)
    with pytest.raises(failure):
        market.by_qlib({"x": text})


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("($close > $open) + ($close > $low)", "Or($close > $open, $close > $low)"),
        ("($open < $close < $high)", "$close < $high"),
        ("Mean($close, 0.5)", "EMA($close, 0.5)"),
    ],
)
def test_what_is_refused_means_something_else_in_qlib(text: str, meant: str, market: Market) -> None:
    """The rest of what is refused is computed by Qlib, but is not what it says."""
    with pytest.raises(ConfigError):
        parse(text)
    theirs = market.by_qlib({"x": text, "meant": meant})
    pd.testing.assert_series_equal(theirs["x"], theirs["meant"], check_names=False)


HORIZONS = (1, 5, 20)


def test_labels_equal_qlibs(market: Market) -> None:
    """Forward returns of all horizons are those of Qlib's label expressions, one row a bar, NaN in the same places."""
    labels, theirs = forward_returns(market.vintage, HORIZONS), market.by_qlib(label_expressions(HORIZONS))
    assert list(labels) == ["label_1", "label_5", "label_20"]
    pd.testing.assert_frame_equal(labels, theirs, rtol=1e-4, atol=1e-6)
    pd.testing.assert_series_equal(forward_return(market.vintage, 5), labels["label_5"].rename("label"))


def test_label_of_a_known_series(market: Market) -> None:
    """Horizon 1 is close(t+2) / close(t+1) - 1 on adjusted closes, NaN on an instrument's last two days."""
    close = market.bars[market.bars["instrument"] == "I00"].set_index("datetime")["close"]
    label = forward_return(market.vintage, 1).xs("I00", level="instrument")
    np.testing.assert_allclose(label, close.shift(-2) / close.shift(-1) - 1, rtol=1e-4, atol=1e-6)
    assert label.isna().sum() == 2


def test_a_label_is_the_return_between_its_two_dates(market: Market) -> None:
    """The closes of the stated first tradable day and of the day on which the label is known give the label."""
    close = market.bars[market.bars["instrument"] == "I00"].set_index("datetime")["close"]
    for horizon in HORIZONS:
        dates = label_dates(market.calendar, horizon)
        label = forward_return(market.vintage, horizon).xs("I00", level="instrument")
        pd.testing.assert_series_equal(dates["known"].isna(), label.isna(), check_names=False, check_freq=False)
        known = dates.dropna()
        expected = close[known["known"]].to_numpy() / close[known["first_tradable"]].to_numpy() - 1
        np.testing.assert_allclose(label[known.index], expected, rtol=1e-4, atol=1e-6)


def test_a_horizon_below_one_is_refused() -> None:
    """A return over no day is no label."""
    with pytest.raises(ConfigError, match="it must be 1 or more"):
        label_expressions([5, 0])
