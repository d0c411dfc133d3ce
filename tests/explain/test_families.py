"""Every family of the zoo has an explainer, and every entry's class is explained, with gap and error stated."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

from mlops_tasks.explain.engine import ExplainOptions, explain, is_exact, needs_background
from mlops_tasks.explain.explanation import Explanation, Method
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.model_zoo.families import FAMILIES
from mlops_tasks.modeling.model_zoo.network import Architecture
from mlops_tasks.modeling.model_zoo.sklearn_family import SklearnPredictor
from mlops_tasks.modeling.model_zoo.zoo import ModelEntry, model_zoo
from mlops_tasks.modeling.networks.trainer import TrainerConfig
from mlops_tasks.modeling.processors import FittedProcessors
from tests.explain.artefacts import artefact, rows_of
from tests.explain.games import COLUMNS, label_of, lightgbm_model, matrix, xgboost_model

GAP = {"lightgbm": 1e-12, "xgboost": 1e-6, "linear": 1e-6, "network": 0.02, "sklearn": 1e-12}
"""Largest additivity gap of a family, as a share of the spread of the scores."""
JUMPS = {"informer": 0.15, "timesnet": 0.1}
"""The same of networks that choose (queries, periods), so that their scores jump on the way that is integrated."""


def of_entry(entry: ModelEntry) -> ModelArtefact:
    """A small model of an entry's family, or of its very network."""
    if entry.family == "linear":
        return artefact("linear", features=COLUMNS, coefficients=np.arange(COLUMNS), intercept=0.5)
    if entry.family == "network":
        trainer, hyperparameters = TrainerConfig.split(entry.defaults())
        made = Architecture(str(entry.class_path), COLUMNS, trainer.window, hyperparameters)
        return artefact("network", features=COLUMNS, window=trainer.window, architecture=made)
    booster = {"lightgbm": lightgbm_model, "xgboost": xgboost_model}[entry.family](1)
    return artefact(entry.family, features=COLUMNS, booster=booster)


def explained(model: ModelArtefact) -> Explanation:
    """Twenty rows, against others."""
    values = np.nan_to_num(matrix(20 + 10 * (model.window - 1), 2)).clip(-3, 3)
    background = np.nan_to_num(matrix(200, 3)).clip(-3, 3)
    rows, drawn = rows_of(values, model.window), rows_of(background, model.window)
    return explain(model, rows, drawn, ExplainOptions(background_rows=6, points=8, seed=5))


@pytest.mark.parametrize("name", list(model_zoo()))
def test_every_model_of_the_zoo_is_explained(name: str) -> None:
    """The sum is the score but for a small gap; what is drawn has an error, what is exact has none; again the same."""
    entry = model_zoo()[name]
    model = of_entry(entry)
    found, again = explained(model), explained(model)
    assert found.gap.share < JUMPS.get(name, GAP[entry.family])
    assert found.contributions.to_numpy().tobytes() == again.contributions.to_numpy().tobytes()
    assert (found.contributions.abs().to_numpy().max() > 0) and np.isfinite(found.contributions.to_numpy()).all()
    if is_exact(model):
        assert found.sampling_error is None and found.error_share is None
    else:
        assert found.error_share is not None and 0 < found.error_share < 10


def test_every_family_has_an_explainer() -> None:
    """Also those of a user's own models, of scikit-learn and Qlib, which no shipped entry has."""
    from mlops_tasks.explain.engine import _FAMILIES

    assert _FAMILIES.keys() == FAMILIES.keys()


def test_an_estimator_is_explained_by_its_scores_alone() -> None:
    """A real one of scikit-learn: no gap, a stated error that shrinks with the rows drawn, and nothing for what it does
    not use."""
    values = matrix(400, 1)
    estimator = HistGradientBoostingRegressor(max_iter=10, random_state=0).fit(values, label_of(values, 1))
    base = artefact("linear", features=COLUMNS, coefficients=np.zeros(COLUMNS), intercept=0.0)
    manifest = {**base.manifest, "family": "sklearn"}
    model = ModelArtefact(base.folder, manifest, FittedProcessors(), SklearnPredictor(estimator, 1))  # type: ignore[arg-type]
    assert needs_background(model) and not is_exact(model)
    rows, background = rows_of(matrix(10, 2)), rows_of(values)
    few, more = (explain(model, rows, background, ExplainOptions(background_rows=count)) for count in (4, 32))
    assert few.method is Method.PERMUTATIONS
    for found in (few, more):
        assert found.gap.share < GAP["sklearn"]
        assert (found.contributions[["F5", "F6"]] == 0).all(axis=None)
    assert few.error_share is not None and more.error_share is not None
    assert more.error_share < few.error_share


def test_the_error_of_a_network_is_that_of_its_baselines() -> None:
    """Linear in x: the contributions' standard error is that of the mean of the drawn background, by the textbook."""

    class Known(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x[:, 0] - x[:, 1]

    from mlops_tasks.explain.gradients import ExpectedGradients

    rng = np.random.default_rng(0)
    x, background = (rng.standard_normal((rows, 2)).astype(np.float32) for rows in (3, 12))
    found = ExpectedGradients(Known(), background, points=1, threads=1).contributions(x)
    expected = np.array([2.0, 1.0]) * background.astype(np.float64).std(axis=0, ddof=1) / np.sqrt(12)
    np.testing.assert_allclose(np.sqrt(found.variances), np.tile(expected, (3, 1)), rtol=1e-4)
