"""Values of a feature set: those of the two engines, on the same bars, to the last bit."""

from pathlib import Path

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import Vintage
from mlops_tasks.features.engine import evaluate, plan_computation
from mlops_tasks.features.indicators.state import compute_indicators
from mlops_tasks.features.panel import Panel, build_panel
from mlops_tasks.features.sets import FeatureSet, feature_set_names, find_feature_set
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.features.values import compute_values
from tests.features.market import awkward_bars, make_vintage
from tests.features.test_indicators import WALKS

OWN_SET = """
mine:
  version: 3
  owner: Desk A
  description: Two factors, and indicators that go back to the first bar.
  factors:
    MOMENTUM20: $close/Ref($close, 20)-1
    TURNOVER5: $volume/(Mean($volume, 5)+1e-12)
  indicators:
    - {indicator: macd, name: MACD}
    - {indicator: obv, name: OBV}
    - {indicator: rsi, name: RSI14}
"""


@pytest.fixture(scope="module")
def vintage(tmp_path_factory: pytest.TempPathFactory) -> Vintage:
    """Instruments with gaps, late listings, early ends and a split."""
    return make_vintage(tmp_path_factory.mktemp("market"), awkward_bars(instruments=8))


def panel_of(definition: FeatureSet, vintage: Vintage) -> Panel:
    """All bars of a vintage."""
    return build_panel(vintage.adjusted_bars(), vintage.calendar(), definition.fields)


def rounded(bars: pd.DataFrame) -> pd.DataFrame:
    """Bars as a panel rounds them."""
    numbers = bars.columns.drop([DATETIME, INSTRUMENT])
    return bars.assign(**bars[numbers].astype(np.float32).astype(np.float64))


def by_indicators(definition: FeatureSet, bars: pd.DataFrame) -> pd.DataFrame:
    """The indicators of a set, by datetime and instrument."""
    return compute_indicators(bars, definition.indicators, np.float32).set_index([DATETIME, INSTRUMENT]).sort_index()


@pytest.mark.parametrize("name", ["alpha158", "technical", "alpha158_oscillators"])
@pytest.mark.parametrize("threads", [1, 3])
def test_values_are_those_of_the_two_engines(name: str, threads: int, vintage: Vintage) -> None:
    """Expressions first; indicators see the bars, not the calendar rows without one."""
    definition = find_feature_set(name)
    panel = panel_of(definition, vintage)
    assert not panel.has_bar.all()
    positions = panel.positions(panel.bar_order())
    found = compute_values(definition, panel, positions, threads)
    assert found.dtype == np.float32
    parts = []
    if definition.nodes:
        parts.append(evaluate(plan_computation(definition.nodes), panel, positions))
    if definition.indicators:
        parts.append(by_indicators(definition, rounded(vintage.adjusted_bars())).to_numpy().T)
    np.testing.assert_array_equal(found, np.concatenate(parts))


@hypothesis.settings(max_examples=15)
@given(walks=st.lists(WALKS, min_size=1, max_size=4), threads=st.integers(1, 3))
def test_indicators_of_a_panel_are_those_of_its_bars(walks: list[pd.DataFrame], threads: int) -> None:
    """Any gaps, late first bars, missing volumes: calendar rows between an instrument's bars are not seen."""
    bars = pd.concat([bars.assign(instrument=f"I{number}") for number, bars in enumerate(walks)], ignore_index=True)
    calendar = pd.DatetimeIndex(np.unique(bars[DATETIME]))
    definition = find_feature_set("technical")
    panel = build_panel(bars, calendar, definition.fields)
    found = compute_values(definition, panel, panel.positions(panel.bar_order()), threads)
    np.testing.assert_array_equal(found, by_indicators(definition, rounded(bars)).to_numpy().T)


def test_wanted_rows_have_the_values_they_have_among_all(vintage: Vintage) -> None:
    """Whatever rows are asked for, in whatever order."""
    definition = find_feature_set("alpha158_oscillators")
    panel = panel_of(definition, vintage)
    order = panel.bar_order()
    everything = compute_values(definition, panel, panel.positions(order))
    chosen = np.random.default_rng(0).permutation(len(order))[:100]
    found = compute_values(definition, panel, panel.positions(order[chosen]))
    np.testing.assert_array_equal(found, everything[:, chosen])


def test_indicators_have_no_value_where_there_is_no_bar(vintage: Vintage) -> None:
    """A calendar row without a bar may be wanted, and is NaN."""
    definition = find_feature_set("technical")
    panel = panel_of(definition, vintage)
    gaps = np.flatnonzero(~panel.has_bar)
    assert np.isnan(compute_values(definition, panel, panel.positions(gaps))).all()


def test_every_set_has_values_in_every_column(vintage: Vintage) -> None:
    """What is shipped computes: no column is empty, none is infinite where prices and volume are positive."""
    for name in feature_set_names():
        definition = find_feature_set(name)
        panel = panel_of(definition, vintage)
        values = compute_values(definition, panel, panel.positions(panel.bar_order()))
        assert values.shape == (len(definition.names), int(panel.has_bar.sum()))
        assert np.isfinite(values).any(axis=1).all(), name


def test_a_set_from_yaml_goes_through_the_store(tmp_path: Path) -> None:
    """Indicators reach back to the first bar over the years; a second computing finds everything there."""
    (tmp_path / "feature_sets.yaml").write_text(OWN_SET)
    settings = Settings(home=tmp_path)
    vintage = make_vintage(tmp_path, awkward_bars(instruments=4, days=600))
    store = FeatureStore(settings)
    version = store.compute(vintage, "mine")
    definition = find_feature_set("mine", settings)
    frame = store.load(version.feature_version)
    assert tuple(frame.columns) == definition.names
    expected = by_indicators(definition, rounded(vintage.adjusted_bars()))
    pd.testing.assert_frame_equal(frame[expected.columns.to_list()], expected, check_exact=True)
    again = store.compute(vintage, "mine")
    assert (again.feature_version, again.computed_rows) == (version.feature_version, 0)
    assert store.find(vintage.data_version, "mine") == version.feature_version
