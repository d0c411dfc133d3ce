"""Cross-validation through the engine's families: planted truth, and nothing of a fold's test days in its scores."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.errors import ConfigError, TrainingError
from mlops_tasks.evaluation.splits import CombinatorialPurged, Gap, Split, WalkForward
from mlops_tasks.modeling.configuration import TrainingConfig, resolve_config
from mlops_tasks.modeling.cross_validation import cross_validate, path_rank_ics
from mlops_tasks.modeling.dataset import LearningData
from tests.planted import ONE_THREAD

DAYS = pd.bdate_range("2022-01-03", periods=240, name="datetime")
NAMES = [f"S{i:02d}" for i in range(30)]
CORRELATION = 0.3
RANK_IC = 6 / np.pi * np.arcsin(CORRELATION / 2)
"""Of two normal variables with this correlation."""
GAP = Gap(horizon=1, embargo_days=1)
WALK = WalkForward(100, 40, valid_days=20, gap=GAP)
CPCV = CombinatorialPurged(4, 2, valid_days=20, gap=GAP)


def panel() -> LearningData:
    """Four features; the label has the planted correlation with the first."""
    random = np.random.default_rng(0)
    index = pd.MultiIndex.from_product([DAYS, NAMES], names=["datetime", "instrument"])
    features = random.normal(size=(len(index), 4)).astype(np.float32)
    noise = random.normal(size=len(index))
    label = 0.02 * (CORRELATION * features[:, 0] + np.sqrt(1 - CORRELATION**2) * noise)
    return LearningData(pd.DataFrame(features, index, list("ABCD")), pd.Series(label, index, name="label"), {})


def config(model: str) -> TrainingConfig:
    light = {"lambda_l1": 0.0, "lambda_l2": 1.0, "num_leaves": 8, "num_boost_round": 30}
    return resolve_config(model, light if model == "lightgbm" else {}, seed=1)


@pytest.mark.parametrize("model", ["linear", "lightgbm"])
def test_walk_forward_finds_the_planted_rank_ic(model: str) -> None:
    """Out of fold, the mean daily rank IC is that of the planted correlation; every later day is tested once."""
    folds = list(cross_validate(panel(), WALK.splits(len(DAYS)), config(model), ONE_THREAD))
    daily = pd.concat([fold.daily for fold in folds])
    pd.testing.assert_index_equal(daily.index, DAYS[WALK.first_test_day :], check_names=False, check_freq=False)
    error = 1 / np.sqrt((len(NAMES) - 1) * len(daily))
    assert daily["rank_ic"].mean() == pytest.approx(RANK_IC, abs=3 * error + (0.02 if model == "lightgbm" else 0))
    assert (folds[0].best_iteration > 1) == (model == "lightgbm")


@pytest.mark.parametrize("model", ["linear", "lightgbm"])
@pytest.mark.parametrize("splits", [WALK, CPCV], ids=["walk-forward", "combinatorial"])
def test_a_fold_knows_nothing_of_its_test_days(model: str, splits: WalkForward | CombinatorialPurged) -> None:
    """Other labels within the gap around the test days, and other features in the gap, leave the scores bit-equal."""
    original, split = panel(), list(splits.splits(len(DAYS)))[1]
    (expected,) = cross_validate(original, [split], config(model), ONE_THREAD)
    day = DAYS.get_indexer(original.features.index.get_level_values("datetime"))
    secret = ~np.isin(day, np.concatenate([split.train, split.valid]))
    features = original.features.copy()
    features[secret & ~np.isin(day, split.test)] = 9.0
    label = original.label.where(~secret, -7.0 * original.label)
    changed = dataclasses.replace(original, label=label, features=features)
    (found,) = cross_validate(changed, [split], config(model), ONE_THREAD)
    pd.testing.assert_series_equal(found.score, expected.score, check_exact=True)
    known = dataclasses.replace(original, label=original.label.where(secret, -original.label))
    (other,) = cross_validate(known, [split], config(model), ONE_THREAD)
    assert not other.score.equals(expected.score), "labels that may be learned from do change the scores"


def test_combinatorial_folds_make_whole_backtest_paths() -> None:
    """Six splits of two of four groups: three paths over all days, each with the planted rank IC."""
    folds = list(cross_validate(panel(), CPCV.splits(len(DAYS)), config("linear"), ONE_THREAD))
    paths = path_rank_ics(CPCV, folds, DAYS)
    assert paths.shape == (len(DAYS), 3)
    error = 1 / np.sqrt((len(NAMES) - 1) * len(DAYS))
    np.testing.assert_allclose(paths.mean(), RANK_IC, atol=4 * error)
    first = folds[0].daily["rank_ic"]
    np.testing.assert_array_equal(paths.loc[first.index[:60], 0], first.iloc[:60])


def test_what_cannot_be_trained_is_refused() -> None:
    """No validation day, and days without labels, are errors that say so."""
    with pytest.raises(ConfigError, match="valid_days"):
        list(cross_validate(panel(), WalkForward(100, 40).splits(len(DAYS)), config("linear"), ONE_THREAD))
    days = np.arange(60)
    unlabelled = dataclasses.replace(panel(), label=panel().label.where(panel().label > 9))
    with pytest.raises(TrainingError, match=r"segment train .* has no labelled row"):
        list(cross_validate(unlabelled, [Split(days[:20], days[25:35], days[40:])], config("linear"), ONE_THREAD))
