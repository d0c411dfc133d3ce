"""Partial dependence against closed forms, in units before processing."""

from dataclasses import replace

import numpy as np
import pytest

from mlops_tasks.errors import ConfigError, ExplanationError
from mlops_tasks.explain.partial_dependence import partial_dependence
from mlops_tasks.explain.sample import SampleSize, sample_of_days
from mlops_tasks.modeling.processors import FittedProcessors
from tests.explain.artefacts import artefact, rows_of
from tests.explain.games import COLUMNS, lightgbm_model, matrix


def test_a_linear_model_has_its_coefficient_as_slope() -> None:
    """Through the processors: coefficient / scale in raw units; a feature that clips is flat where it does."""
    values = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)
    values[:, 2] *= 100
    values[::7, 0] = np.nan
    model = artefact("linear", coefficients=[0.5, -2.0, 1.0, 0.0], intercept=1.0)
    model = replace(model, processors=FittedProcessors(np.array([0.0, 1.0, 0.0, 0.0]), np.array([1.0, 2.0, 1.0, 1.0])))
    rows = rows_of(values)
    found = {each.feature: each for each in partial_dependence(model, rows, ["F0", "F1", "F2", "F3"], points=5)}
    for name, slope in (("F0", 0.5), ("F1", -1.0), ("F3", 0.0)):
        each = found[name]
        np.testing.assert_allclose(np.diff(each.scores), slope * np.diff(each.values), rtol=0, atol=1e-5)
        assert each.direction == pytest.approx(np.sign(slope))
        assert each.range == pytest.approx(abs(slope) * np.ptp(each.values), abs=1e-5)
    clipped = found["F2"].values.clip(-3, 3)
    np.testing.assert_allclose(np.diff(found["F2"].scores), np.diff(clipped), rtol=0, atol=1e-5)
    assert found["F2"].range == pytest.approx(6.0)  # clipped at three deviations
    assert found["F0"].values[0] == pytest.approx(np.nanquantile(values[:, 0].astype(np.float64), 0.05))
    others = model.score(rows).mean()
    assert min(found["F3"].scores) == pytest.approx(others, abs=1e-5) == max(found["F3"].scores)


def test_trees_agree_with_the_definition() -> None:
    """The mean of the model's own scores of rows that have the value; an unused feature changes nothing."""
    values = matrix(120, 2)
    model = artefact("lightgbm", features=COLUMNS, booster=lightgbm_model(1))
    rows = rows_of(values)
    first, unused = partial_dependence(model, rows, ["F0", "F5"], points=4)
    for value, score in zip(first.values, first.scores, strict=True):
        varied = rows.features.assign(F0=np.float32(value))
        assert score == pytest.approx(model.predict(varied).mean(), abs=1e-12)
    assert (len(unused.values), unused.range, unused.direction) == (1, 0.0, 0.0)


def test_a_window_model_has_the_value_on_all_days_of_its_window() -> None:
    """As when all of the feature's past were that value."""
    values = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    model, rows = artefact("network", window=4), rows_of(values, window=4)
    (found,) = partial_dependence(model, rows, ["F1"], points=3)
    for value, score in zip(found.values, found.scores, strict=True):
        varied = replace(rows, features=rows.features.assign(F1=np.float32(value)))
        assert score == pytest.approx(model.score(varied).mean(), abs=1e-6)
    assert found.rows == 70


def test_what_cannot_be_varied_is_refused() -> None:
    """An unknown feature, no row, one point; a feature without any value has an empty grid."""
    model, rows = artefact("linear", coefficients=np.ones(4), intercept=0.0), rows_of(np.ones((20, 4), np.float32))
    with pytest.raises(ExplanationError, match="no feature X"):
        partial_dependence(model, rows, ["X"])
    with pytest.raises(ExplanationError, match="no row to vary"):
        partial_dependence(model, replace(rows, wanted=np.zeros(20, np.bool_)), ["F0"])
    with pytest.raises(ConfigError, match="must be 2 or more"):
        partial_dependence(model, rows, ["F0"], points=1)
    empty = rows_of(np.full((20, 4), np.nan, np.float32))
    (found,) = partial_dependence(model, empty, ["F0"])
    assert len(found.values) == 0 and found.range == 0.0


def test_a_sample_is_of_evenly_spaced_days_and_the_same_for_the_same_seed() -> None:
    """First and last day are in it, no day has more names than asked for, and smaller panels are taken whole."""
    rows = rows_of(np.zeros((500, 4), np.float32))  # 50 days of ten names
    found = sample_of_days(rows, SampleSize(days=8, names=3), seed=1)
    counts = found.index.get_level_values(0).value_counts().sort_index()
    assert len(counts) == 8 and (counts == 3).all()
    assert counts.index[0] == rows.calendar[0] and counts.index[-1] == rows.calendar[-1]
    assert sample_of_days(rows, SampleSize(8, 3), seed=1).index.equals(found.index)
    assert not sample_of_days(rows, SampleSize(8, 3), seed=2).index.equals(found.index)
    assert sample_of_days(rows, SampleSize(99, 99)).wanted.all()
    with pytest.raises(ConfigError, match="names of a sample must be 1 or more"):
        SampleSize(1, 0)
