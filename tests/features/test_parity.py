"""Values against Qlib's own, and against a plain reference where the two differ."""

import numpy as np
import pandas as pd
import pytest
from qlib.contrib.data.loader import Alpha158DL

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.features.alpha158 import alpha158
from mlops_tasks.features.engine import evaluate, make_plan
from mlops_tasks.features.expressions import parse
from mlops_tasks.features.labels import forward_return, label_expression
from mlops_tasks.features.panel import Panel, build_panel
from tests.features.brute_force import value_of
from tests.features.conftest import Evaluate

WINDOWED = (
    "Mean", "Sum", "Count", "Std", "Var", "Skew", "Kurt", "Max", "Min", "IdxMax", "IdxMin", "Med", "Mad", "Rank",
    "Slope", "Rsquare", "Resi", "WMA", "EMA", "Ref", "Delta",
)  # fmt: skip

OPERATORS = {
    **{f"{op}{n}": f"{op}($close, {n})" for op in WINDOWED for n in (4, 23)},
    # Qlib rounds the ratio to float32, which the third and fourth moments magnify.
    **{f"{op}_of_ratio": f"{op}($close/$open, 11)" for op in WINDOWED if op not in {"Skew", "Kurt"}},
    **{f"{op}_expanding": f"{op}($close, 0)" for op in WINDOWED if op not in {"IdxMax", "IdxMin", "Resi"}},
    "ema_alpha": "EMA($close, 0.3)",
    "quantile": "Quantile($high, 7, 0.35)",
    "cov": "Cov($close, $volume, 12)",
    "corr": "Corr($close, $high, 12)",
    "sign": "Sign($close-$open)",
    "power": "Power($close, 2) + $open**0.5",
    "condition": "If(($close>$open)&($volume>0), $close, 0-$open)",
    "either": "If(Or($close>=$high, Not($close<=$low)), 1, $low)",
    "equal": "Sum($close==Ref($close, 1), 9) - Sum($close!=$open, 9)",
    "words": "Div(Mul(Add($close, 1), Sub($open, 2)), Greater($high, Less($low, 3)))",
    "compare": "Sum(Ge($close, $open), 5) + Sum(Lt($close, $open), 5) + Sum(Gt($close, $low), 3) + Sum(Le($low, 9), 2)",
}


def test_the_list_is_qlibs() -> None:
    """Names and expressions of Alpha158 are those of Qlib's default configuration, in order."""
    texts, names = Alpha158DL.get_feature_config()
    assert list(alpha158().items()) == list(zip(names, texts, strict=True))


@pytest.fixture(scope="module")
def both(by_qlib: Evaluate, by_engine: Evaluate) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Alpha158 by the engine and by Qlib."""
    return by_engine(alpha158()), by_qlib(alpha158())


def test_alpha158_equals_qlib_or_is_the_closer_one(
    market: tuple[Settings, Vintage], both: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    """All 158 columns agree with Qlib; where they do not, the plain float64 reference sides with the engine."""
    ours, theirs = both
    assert ours.index.equals(theirs.index)
    differs = _differs(ours, theirs)
    truth = _reference(market[1], alpha158(), differs)
    assert len(truth) == differs.to_numpy().sum()
    for (day, instrument, name), true in truth.items():
        own, other = ours.at[(day, instrument), name], theirs.at[(day, instrument), name]
        context = f"{name} {instrument} {day}: ours {own}, Qlib {other}, reference {true}"
        assert np.isnan(own) == np.isnan(true), context
        # One unit in the last place is allowed: both may be the float32 nearest to the truth but for rounding.
        assert np.isnan(true) or abs(own - true) <= abs(other - true) + 1e-6 * max(abs(true), 1e-9), context


def test_alpha158_differs_from_qlib_only_where_qlib_drifts(both: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """99.99% of the values agree within 1e-4, but for families in which Qlib's running sums leave a residue."""
    ours, theirs = both
    drifting = ours.columns.str.startswith(("STD", "VSTD", "WVMA", "CORR", "CORD"))
    share = _differs(ours, theirs).loc[:, ~drifting].to_numpy().mean()
    assert share < 1e-4


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_equals_qlibs(name: str, by_qlib: Evaluate, by_engine: Evaluate) -> None:
    """An operator has Qlib's values and NaN positions, up to Qlib's float32 intermediates."""
    expression = {name: OPERATORS[name]}
    ours, theirs = by_engine(expression)[name].to_numpy(), by_qlib(expression)[name].to_numpy(np.float64)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-6 * np.nanmax(np.abs(theirs)))


@pytest.mark.parametrize("horizon", [1, 5])
def test_label_equals_qlibs(horizon: int, market: tuple[Settings, Vintage], by_qlib: Evaluate) -> None:
    """The forward return is Qlib's label expression, one value a bar, NaN in the same places."""
    label = forward_return(market[1], horizon)
    theirs = by_qlib({"label": label_expression(horizon)})["label"]
    assert label.index.names == ["datetime", "instrument"]
    assert label.index.equals(theirs.index)
    np.testing.assert_allclose(label, theirs, rtol=1e-4, atol=1e-6)


def test_label_of_a_known_series(market: tuple[Settings, Vintage]) -> None:
    """Horizon 1 is close(t+2) / close(t+1) - 1 on adjusted closes, NaN on an instrument's last two days."""
    _, vintage = market
    bars = vintage.adjusted_bars()
    close = bars[bars["instrument"] == "I00"].set_index("datetime")["close"]
    label = forward_return(vintage, 1).xs("I00", level="instrument")
    np.testing.assert_allclose(label, close.shift(-2) / close.shift(-1) - 1, rtol=1e-4, atol=1e-6)
    assert label.isna().sum() == 2


def test_blocks_and_threads_do_not_matter(market: tuple[Settings, Vintage], monkeypatch: pytest.MonkeyPatch) -> None:
    """However the instruments are cut into blocks, every bit is the same."""
    plan = make_plan({name: parse(text) for name, text in alpha158().items()})
    panel = _panel(market[1], plan.fields)
    positions = np.arange(panel.offsets[-1])
    whole = evaluate(plan, panel, positions, threads=1)
    monkeypatch.setattr("mlops_tasks.features.engine._BLOCK_VALUES", 300)
    np.testing.assert_array_equal(evaluate(plan, panel, positions, threads=2), whole)


def _differs(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    apart = (ours - theirs).abs() > 1e-4 * theirs.abs() + 1e-12
    return apart | (ours.isna() != theirs.isna())


def _panel(vintage: Vintage, fields: tuple[str, ...]) -> Panel:
    return build_panel(vintage.adjusted_bars(), vintage.calendar(), fields)


def _reference(vintage: Vintage, expressions: dict[str, str], where: pd.DataFrame) -> dict[tuple, float]:
    """The plain reference's value of each marked (datetime, instrument, name)."""
    fields = ("open", "high", "low", "close", "volume", "vwap")
    panel = _panel(vintage, fields)
    nodes = {name: parse(text) for name, text in expressions.items()}
    marked = where.stack()
    truth = {}
    with np.errstate(all="ignore"):
        for day, instrument, name in marked[marked].index:
            number = panel.instruments.get_loc(instrument)
            begin, end = panel.offsets[number : number + 2]
            series = {field: panel.fields[field][begin:end] for field in fields}
            at = panel.calendar.get_loc(day) - panel.rows[begin]
            truth[day, instrument, name] = value_of(nodes[name], series, at)
    return truth
