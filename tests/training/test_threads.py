"""A training's key has the number of threads where that changes its bytes, and there alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_tasks.config import Settings, TrainingSettings
from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.modeling.fitting import Prepared
from mlops_tasks.modeling.identity import training_identity
from mlops_tasks.modeling.model_zoo.families import THREADS_CHANGE_BYTES
from mlops_tasks.modeling.model_zoo.zoo import model_zoo
from mlops_tasks.tuning.trial import fit_and_score
from tests.planted import Shape, plant

SMALL = Shape(days=100, instruments=30, features=24)
LARGE = Shape(days=420, instruments=300, features=158)
"""Rows enough for a library to share them among its threads."""


def scores(model: str, overrides: dict[str, Any], threads: int, shape: Shape) -> np.ndarray:
    """Of a training with so many threads."""
    config = resolve_config(model, overrides, seed=0)
    settings = Settings(home=Path("/nonexistent"), training=TrainingSettings(threads=threads))
    return fit_and_score(Prepared.of(plant("interaction", shape, 3).data, config), config, settings)["score"].to_numpy()


@pytest.mark.parametrize(
    ("model", "overrides", "same"), [("lightgbm", {"num_boost_round": 20}, True), ("mlp", {"epochs": 1}, False)]
)
def test_a_networks_bytes_depend_on_threads_and_lightgbms_do_not(
    model: str, overrides: dict[str, Any], same: bool
) -> None:
    """One and two threads: the same scores to the last bit have the same identity, and others another one."""
    one, two = (scores(model, overrides, threads, SMALL) for threads in (1, 2))
    assert np.array_equal(one, two) == same
    config = resolve_config(model, overrides, seed=0)
    assert (training_identity(config, 1) == training_identity(config, 2)) == same


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(n for n, e in model_zoo().items() if e.family not in THREADS_CHANGE_BYTES))
def test_what_is_known_without_threads_has_the_same_bytes(model: str) -> None:
    """Models of the zoo whose key leaves the threads out, on rows enough to be shared."""
    overrides = {"num_boost_round": 40} if "num_boost_round" in model_zoo()[model].hyperparameters else {}
    np.testing.assert_array_equal(*(scores(model, overrides, threads, LARGE) for threads in (1, 2)))
