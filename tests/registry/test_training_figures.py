"""The figures of a training's report: thinned out, undefined values as None, shares that add up."""

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.errors import StoreError
from mlops_tasks.evaluation.ic import daily_rank_ic, ic_decay
from mlops_tasks.registry.training_figures import (
    MOST_DAYS,
    curve_steps,
    shares,
    signal_figures,
    training_figures,
)
from mlops_tasks.training_folder import EvaluationFolder, EvaluationRecord
from tests.registry.trainings import DAYS, SEGMENTS, Spec, make_training

KEY = "a" * 16


def panel(values: np.ndarray, days: pd.DatetimeIndex) -> pd.Series:
    """Days by instruments."""
    columns = pd.Index([f"S{number}" for number in range(values.shape[1])], name="instrument")
    return pd.DataFrame(values, days.rename("datetime"), columns).stack()


def test_a_score_of_tomorrow_tells_something_a_day_later() -> None:
    """A score that is the label of two days later has a rank IC of 1 at lag 2, and none elsewhere; lag 0 is that of the
    day itself."""
    random = np.random.default_rng(1)
    labels = random.standard_normal((60, 30))
    score, label = panel(labels[2:], DAYS[:58]), panel(labels, DAYS[:60])
    found = ic_decay(score, label, 4)
    assert found["mean"][2] == pytest.approx(1.0) and found["days"][2] == 58
    assert (found["mean"].drop(2).abs() < 0.1).all()
    assert found["mean"][0] == pytest.approx(daily_rank_ic(score, label).mean())
    assert found["error"][0] == pytest.approx(daily_rank_ic(score, label).std(ddof=1) / np.sqrt(58))


def test_lags_beyond_the_labels_are_undefined() -> None:
    """NaN rows are left out, and a lag with fewer than two days has no mean."""
    values = np.random.default_rng(2).standard_normal((4, 5))
    values[1, 0] = np.nan
    found = ic_decay(panel(values, DAYS[:4]), panel(values, DAYS[:4]), 5)
    assert list(found["days"]) == [4, 3, 2, 1, 0, 0]
    assert found["mean"].notna().tolist() == [True, True, True, False, False, False]


def test_curves_keep_their_last_iteration_and_leave_out_what_was_not_computed() -> None:
    """Thinned out to the number that is asked for; of a model without curves nothing."""
    curves = {"loss": {"train": [float(number) for number in range(10)]}, "ic": {"valid": [None, 0.5]}}
    steps = curve_steps(curves, 4)
    assert [step.iteration for step in steps] == [1, 4, 7, 10]
    assert [dict(step.metrics) for step in steps][:2] == [{"train.loss": 0.0}, {"train.loss": 3.0}]
    assert curve_steps(curves, 10)[1].metrics == {"train.loss": 1.0, "valid.ic": 0.5}
    assert curve_steps({}) == []


def test_shares_are_of_the_absolute_importance() -> None:
    """The largest first, ties in alphabetical order, nothing of what is not finite; zeros have no share."""
    found = shares({"b": -2.0, "a": 2.0, "c": 4.0, "d": float("nan")}, 3)
    assert [(each.name, each.share) for each in found] == [("c", 0.5), ("a", 0.25), ("b", 0.25)]
    assert [each.share for each in shares({"a": 0.0}, 3)] == [0.0]


def test_a_long_series_is_thinned_out_to_its_newest_day(tmp_path) -> None:
    """Running sums skip days without a value, which stay undefined themselves."""
    settings = Settings(home=tmp_path)
    folder = make_training(settings, Spec(key=KEY))
    days = pd.bdate_range("2010-01-01", periods=2 * MOST_DAYS, name="datetime")
    daily = pd.DataFrame({name: 0.001 for name in ("ic", "rank_ic", "return", "bench", "cost")}, index=days)
    daily.loc[days[-3], "ic"] = np.nan
    record = EvaluationRecord(KEY, "lightgbm", "d", "i", {}, {}, [])
    EvaluationFolder(folder / "evaluation").write(record, daily)
    found = training_figures(settings, KEY)
    assert len(found.signal.days) == len(found.account.days) == MOST_DAYS
    assert found.signal.days[-1] == str(days[-1].date())
    assert found.signal.values["ic"][-2] is None and found.signal.values["ic_sum"][-2] == pytest.approx(2.997)
    assert found.account.values["excess"][-1] == pytest.approx(-3.0)
    assert found.account.values["drawdown"][-1] == pytest.approx(-3.0)


def test_what_predictions_show_is_computed_once(tmp_path) -> None:
    """The planted signal is there on its own day, and in the order of the groups; no training has no figures."""
    settings = Settings(home=tmp_path)
    make_training(settings, Spec(key=KEY))
    found = signal_figures(settings, KEY)
    assert found is signal_figures(settings, KEY)
    assert found.decay[0].mean is not None and found.decay[0].mean > 0.1
    assert found.decay[0].days == len(SEGMENTS["test"])
    means = [group.mean_bps for group in found.groups if group.mean_bps is not None]
    assert len(means) == 6 and means[-1] > means[0]
    assert training_figures(settings, KEY).account.days == ()
    with pytest.raises(StoreError, match="no such training"):
        signal_figures(settings, "b" * 16)
