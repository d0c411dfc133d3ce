"""Global values, groups and shares of contributions that are known."""

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.errors import ExplanationError
from mlops_tasks.explain.explanation import Explanation, Method
from mlops_tasks.explain.feature_groups import FactorGroup, alpha158_groups
from mlops_tasks.features.alpha158 import alpha158
from tests.explain.panels import index_of


def explanation(values: np.ndarray, names: str, gap: float = 0.0) -> Explanation:
    """Of rows of ten instruments a day, base 1."""
    index = index_of(len(values))
    scores = pd.Series(1.0 + values.sum(axis=1), index)
    scores.iloc[:1] += gap
    return Explanation(Method.LINEAR, pd.DataFrame(values, index, list(names)), 1.0, scores)


def test_importance_is_the_mean_size() -> None:
    """Signs cancel in the mean and not in the size; shares sum to one; the gap is stated beside."""
    values = np.tile([[1.0, -3.0, 0.0], [-1.0, -3.0, 0.0]], (10, 1))
    found = explanation(values, "abc", gap=0.5).importance()
    assert list(found.table.index) == ["b", "a", "c"]
    assert found.table["mean_abs"].tolist() == [3.0, 1.0, 0.0]
    assert found.table["share"].tolist() == [0.75, 0.25, 0.0]
    assert found.table["mean"].tolist() == [-3.0, 0.0, 0.0]
    assert found.rows == 20
    assert found.gap.largest == pytest.approx(0.5)
    assert found.gap.mean == pytest.approx(0.025)
    assert found.gap.share == pytest.approx(0.5 / found.gap.spread)


def test_groups_are_sums_of_contributions() -> None:
    """What two features of a group take from each other counts once; score and gap stay."""
    values = np.tile([[1.0, -1.0, 2.0]], (10, 1))
    found = explanation(values, "abc").grouped({"a": "x", "b": "x", "c": "y"})
    assert found.contributions.columns.tolist() == ["x", "y"]
    assert found.importance().table["share"].to_dict() == {"y": 1.0, "x": 0.0}
    assert found.gap.largest == 0
    with pytest.raises(ExplanationError, match="2 features have no group: b, c"):
        explanation(values, "abc").grouped({"a": "x"})


def test_shares_are_those_of_each_day() -> None:
    """A day on which nothing contributes has none."""
    values = np.repeat([[1.0, 3.0], [2.0, 2.0], [0.0, 0.0]], 10, axis=0)
    shares = explanation(values, "ab").shares_by_day()
    assert shares.iloc[:2].to_numpy().tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert shares.iloc[2].isna().all()


def test_no_rows_have_no_importance() -> None:
    """Nor a gap: there is nothing that it is the gap of."""
    empty = explanation(np.empty((0, 2)), "ab")
    with pytest.raises(ExplanationError, match="no row to explain"):
        empty.importance()


def test_every_factor_of_alpha158_has_a_group() -> None:
    """All 158, in order, and every group has some."""
    groups = alpha158_groups()
    assert list(groups) == list(alpha158())
    assert set(groups.values()) == {str(group) for group in FactorGroup}
    expected = {"KSFT2": "k_bar", "VWAP0": "price", "MA5": "price", "ROC60": "momentum", "STD20": "volatility"}
    expected |= {"VSUMD30": "volume", "CORR10": "correlation", "WVMA5": "volatility"}
    assert {name: groups[name] for name in expected} == expected
