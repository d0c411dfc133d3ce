"""Boosted trees: Qlib's own numbers, live metrics of every round, early stopping on any of them, divergence, memory."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from qlib.contrib.model.xgboost import XGBModel

from mlops_tasks.errors import TrainingError
from mlops_tasks.evaluation.ic import daily_ic, daily_rank_ic
from mlops_tasks.modeling.configuration import TrainingConfig, resolve_config
from mlops_tasks.modeling.model_zoo.boosting import RANK_IC_EVERY
from mlops_tasks.modeling.model_zoo.family import Predictor, find_family
from mlops_tasks.modeling.overfitting import OverfittingConfig
from mlops_tasks.modeling.problem import LearningProblem, learning_problem
from mlops_tasks.modeling.processors import FittedProcessors
from mlops_tasks.modeling.session import Links, TrainingSession
from mlops_tasks.modeling.stopping import StoppingConfig
from mlops_tasks.training.events import read_events
from tests.benchmarks.processes import in_process
from tests.planted import Planted, Shape, plant
from tests.training.descent import SmallMarket

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


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("metric", ["ic", "rank_ic"])
def test_a_detector_that_compares_ics_has_that_of_train(model: str, metric: str, problem, planted, tmp_path) -> None:
    """In every round; the kept round's is that of the saved model's scores. Trees and all other metrics are as ever."""
    stopping = StoppingConfig(overfitting=OverfittingConfig(metric=metric))
    session, predictor = train(config(model, stopping=stopping), problem, tmp_path / "compared")
    values = session.curves()[metric]["train"]
    rows = problem.learned(problem.train)
    index = planted.data.features.index[rows]
    daily = {"ic": daily_ic, "rank_ic": daily_rank_ic}[metric]
    scores = pd.Series(predictor.predict(problem.features[rows]).astype(float), index)
    expected = daily(scores, pd.Series(problem.realised[rows], index)).mean()
    assert len(values) == len(session.history) and None not in values
    assert values[session.best_iteration - 1] == pytest.approx(expected, abs=1e-6)
    plain, ordinary = train(config(model), problem, tmp_path / "plain")
    assert plain.curves()["loss"] == session.curves()["loss"]
    assert set(plain.curves()[metric]) == {"valid"}
    np.testing.assert_array_equal(ordinary.predict(problem.features), predictor.predict(problem.features))


def test_xgboost_is_qlibs_own(problem: LearningProblem, tmp_path) -> None:
    """Where nothing is drawn, Qlib's XGBModel stops at our round and, given as many rounds, predicts our numbers."""
    given = config("xgboost", colsample_bytree=1.0, subsample=1.0, num_boost_round=200)
    given = given.model_copy(update={"stopping": StoppingConfig(patience=10)})
    session, predictor = train(given, problem, tmp_path)
    best = session.best_iteration
    assert best < 200
    parameters = {name: value for name, value in given.hyperparameters.items() if name != "num_boost_round"}
    theirs = XGBModel(**parameters, seed=given.seed, nthread=1)
    curve: dict[str, Any] = {}
    theirs.fit(problem.dataset, num_boost_round=200, early_stopping_rounds=10, verbose_eval=0, evals_result=curve)
    assert theirs.model.best_iteration + 1 == best
    np.testing.assert_allclose(np.square(curve["valid"]), session.curves()["loss"]["valid"], rtol=1e-6)
    theirs.fit(problem.dataset, num_boost_round=best, verbose_eval=0, evals_result={})
    expected = theirs.model.predict(xgboost.DMatrix(problem.features))
    np.testing.assert_array_equal(predictor.predict(problem.features), expected)


def test_rows_and_columns_are_drawn_by_seed_and_round(problem: LearningProblem, tmp_path) -> None:
    """XGBoost's trees differ between seeds, and between rounds on a label that no tree reduces."""
    given = config("xgboost", num_boost_round=5, colsample_bytree=0.3)
    first = train(given, problem, tmp_path / "first")[1].predict(problem.features)
    again = train(given, problem, tmp_path / "again")[1].predict(problem.features)
    other = train(given.model_copy(update={"seed": 8}), problem, tmp_path / "other")[1].predict(problem.features)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("model", FAMILIES)
def test_importance_is_total_gain_by_name(model: str, problem: LearningProblem) -> None:
    """The two factors of the planted interaction have most of it; each factor has a number."""
    session, family = TrainingSession(config(model)), find_family(model)()
    importance = family.fit(problem, session).importance
    assert list(importance) == list(problem.names)
    assert set(sorted(importance, key=importance.__getitem__)[-2:]) == {"F0", "F1"}
    assert importance["F0"] + importance["F1"] > 0.6 * sum(importance.values())


@pytest.mark.parametrize("model", FAMILIES)
def test_a_row_scores_the_same_alone_and_in_company(model: str, problem: LearningProblem, tmp_path) -> None:
    """Bit for bit, missing values included."""
    _, predictor = train(config(model), problem, tmp_path)
    rows = problem.features[:50]
    alone = np.concatenate([predictor.predict(rows[i : i + 1]) for i in range(len(rows))])
    np.testing.assert_array_equal(predictor.predict(rows), alone)


@pytest.mark.parametrize("model", FAMILIES)
def test_an_absurd_learning_rate_ends_the_training_after_its_events(model: str, problem: LearningProblem) -> None:
    """Steps of a hundred times the residual make the loss grow; the error names the round, events reach up to it."""
    events: list[tuple[str, dict[str, Any]]] = []
    given = config(model)
    given = given.model_copy(update={"hyperparameters": {**given.hyperparameters, "learning_rate": 100.0}})
    links = Links(events=lambda kind, payload: events.append((kind, dict(payload))))
    with pytest.raises(TrainingError, match=rf"loss is .* at iteration \d+ .*hyperparameters\.{model}\.learning_rate"):
        find_family(model)().fit(problem, TrainingSession(given, links=links))
    rounds = [payload["iteration"] for kind, payload in events if kind == "iteration"]
    assert rounds == list(range(1, len(rounds) + 1))
    assert 1 < len(rounds) < 20


def test_a_metric_that_is_never_defined_is_an_error(problem: LearningProblem) -> None:
    """Scores that are all the same have no IC."""
    given = config("lightgbm", stopping=StoppingConfig(metric="ic"), lambda_l1=1e9)
    with pytest.raises(TrainingError, match=r"valid ic was undefined in all 60 rounds.*weaken the penalties"):
        find_family("lightgbm")().fit(problem, TrainingSession(given))


def test_an_infinite_feature_is_refused_by_xgboost(problem: LearningProblem) -> None:
    """With a remedy."""
    features = problem.features.copy()
    features[3, 0] = np.inf
    with pytest.raises(TrainingError, match=r"XGBoost refused to train: .*inf.*correct the features"):
        find_family("xgboost")().fit(replace(problem, features=features), TrainingSession(config("xgboost")))


def test_a_run_that_diverges_ends_as_failed_with_its_events(tmp_path) -> None:
    """Through the engine: the rounds up to the one that diverged, then `failed` with the reason, and no model."""
    market = SmallMarket.make(tmp_path)
    parameters = {**config("lightgbm").hyperparameters, "learning_rate": 100.0}
    run = market.start_config(config("lightgbm").model_copy(update={"model": "hasty", "hyperparameters": parameters}))
    with pytest.raises(TrainingError, match="diverges"):
        run.supervise()
    events = read_events(market.settings, run.run_id, limit=500)
    rounds = [event.payload["iteration"] for event in events if event.kind == "iteration"]
    assert rounds == list(range(1, len(rounds) + 1)) and rounds
    assert events[-1].kind == "failed"
    assert f"at iteration {rounds[-1]}" in events[-1].payload["reason"]
    assert not list(market.settings.training_dir.glob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [30_000, 120_000])
@pytest.mark.parametrize("model", ["lightgbm", "xgboost", "linear"])
def test_the_estimated_memory_is_an_upper_bound_within_a_factor_of_two(model: str, rows: int) -> None:
    """Of the measured peak of a fit in a process of its own."""
    found = in_process("tests.training.peak", model, rows)
    assert found["peak"] <= found["estimate"] <= 2 * found["peak"]
