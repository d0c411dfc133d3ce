"""Columns from which nothing can be learned are named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_tasks.modeling.column_health import ColumnHealth

NAN, INF = np.nan, np.inf


def test_each_kind_is_named_with_its_share() -> None:
    """A missing value is no value: a column with one known one is constant, and zero of either sign is one value."""
    features = np.array(
        [[NAN, 1.0, 0.0, INF, 1.0], [NAN, NAN, -0.0, 2.0, 2.0], [NAN, 1.0, 0.0, NAN, NAN], [NAN, 1.0, 0.0, -INF, 1.0]],
        np.float32,
    )
    health = ColumnHealth.of(features, ["empty", "one", "zero", "endless", "fine"])
    assert (health.missing, health.constant) == (("empty",), ("one", "zero"))
    assert health.infinite == {"endless": pytest.approx(2 / 3)}
    assert health.metrics == {"missing_columns": 1, "constant_columns": 2, "infinite_columns": 1}
    said = " | ".join(health.warnings())
    assert "1 of 5 columns have no value in the training segment: empty" in said
    assert "2 of 5 columns are constant in the training segment: one, zero" in said
    assert "endless (66.67% of rows)" in said


@given(st.lists(st.lists(st.sampled_from([NAN, 0.0, 1.0, 2.5]), min_size=3, max_size=3), min_size=2, max_size=8))
def test_what_can_be_learned_from_is_not_named(rows: list[list[float]]) -> None:
    """A column is named as missing or constant exactly where it has fewer than two different values."""
    features = np.array(rows, np.float32)
    health = ColumnHealth.of(features, ["a", "b", "c"])
    distinct = [len(set(column[~np.isnan(column)].tolist())) for column in features.T]
    assert {*health.missing} == {name for name, count in zip("abc", distinct, strict=True) if count == 0}
    assert {*health.constant} == {name for name, count in zip("abc", distinct, strict=True) if count == 1}
