"""Validation days that a training does not see: they change nothing of it, and are evidence of what it has learned."""

import numpy as np
import pytest

from mlops_tasks.columns import DATETIME
from mlops_tasks.errors import ConfigError, TrainingError
from mlops_tasks.evaluation.significance import cosine_mean
from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.modeling.fitting import Prepared
from mlops_tasks.tuning.trial import fit_and_score, unwatched
from tests.planted import ONE_THREAD, Shape, plant
from tests.tuning.luck import HORIZON, LIBRARY, Market

STOPPED = {"metric": "rank_ic", "patience": 30, "valid_share": 0.5}
SHAPE = Shape(days=200, instruments=20)


def days_of(data, segment):
    return data.features.index[data.rows(segment)].get_level_values(DATETIME).unique()


def test_the_first_days_are_watched_and_the_last_judge():
    """Of 40 days 20 are watched, then labels of the horizon and a day overlap; what is left out lies between."""
    data = plant("noise", SHAPE).data
    days, watched = days_of(data, "valid"), data.watched(0.5)
    assert list(days_of(watched, "valid")) == list(days[:20])
    assert len(watched.label) == watched.rows("valid").stop and "test" not in watched.segments
    assert watched.rows("train") == data.rows("train")
    assert data.unwatched_since(0.5, horizon=3) == days[24]
    assert data.watched(1.0) is data
    with pytest.raises(TrainingError, match="of 40 consecutive validation days, and with a gap of 2 days none is left"):
        data.unwatched_since(1.0, horizon=1)
    with pytest.raises(ConfigError, match="valid_share"):
        resolve_config("lightgbm", seed=0, stopping={"valid_share": 0.0})


def test_days_that_are_not_watched_do_not_change_a_training():
    """Other labels and features after the watched days: the same model, to the last bit; before, another one."""
    config = resolve_config("lightgbm", LIBRARY, seed=0, stopping=STOPPED)
    data = plant("linear", SHAPE).data
    expected = fit_and_score(Prepared.of(data, config), config, ONE_THREAD)
    last = data.watched(0.5).rows("valid").stop
    later, earlier = plant("linear", SHAPE).data, plant("linear", SHAPE).data
    later.label.iloc[last : data.rows("valid").stop] *= -1
    earlier.label.iloc[data.rows("valid").start : last] *= -1
    same, other = (fit_and_score(Prepared.of(each, config), config, ONE_THREAD)["score"] for each in (later, earlier))
    np.testing.assert_array_equal(same, expected["score"])
    assert not np.array_equal(other, expected["score"])


def test_only_unwatched_rows_are_evidence():
    """Validation rows from the first day on whose label no watched one overlaps."""
    config = resolve_config("lightgbm", {**LIBRARY, "num_boost_round": 2}, seed=0, stopping=STOPPED)
    data = plant("noise", SHAPE).data
    fold = Prepared.of(data, config)
    found = unwatched(fold, config, fit_and_score(fold, config, ONE_THREAD), HORIZON)
    assert found.index[0][0] == days_of(data, "valid")[22]


def test_stopping_on_noise_leaves_no_skill_on_days_that_it_has_not_seen(tmp_path):
    """Ten trainings on noise, stopped by rank IC: the mean of their t is two standard errors above zero on the days
    that stopped them, and not on others."""
    seen, unseen = [], []
    for number in range(10):
        market = Market(plant("noise", Shape(days=200, instruments=20), 7000 + number), tmp_path)
        days = market.planted.data.unwatched_since(0.5, HORIZON)
        daily = market.train(LIBRARY, 0, STOPPED).rank_ic("valid")
        parts = daily[daily.index < days][: -HORIZON - 1], daily[days:]
        for found, part in zip((seen, unseen), parts, strict=True):
            found.append(cosine_mean(part, terms=len(part) - 1).t)
    assert np.mean(seen) > 2 / np.sqrt(10) > abs(np.mean(unseen))
