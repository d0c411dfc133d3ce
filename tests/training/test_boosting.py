"""Boosted trees: Qlib's own numbers, live metrics of every round, early stopping on any of them, divergence, memory."""

import numpy as np
import pandas as pd
import pytest

from mlops_tasks.evaluation.ic import daily_ic, daily_rank_ic
from mlops_tasks.training.configuration import TrainingConfig, resolve_config
from mlops_tasks.training.model_zoo.boosting import RANK_IC_EVERY
from mlops_tasks.training.model_zoo.family import Predictor, find_family
from mlops_tasks.training.problem import LearningProblem, learning_problem
from mlops_tasks.training.processors import FittedProcessors
from mlops_tasks.training.session import TrainingSession
from mlops_tasks.training.stopping import StoppingConfig
from tests.planted import Planted, Shape, plant

FAMILIES = ("lightgbm", "xgboost")
SMALL = {
    "lightgbm": {"num_leaves": 15, "learning_rate": 0.1, "lambda_l1": 0.0, "lambda_l2": 1.0},
    "xgboost": {"max_depth": 4, "learning_rate": 0.1},
}


@pytest.fixture(scope="module")
def planted() -> Planted:
    """An interaction of two of eight factors, some values absent."""
    return plant("interaction", Shape(days=120, instruments=40, snr=0.2, missing=0.02), seed=3)


@pytest.fixture(scope="module")
def problem(planted: Planted) -> LearningProblem:
    return learning_problem(planted.data, FittedProcessors(), "CSZScoreNorm")


def config(model: str, *, stopping: StoppingConfig | None = None, **overrides) -> TrainingConfig:
    """Small trees, 60 rounds at most."""
    made = resolve_config(model, {"num_boost_round": 60, **SMALL[model], **overrides}, seed=7)
    return made if stopping is None else made.model_copy(update={"stopping": stopping})


def train(given: TrainingConfig, problem: LearningProblem, tmp_path) -> tuple[TrainingSession, Predictor]:
    """The session of a training, and what scores from its files."""
    session, family = TrainingSession(given), find_family(given.family)()
    family.fit(problem, session)
    tmp_path.mkdir(exist_ok=True)
    family.save(tmp_path)
    return session, type(family).load(tmp_path, {}, 1)


@pytest.mark.parametrize("model", FAMILIES)
def test_every_round_has_losses_and_an_ic(model: str, problem: LearningProblem, planted: Planted, tmp_path) -> None:
    """Rank IC at the first and each fifth round; the kept round's metrics are those of the saved model's scores."""
    session, predictor = train(config(model), problem, tmp_path)
    curves, best = session.curves(), session.best_iteration
    rounds = len(session.history)
    assert all(None not in curves[name][part] for name, part in (("loss", "train"), ("loss", "valid"), ("ic", "valid")))
    there = [done for done, value in enumerate(curves["rank_ic"]["valid"], start=1) if value is not None]
    assert there == [1, *range(RANK_IC_EVERY, rounds + 1, RANK_IC_EVERY)]

    rows = problem.learned(problem.valid)
    scores = predictor.predict(problem.features[rows]).astype(np.float64)
    index = planted.data.features.index[rows]
    ic = daily_ic(pd.Series(scores, index), pd.Series(problem.realised[rows], index)).mean()
    assert curves["ic"]["valid"][best - 1] == pytest.approx(ic, abs=1e-9)
    loss = np.mean((scores - problem.label[rows]) ** 2)
    assert curves["loss"]["valid"][best - 1] == pytest.approx(loss, rel=1e-6)
    assert int(np.argmin(curves["loss"]["valid"])) + 1 == best
    assert curves["loss"]["train"][-1] < curves["loss"]["train"][0]


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("metric", ["ic", "rank_ic"])
def test_early_stopping_follows_any_metric(model: str, metric: str, problem: LearningProblem, planted, tmp_path):
    """The metric is there in every round, its best round is kept, and training ends `patience` rounds later."""
    given = config(model, stopping=StoppingConfig(metric=metric, patience=8), num_boost_round=400)
    session, predictor = train(given, problem, tmp_path)
    values = np.array(session.curves()[metric]["valid"], dtype=float)
    assert np.isfinite(values).all()
    assert session.best_iteration == int(np.argmax(values)) + 1
    assert len(values) == session.best_iteration + 8 < 400
    rows = problem.learned(problem.valid)
    index = planted.data.features.index[rows]
    daily = {"ic": daily_ic, "rank_ic": daily_rank_ic}[metric]
    scores = pd.Series(predictor.predict(problem.features[rows]).astype(float), index)
    assert daily(scores, pd.Series(problem.realised[rows], index)).mean() == pytest.approx(values.max(), abs=1e-9)
