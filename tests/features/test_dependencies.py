"""What a feature depends on, against what moves it."""

from math import inf

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.columns import BAR_FIELDS, DATETIME, FACTOR, INSTRUMENT
from mlops_tasks.features.engine import evaluate, plan_computation
from mlops_tasks.features.expressions import dependencies, parse
from mlops_tasks.features.panel import build_panel
from mlops_tasks.features.sets import find_feature_set

DAYS = 130
FURTHEST = 70
"""Rows back up to which a bar is perturbed: more than Alpha158's longest window and a shift."""
FIELDS = [name for name in BAR_FIELDS if name != FACTOR]
CHANGES = {"small": 1.01, "large": 10.0, "little": 0.1}
"""Factors of a perturbation: a comparison, a rank and an extreme need different ones to notice."""


def test_every_alpha158_feature_depends_on_the_bars_that_move_it() -> None:
    """A bar moves a feature from as far back as the stated reach and from no further, field by field."""
    definition = find_feature_set("alpha158")
    assert len(definition.nodes) == 158
    cases = [(field, k, name) for field in FIELDS for k in range(FURTHEST + 1) for name in CHANGES]
    calendar = pd.bdate_range("2020-01-01", periods=DAYS)
    plan = plan_computation(definition.nodes)
    reached: dict[str, dict[str, int]] = {name: {} for name in definition.names}
    for seed in range(3):
        bars = _bars(calendar, seed)
        frames = [bars.assign(**{INSTRUMENT: "0000"})]
        for number, (field, k, change) in enumerate(cases, start=1):
            values = bars[field].to_numpy().copy()
            values[DAYS - 1 - k] *= CHANGES[change]
            frames.append(bars.assign(**{field: values, INSTRUMENT: f"{number:04d}"}))
        panel = build_panel(pd.concat(frames, ignore_index=True), calendar, plan.fields)
        newest = np.flatnonzero(panel.rows == DAYS - 1)
        values = evaluate(plan, panel, panel.positions(newest), threads=2)
        moved = (values[:, 1:] != values[:, :1]) & ~(np.isnan(values[:, 1:]) & np.isnan(values[:, :1]))
        for row, name in enumerate(definition.names):
            for case in np.flatnonzero(moved[row]):
                field, k, _ = cases[case]
                reached[name][field] = max(reached[name].get(field, 0), k)
    assert reached == definition.dependencies


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("$close", {"close": 0}),
        ("Ref($close, 3)/$open", {"close": 3, "open": 0}),
        ("Mean(Ref($close, 1), 5) + Max($high, 2)", {"close": 5, "high": 1}),
        ("Std(Mean($volume, 5), 10) * $volume", {"volume": 13}),
        ("Corr(Ref($close, 2), Log($volume), 10)", {"close": 11, "volume": 9}),
        ("Sum($close, 0) + $low", {"close": inf, "low": 0}),
        ("EMA(Ref($vwap, 2), 5)", {"vwap": inf}),
    ],
)
def test_reaches_add_up_along_each_path(text: str, fields: dict[str, float]) -> None:
    """Nested windows add up, each field by its own deepest path; expanding windows reach back without end."""
    assert dependencies(parse(text)) == fields


def _bars(calendar: pd.DatetimeIndex, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    close = 20 * np.exp(np.cumsum(random.normal(0, 0.02, DAYS)))
    opened = close * np.exp(random.normal(0, 0.01, DAYS))
    spread = 1 + random.random(DAYS) / 50
    return pd.DataFrame(
        {
            DATETIME: calendar,
            "open": opened,
            "high": np.maximum(opened, close) * spread,
            "low": np.minimum(opened, close) / spread,
            "close": close,
            "volume": random.lognormal(10, 1, DAYS),
            "vwap": close * (1 + random.normal(0, 0.003, DAYS)),
        }
    )
