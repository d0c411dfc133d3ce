"""The profile says what was planted, reads the training segment only, and is a function of its seed."""

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.errors import TrainingError
from mlops_tasks.tuning.data_profile import LINEAR, TREES, profile_data
from tests.planted import HISTORY, SIGNALS, Shape, closed_form_rank_ic, plant
from tests.tuning.profiles import SHAPE, profile_of


def test_the_oracle_agrees_with_the_closed_form():
    """Mean daily rank IC of a normal signal is Pearson's 6 / pi * asin(rho / 2)."""
    planted = plant("linear", Shape(days=1000, instruments=200, snr=0.1))
    assert planted.oracle == pytest.approx(closed_form_rank_ic(0.1), abs=4 / np.sqrt(200 * 200))


@pytest.mark.parametrize("kind", [kind for kind in SIGNALS if kind != "noise"])
def test_the_planted_signal_has_the_share_of_the_label_that_it_was_given(kind):
    """Variance of the signal is one, so that snr is what it says."""
    assert plant(kind, SHAPE).signal.iloc[HISTORY * 40 :].std() == pytest.approx(1.0, abs=0.05)


def test_counts_and_shares_are_those_of_the_training_segment():
    """Rows, days, names, missing share, rank and tails of data that has them by construction."""
    profile = profile_data(plant("linear", Shape(days=200, instruments=40, missing=0.3)).data)
    assert (profile.rows, profile.days, profile.instruments, profile.instruments_per_day) == (4800, 120, 40, 40)
    assert profile.missing_share == pytest.approx(0.3, abs=0.01)
    assert profile.effective_rank == pytest.approx(8, abs=0.1)
    assert profile.label_kurtosis == pytest.approx(0, abs=0.3)
    assert profile.label_autocorrelation == pytest.approx(0, abs=0.05)


def test_the_linear_landmark_reaches_the_closed_form():
    """Out of fold, ridge finds the planted rank IC within three standard errors and what estimation costs."""
    skill = profile_of("linear").landmarks[LINEAR]
    assert closed_form_rank_ic(SHAPE.snr) == pytest.approx(skill.rank_ic, abs=3 * skill.standard_error + 0.02)


def test_gains_say_where_the_signal_lies():
    """Trees gain on a threshold, history on a periodic signal, neither on a linear one."""
    threshold, periodic, linear = (profile_of(kind) for kind in ("threshold", "periodic", "linear"))
    assert threshold.nonlinearity_gain.p_value < 0.001 < linear.nonlinearity_gain.p_value
    assert periodic.history_gain.p_value < 0.001 < linear.history_gain.p_value
    assert periodic.landmarks[TREES].rank_ic < 2 * periodic.landmarks[TREES].standard_error


def test_later_segments_do_not_enter():
    """Garbage in the validation and test segments changes nothing, to the last bit; neither does a second call."""
    planted = plant("threshold", SHAPE).data
    later = slice(planted.rows("valid").start, None)
    planted.features.iloc[later] = 1e6
    planted.label.iloc[later] = -1.0
    assert profile_data(planted) == profile_of("threshold")


def test_autocorrelation_and_rank_of_built_features_are_found():
    """A copied column does not raise the effective rank; an AR(1) column has its coefficient."""
    data = plant("noise", SHAPE).data
    random, wide = np.random.default_rng(0), data.features["F0"].unstack()
    values = np.zeros(wide.shape)
    for day in range(1, len(values)):
        values[day] = 0.8 * values[day - 1] + random.normal(size=values.shape[1])
    persistent = pd.DataFrame(values, wide.index, wide.columns).stack().astype(np.float32).to_numpy()
    for name in data.features:
        data.features[name] = persistent
    profile = profile_data(data)
    assert profile.feature_autocorrelation == pytest.approx(0.8, abs=0.03)
    assert profile.effective_rank == pytest.approx(1.0, abs=0.01)


def test_too_few_days_are_refused_with_the_remedy():
    """An algorithm is not chosen on a month."""
    with pytest.raises(TrainingError, match="choose an earlier first day of train, or name the model"):
        profile_data(plant("linear", Shape(days=50)).data)
