"""Every family that is explained, from its artefact."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mlops_tasks.errors import ConfigError, ExplanationError
from mlops_tasks.explain.engine import ExplainOptions, explain
from mlops_tasks.explain.explanation import Method
from mlops_tasks.explain.gradients import ExpectedGradients
from tests.explain.artefacts import artefact, rows_of
from tests.explain.games import COLUMNS, lightgbm_model, matrix, xgboost_model


@pytest.mark.parametrize("family", ["lightgbm", "xgboost"])
def test_trees_are_explained_from_their_files(family: str) -> None:
    """The artefact's own scores are base and contributions, with the gap of the scores' precision."""
    booster = lightgbm_model(1) if family == "lightgbm" else xgboost_model(1)
    rows = rows_of(matrix(95, 2))
    model = artefact(family, features=COLUMNS, booster=booster)
    found = explain(model, rows)
    assert found.method is Method.TREES
    assert found.gap.share < (1e-14 if family == "lightgbm" else 1e-6)
    assert found.scores.equals(model.score(rows))
    assert list(found.contributions.columns) == model.feature_names
    assert found.contributions.index.equals(rows.index)


def test_a_window_model_is_explained_on_its_wanted_rows() -> None:
    """Contributions are summed over the days that it looks back on; the first days have none of their own."""
    values = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    model, rows = artefact("network", window=4), rows_of(values, window=4)
    found = explain(model, rows, rows, ExplainOptions(background_rows=4))
    assert found.contributions.shape == (70, 4)
    assert found.scores.equals(model.score(rows))


def test_integrals_of_a_function_of_single_features_and_of_a_product_are_shapley_values() -> None:
    """f = x0^3 + 2 x1 + x1 x2 against a background at b: each function's own difference, and half of a product's."""

    class Known(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, 0] ** 3 + 2 * x[:, 1] + x[:, 1] * x[:, 2]

    rng = np.random.default_rng(3)
    x, background = (rng.standard_normal((rows, 3)).astype(np.float32) for rows in (140, 5))
    found = ExpectedGradients(Known(), background, points=2, threads=1).contributions(x).values
    expected = np.zeros((140, 3))
    for b in background.astype(np.float64):
        expected[:, 0] += (x[:, 0].astype(np.float64) ** 3 - b[0] ** 3) / 5
        d1, d2 = x[:, 1] - b[1], x[:, 2] - b[2]
        expected[:, 1] += (2 * d1 + d1 * (b[2] + d2 / 2)) / 5
        expected[:, 2] += d2 * (b[1] + d1 / 2) / 5
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_row_of_a_network_is_explained_alike_whatever_rows_are_beside_it() -> None:
    """To the last bit."""
    values = np.random.default_rng(0).standard_normal((150, 4)).astype(np.float32)
    model, options = artefact("network"), ExplainOptions(background_rows=3, points=2)
    whole = explain(model, rows_of(values), rows_of(values), options).contributions.to_numpy()
    part = explain(model, rows_of(values[:20]), rows_of(values), options).contributions.to_numpy()
    assert whole[:20].tobytes() == part.tobytes()


def test_what_cannot_be_explained_is_refused() -> None:
    """A family without a way, a background that is missing or empty, options out of range."""
    values = np.zeros((20, 4), np.float32)
    linear = artefact("linear", coefficients=np.ones(4), intercept=0.0)
    rows = rows_of(values)
    with pytest.raises(ExplanationError, match="give rows of the training segment"):
        explain(linear, rows)
    with pytest.raises(ExplanationError, match="has no rows"):
        explain(artefact("network"), rows, replace(rows, wanted=np.zeros(20, np.bool_)))
    linear.manifest["family"] = "forest"
    with pytest.raises(ExplanationError, match="models of family forest are not explained; those of lightgbm"):
        explain(linear, rows)
    with pytest.raises(ConfigError, match="points must be 1 or more"):
        ExplainOptions(points=0)
