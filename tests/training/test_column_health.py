"""Columns from which nothing can be learned are named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_tasks.errors import ConfigError
from mlops_tasks.features.statistics import describe_columns, merge_columns
from mlops_tasks.modeling.column_health import ColumnHealth
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.training.checks import check_columns

NAN, INF = np.nan, np.inf


def test_each_kind_is_named_with_its_share() -> None:
    """A missing value is no value: a column with one known one is constant, and zero of either sign is one value."""
    features = np.array(
        [[NAN, 1.0, 0.0, INF, 1.0], [NAN, NAN, -0.0, 2.0, 2.0], [NAN, 1.0, 0.0, NAN, NAN], [NAN, 1.0, 0.0, -INF, 1.0]],
        np.float32,
    )
    health = ColumnHealth.of(features, ["empty", "one", "zero", "endless", "fine"])
    assert (health.missing, health.constant) == (("empty",), ("one", "zero"))
    assert health.infinite == {"endless": 0.5}
    assert health.metrics == {"missing_columns": 1, "constant_columns": 2, "infinite_columns": 1}
    said = " | ".join(health.warnings())
    assert "have no value in the training segment: empty" in said
    assert "2 of 5 columns (40.00%) are constant in the training segment: one, zero" in said
    assert "endless (50.00% of rows)" in said
    assert "1 of 5 columns (20.00%) have no value" in said
    assert health.to_json()["shares"] == {"missing": 0.2, "constant": 0.4, "infinite": 0.2}


COLUMNS = st.lists(st.lists(st.sampled_from([NAN, 0.0, 1.0, INF]), min_size=3, max_size=3), min_size=2, max_size=8)


@given(COLUMNS, COLUMNS)
def test_statistics_of_years_say_the_same_as_their_rows(one: list[list[float]], two: list[list[float]]) -> None:
    """No row is read for it; what is infinite in every row alone is not told as constant, too."""
    names = ["a", "b", "c"]
    years = [np.array(rows, np.float32) for rows in (one, two)]
    told = ColumnHealth.of_statistics(merge_columns(describe_columns(names, rows.T) for rows in years))
    known = ColumnHealth.of(np.concatenate(years), names)
    assert (told.columns, told.missing, told.infinite) == (known.columns, known.missing, known.infinite)
    assert {*told.constant} == {*known.constant} - {*known.infinite}


@pytest.mark.parametrize(
    ("family", "processors", "refused"),
    [
        ("lightgbm", (), None),
        ("xgboost", (), r"infinite values: endless \(50.00% of rows\)"),
        ("sklearn", (), r"infinite values: endless \(50.00% of rows\)"),
        ("linear", (), r"without a value: empty, nor from infinite values: endless"),
        ("network", (), r"without a value: empty, nor from infinite values: endless"),
        ("linear", ("robust_zscore_fill_zero",), None),
    ],
)
def test_columns_are_refused_by_who_cannot_take_them(family, processors, refused) -> None:
    """By name and share, with the remedy; a processor replaces what a family cannot take."""
    health = ColumnHealth(3, ("empty",), (), {"endless": 0.5})
    config = TrainingConfig(
        model="mine",
        family=family,
        hyperparameters={},
        feature_processors=processors,
        label_processor="CSRankNorm",
        seed=1,
    )
    if refused is None:
        check_columns(config, health)
        return
    with pytest.raises(ConfigError, match=refused) as error:
        check_columns(config, health)
    assert "models.mine.feature_processors" in str(error.value)
    check_columns(config, ColumnHealth(3, (), ("constant",), {}))


@given(st.lists(st.lists(st.sampled_from([NAN, 0.0, 1.0, 2.5]), min_size=3, max_size=3), min_size=2, max_size=8))
def test_what_can_be_learned_from_is_not_named(rows: list[list[float]]) -> None:
    """A column is named as missing or constant exactly where it has fewer than two different values."""
    features = np.array(rows, np.float32)
    health = ColumnHealth.of(features, ["a", "b", "c"])
    distinct = [len(set(column[~np.isnan(column)].tolist())) for column in features.T]
    assert {*health.missing} == {name for name, count in zip("abc", distinct, strict=True) if count == 0}
    assert {*health.constant} == {name for name, count in zip("abc", distinct, strict=True) if count == 1}
