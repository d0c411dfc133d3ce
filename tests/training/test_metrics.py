"""The fast validation metrics are those of the evaluation, and the loss is the learned label's mean squared error."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlops_tasks.columns import DATETIME, INSTRUMENT
from mlops_tasks.evaluation.ic import daily_ic, daily_rank_ic
from mlops_tasks.modeling.metrics import DailyCorrelation, TrainIC, ValidationMetrics
from mlops_tasks.modeling.problem import LearningProblem

FEW_VALUES = st.sampled_from([-1.0, 0.0, -0.0, 0.5, 1.0, 3.0])
VALUES = st.one_of(FEW_VALUES, FEW_VALUES, st.floats(-1e6, 1e6, width=32), st.sampled_from([np.nan, np.inf]))


def reference(scores: np.ndarray, label: np.ndarray, day: np.ndarray) -> tuple[float, float]:
    """Mean IC and rank IC by the evaluation's own functions."""
    dates = pd.Timestamp("2020-01-01") + pd.to_timedelta(day, unit="D")
    index = pd.MultiIndex.from_arrays([dates, np.arange(len(day))], names=[DATETIME, INSTRUMENT])
    score, realised = pd.Series(scores, index), pd.Series(label, index)
    return daily_ic(score, realised).mean(), daily_rank_ic(score, realised).mean()


def problem(label: np.ndarray, realised: np.ndarray, day: np.ndarray, train: int) -> LearningProblem:
    """One whose first `train` rows are segment train, the others valid."""
    rows = len(day)
    return LearningProblem(
        features=np.zeros((rows, 1), np.float32),
        label=label.astype(np.float32),
        realised=realised,
        day=day.astype(np.int32),
        instrument=np.arange(rows, dtype=np.int32),
        train=slice(0, train),
        valid=slice(train, rows),
        names=["f"],
    )


@given(st.lists(st.integers(0, 7), min_size=1, max_size=12), st.data())
def test_ics_equal_the_evaluations_with_ties_missing_values_constant_and_short_days(counts, data):
    day = np.repeat(np.arange(len(counts)) * 2, counts).astype(np.int32)
    label, scores = (data.draw(arrays(np.float64, len(day), elements=VALUES)) for _ in range(2))
    found = DailyCorrelation(label, day)
    np.testing.assert_allclose(
        (found.ic(scores), found.rank_ic(scores)), reference(scores, label, day), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ics_equal_the_evaluations_on_a_panel_whose_days_differ_in_size(dtype):
    rng = np.random.default_rng(0)
    day = np.repeat(np.arange(60, dtype=np.int32), rng.integers(1, 200, 60))
    label = rng.normal(0, 0.02, len(day))
    scores = np.round(rng.normal(size=len(day)) + 5 * label, 2).astype(dtype)  # rounded: many ties
    label[rng.random(len(day)) < 0.05] = np.nan
    found = DailyCorrelation(label, day)
    expected = reference(scores, label, day)
    np.testing.assert_allclose((found.ic(scores), found.rank_ic(scores)), expected, rtol=0, atol=1e-12)
    scores[7] = np.nan
    expected = reference(scores, label, day)
    np.testing.assert_allclose((found.ic(scores), found.rank_ic(scores)), expected, rtol=0, atol=1e-12)


def test_perfect_order_has_rank_ic_one_and_only_a_straight_line_ic_one():
    day = np.repeat(np.arange(3, dtype=np.int32), 5)
    label = np.tile(np.arange(5.0), 3)
    found = DailyCorrelation(label, day)
    assert found.rank_ic(np.exp(label)) == pytest.approx(1.0, abs=1e-15)
    assert found.ic(2 * label + 7) == pytest.approx(1.0, abs=1e-15)
    assert found.ic(-label) == pytest.approx(-1.0, abs=1e-15)
    assert found.ic(np.exp(label)) == pytest.approx(np.corrcoef(np.exp(np.arange(5)), np.arange(5))[0, 1])


def test_rows_are_the_validation_rows_with_a_label_and_loss_is_their_mean_squared_error():
    day = np.repeat(np.arange(4), 4)
    realised = np.arange(16.0)
    realised[[1, 10]] = np.nan
    label = realised * 2
    metrics = ValidationMetrics(problem(label, realised, day, train=8))
    assert metrics.rows.tolist() == [8, 9, 11, 12, 13, 14, 15]
    scores = label[metrics.rows] + np.array([1, 1, 1, 1, 1, 1, 3])
    assert metrics.loss(scores) == pytest.approx(15 / 7)
    assert metrics.evaluate(scores) == {
        "valid.loss": metrics.loss(scores),
        "valid.ic": metrics.ic(scores),
        "valid.rank_ic": 1.0,
    }


def test_scores_that_order_nothing_have_a_loss_and_no_ic():
    day = np.repeat(np.arange(2), 4)
    metrics = ValidationMetrics(problem(np.arange(8.0), np.arange(8.0), day, train=4))
    assert list(metrics.evaluate(np.zeros(4))) == ["valid.loss"]
    assert np.isnan(metrics.evaluate(np.full(4, np.nan))["valid.loss"])


def test_a_segment_without_labels_has_no_metric():
    day = np.repeat(np.arange(2), 4)
    metrics = ValidationMetrics(problem(np.full(8, np.nan), np.full(8, np.nan), day, train=4))
    assert np.isnan([metrics.loss(np.zeros(0)), metrics.ic(np.zeros(0)), metrics.rank_ic(np.zeros(0))]).all()


def test_scores_of_other_rows_and_unsorted_days_are_refused():
    day = np.repeat(np.arange(2), 4)
    metrics = ValidationMetrics(problem(np.arange(8.0), np.arange(8.0), day, train=4))
    with pytest.raises(ValueError, match=r"shape \(8,\), the segment has 4 rows with a label"):
        metrics.loss(np.zeros(8))
    with pytest.raises(ValueError, match="sort the rows by day"):
        DailyCorrelation(np.zeros(2), np.array([1, 0]))


def test_the_ic_of_train_is_measured_on_whole_days_that_a_seed_draws(monkeypatch):
    """About as many rows as there may be, the same for a seed; all where they are few, none where nobody compares."""
    day = np.repeat(np.arange(40), 5)
    label = np.random.default_rng(0).standard_normal(200)
    label[3] = np.nan
    posed = problem(label, label, day, train=150)
    learned = posed.learned(posed.train)
    assert TrainIC(posed, "ic", 1).rows.tolist() == learned.tolist()
    none = TrainIC(posed, "loss", 1)
    assert (len(none.rows), none.evaluate(np.zeros(0))) == (0, {})
    monkeypatch.setattr("mlops_tasks.modeling.metrics.TRAIN_ROWS", 50)
    some = TrainIC(posed, "rank_ic", 1)
    drawn = np.unique(day[some.rows])
    assert 9 <= len(drawn) <= 11
    assert some.rows.tolist() == [row for row in learned if day[row] in drawn]
    assert some.rows.tolist() == TrainIC(posed, "ic", 1).rows.tolist() != TrainIC(posed, "ic", 2).rows.tolist()
    assert some.evaluate(-label[some.rows]) == {"rank_ic": pytest.approx(-1.0)}
