"""Random expressions over random panels: the engine against the plain reference, and against Qlib."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlops_tasks.columns import CLOSE, DATETIME, FACTOR, HIGH, LOW, OPEN, VOLUME, VWAP
from mlops_tasks.data.vintages import canonical_bars
from mlops_tasks.features.engine import evaluate, plan_computation
from mlops_tasks.features.expressions import OPERATORS, ROLLING, Node, OperatorKind, parse
from mlops_tasks.features.panel import Panel, build_panel
from tests.features.brute_force import Reference
from tests.features.parity import NOTHING, RELATIVE, market_of

FIELDS = (OPEN, HIGH, LOW, CLOSE, VOLUME, VWAP)
DAYS = 40
CALENDAR = pd.bdate_range("2021-03-01", periods=DAYS)

MOODS = ("walk", "ties", "constant", "suspended", "nan_fields", "spikes")


@st.composite
def panels(draw: st.DrawFn, days: int = DAYS) -> pd.DataFrame:
    """Bars of I0 (on every day) and of three more with gaps, late listings and early ends."""
    frames = []
    for number in range(4):
        random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        first = draw(st.integers(0, days // 2)) if number else 0
        last = draw(st.integers(first, days - 1)) if number else days - 1
        missing = draw(st.sampled_from([0.0, 0.1, 0.5])) if number else 0.0
        kept = (random.random(days) >= missing) & (np.arange(days) >= first) & (np.arange(days) <= last)
        kept[last] = True
        frames.append(_bars(random, draw(st.sampled_from(MOODS)), days).assign(instrument=f"I{number}")[kept])
    return canonical_bars(pd.concat(frames, ignore_index=True))


def _bars(random: np.random.Generator, mood: str, days: int) -> pd.DataFrame:
    close = 10 * np.exp(np.cumsum(random.normal(0, 0.03, days)))
    opened, volume = close * np.exp(random.normal(0, 0.01, days)), random.integers(1, 1000, days).astype(float)
    if mood == "ties":
        close, opened, volume = close.round(), opened.round(), volume.round(-2)
    if mood == "constant":
        close[:], opened[:], volume[:] = 7.3, 7.3, 5
    if mood == "spikes":
        close[random.random(days) < 0.1] *= 50
    if mood == "suspended":
        start = random.integers(0, days - 12)
        close[start : start + 12] = opened[start : start + 12] = close[start]
        volume[start : start + 12] = 0
    bars = pd.DataFrame({OPEN: opened, HIGH: np.maximum(opened, close), LOW: np.minimum(opened, close), CLOSE: close})
    bars[HIGH] *= 1 if mood in {"constant", "suspended"} else 1 + random.random(days) / 100
    bars = bars.assign(**{VOLUME: volume, VWAP: (bars[HIGH] + bars[LOW]) / 2, FACTOR: 1.0, DATETIME: CALENDAR[:days]})
    if mood == "nan_fields":
        for name in (OPEN, VOLUME, VWAP):
            bars.loc[random.random(days) < 0.2, name] = np.nan
    return bars


SINGLE = {name: each for name, each in OPERATORS.items() if each.kind is OperatorKind.WINDOW and each.series == 1}
CONDITIONS = (
    *(f"{name}(<x>, <y>)" for name in ("Gt", "Ge", "Lt", "Le", "Eq", "Ne")),
    *("And(<c>, <c>)", "Or(<c>, <c>)", "Not(<c>)"),
)
FORMS = (
    "<field>",
    *("Abs(<x>)", "Sign(<x>)", "Log(<x>)", "If(<c>, <x>, <y>)", "Greater(<x>, <y>)", "Less(<x>, <y>)"),
    *(form for sign in "+-*/" for form in (f"(<x>{sign}<y>)", f"(<number>{sign}<x>)")),
    *(f"Power(<x>, {exponent})" for exponent in (2, 0.5, -1.0)),
    *(f"{name}(<x>, <window>)" for name, each in SINGLE.items() if each.least_window == 1 and name != "Ref"),
    *(f"{name}(<x>, <long>)" for name, each in SINGLE.items() if each.least_window > 1),
    *(f"{name}(<c>, <window>)" for name in ("Mean", "Std", "Count", "IdxMax", "EMA")),
    *(f"Ref(<x>, {rows})" for rows in (1, 3, 0, -2)),
    *(f"EMA(<x>, {window})" for window in (0.3, 2.5)),
    *(f"Quantile(<x>, <window>, {level})" for level in (0, 0.2, 0.5, 1)),
    *("Corr(<x>, <x>, <long>)", "Cov(<x>, <x>, <long>)"),
)
# Qlib's cache takes `Rolling` with another function for the same, and it compares series of equal length only.
OURS_ALONE = ("Mask(<x>, 'I0')", *(f"Rolling(<x>, <long>, '{name}')" for name in sorted(ROLLING)))
LEAVES = {
    "field": tuple(f"${name}" for name in FIELDS),
    "number": ("0", "1", "2", "0.5", "-3", "1e-12"),
    "window": ("1", "2", "3", "5", "8", "20", "0"),
    "long": ("4", "7", "20"),
}


@st.composite
def expressions(draw: st.DrawFn, depth: int, *, in_qlib: bool = False) -> str:
    """A text of the grammar, operators nested up to `depth` deep; with `in_qlib`, one that Qlib can compute."""

    def write(kind: str, depth: int) -> str:
        if kind in LEAVES:
            return draw(st.sampled_from(LEAVES[kind]))
        if kind == "y":
            return write(draw(st.sampled_from(("x", "number"))), depth)
        if depth <= 0 and kind == "x":
            return write("field", 0)
        forms = CONDITIONS[: len(CONDITIONS) if depth > 0 else 6] if kind == "c" else FORMS
        form = draw(st.sampled_from(forms if in_qlib or kind == "c" else (*forms, *OURS_ALONE)))
        return re.sub("<(\\w+)>", lambda part: write(part[1], depth - 1), form)

    return write("x", draw(st.integers(1, depth)))


def test_the_engine_has_the_references_values() -> None:
    """Wherever a value does not hang on the last digits the engine's is the reference's, NaN where that is."""
    compared: list[float] = []

    @settings(max_examples=80, suppress_health_check=list(HealthCheck))
    @given(bars=panels(), texts=st.lists(expressions(3), min_size=4, max_size=4))
    def compare(bars: pd.DataFrame, texts: list[str]) -> None:
        panel = build_panel(bars, CALENDAR, FIELDS)
        nodes = {str(number): parse(text) for number, text in enumerate(texts)}
        ours = evaluate(plan_computation(nodes), panel, np.arange(panel.offsets[-1]), threads=1)
        for text, node, own in zip(texts, nodes.values(), ours, strict=True):
            true, firm = _truth(panel, node, noise=1e-12, moved=1e-6)
            with np.errstate(over="ignore"):
                np.testing.assert_allclose(own[firm], np.float32(true[firm]), rtol=1e-5, atol=1e-37, err_msg=text)
            compared.append(float(np.isfinite(true[firm]).sum() / max(np.isfinite(true).sum(), 1)))

    compare()
    assert np.mean(compared) > 0.85


def test_the_engine_has_qlibs_values() -> None:
    """Where neither float32 in between nor a residue in running sums moves a value, Qlib's is the engine's."""
    compared: list[float] = []

    @settings(max_examples=12, suppress_health_check=list(HealthCheck))
    @given(bars=panels(), texts=st.lists(expressions(2, in_qlib=True), min_size=12, max_size=12, unique=True))
    def compare(bars: pd.DataFrame, texts: list[str]) -> None:
        named = {str(number): text for number, text in enumerate(texts)}
        with TemporaryDirectory() as folder:
            market = market_of(Path(folder), bars)
            ours, theirs = market.by_engine(named), market.by_qlib(named)
        panel = market.panel()
        order = panel.bar_order()
        for name, text in named.items():
            true, firm = _truth(panel, parse(text), noise=5e-7, moved=5e-5, residue=True)
            both = ours[name][firm[order]], theirs[name][firm[order]]
            np.testing.assert_allclose(*both, rtol=RELATIVE, atol=NOTHING, err_msg=text)
            compared.append(float(np.isfinite(true[firm]).sum() / max(np.isfinite(true).sum(), 1)))

    compare()
    assert np.mean(compared) > 0.7


def _truth(
    panel: Panel, node: Node, noise: float, moved: float, residue: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The reference's values, and where rounding in between moves them by less than `moved`, relative."""
    exact = Reference(panel)
    true = _all_values(exact, node)
    firm = np.repeat([not residue or name not in exact.overflown for name in exact.length], [*exact.length.values()])
    for seed in range(4):
        other = _all_values(Reference(panel, noise, seed, residue=residue), node)
        with np.errstate(all="ignore"):
            near = np.abs(other - true) <= moved * np.abs(true)
        firm &= near | (true == other) | (np.isnan(true) & np.isnan(other))
    return true, firm


def _all_values(reference: Reference, node: Node) -> NDArray[np.float64]:
    return np.concatenate([reference.values(node, name, 0, length) for name, length in reference.length.items()])
