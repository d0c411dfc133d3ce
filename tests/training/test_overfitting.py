"""The overfitting detector against closed forms, peers and planted truth."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlops_tasks.modeling.checkpoints import CheckpointFolder
from mlops_tasks.modeling.configuration import TrainingConfig, resolve_config
from mlops_tasks.modeling.dataset import fit_processors
from mlops_tasks.modeling.model_zoo.family import find_family
from mlops_tasks.modeling.overfitting import Metric, OverfittingConfig, Trend, median_slope
from mlops_tasks.modeling.problem import learning_problem
from mlops_tasks.modeling.session import Links, TrainingSession
from mlops_tasks.modeling.stopping import Conclusion, StoppingConfig, StoppingMonitor
from tests.planted import Shape, plant
from tests.training.descent import config

Curve = Sequence[float]
STEPS = np.arange(1, 101)


def followed(train: Curve, valid: Curve, metric: str = "loss", **keys: Any) -> tuple[StoppingMonitor, list[int]]:
    """A monitor after these metrics, and the iterations at which overfitting began or ceased."""
    patience = keys.pop("patience", 1000)
    made = OverfittingConfig.model_validate({"metric": metric, **keys})
    whole = {"metric": metric, "patience": patience, "overfitting": made}
    monitor = StoppingMonitor(StoppingConfig.model_validate(whole))
    changes = []
    for iteration, (ours, theirs) in enumerate(zip(train, valid, strict=True), 1):
        if monitor.update(iteration, {f"train.{metric}": ours, f"valid.{metric}": theirs}).changed:
            changes.append(iteration)
    return monitor, changes


@given(st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=60))
def test_trends_are_those_of_kendall_and_sen(values: list[float]) -> None:
    """Over any window, Kendall's statistic counts rising less falling pairs, and Sen's slope is SciPy's."""
    trend, window = Trend(5), np.array(values[-5:])
    for value in values:
        trend.append(value)
    rising = sum(np.sign(window[j] - window[i]) for i in range(5) for j in range(i + 1, 5))
    expected = (rising - np.sign(rising)) / math.sqrt(5 * 4 * 15 / 18)
    assert trend.z == pytest.approx(expected)
    slope = median_slope(list(range(5)), list(window))
    assert slope == pytest.approx(stats.theilslopes(window, np.arange(5)).slope, abs=1e-9)


def test_one_outlier_changes_no_slope() -> None:
    """A line with one wild value has the line's slope; a window that rises throughout has the largest statistic."""
    line = [3.0 + 0.5 * i for i in range(9)]
    assert median_slope(range(9), [*line[:4], 1e9, *line[5:]]) == pytest.approx(0.5, rel=0.2)
    trend = Trend(9)
    for value in line:
        trend.append(value)
    assert trend.z == pytest.approx(35 / math.sqrt(9 * 8 * 23 / 18))


@pytest.mark.parametrize(("metric", "sign"), [("loss", 1.0), ("ic", -1.0), ("rank_ic", -1.0)])
def test_a_valley_is_overfitted_beyond_its_floor(metric: str, sign: float) -> None:
    """Train falls for ever, validation only to its floor at 40: overfitting begins once it no longer falls; of ICs
    the mirror image."""
    train = 2.0 - STEPS / 60
    valid = 1.4 + np.abs(STEPS - 40) / 200
    monitor, changes = followed(sign * train, sign * valid, metric, window=10)
    assert monitor.detector.state == "overfitting"
    assert len(changes) == 1 and 41 <= changes[0] <= 49
    conclusion = monitor.conclusion()
    assert (conclusion.verdict, conclusion.kept_iteration) == ("overfitting", 40)
    kept = (1.4 - (2.0 - 40 / 60)) / 1.4
    assert conclusion.kept_gap == pytest.approx(kept)
    finding = monitor.detector.finding
    assert finding is not None
    assert finding.since == changes[0]
    assert finding.valid_slope == pytest.approx(sign / 200)
    assert finding.gap == pytest.approx((1.7 - (2.0 - 100 / 60)) / 1.7)
    assert f"train {metric}" in conclusion.explanation and "iteration 40" in conclusion.explanation


def test_a_wide_gap_is_no_overfitting_while_validation_improves_or_the_gap_stays() -> None:
    """What generalises less than it fits may still learn; what stands still does not get worse."""
    improving, none = followed(1.0 / STEPS, 1.0 + 1.0 / STEPS, window=10)
    assert (improving.detector.state, none) == ("learning", [])
    standing, none = followed(0.2 * np.ones(100), np.ones(100), window=10)
    assert (standing.detector.state, none) == ("healthy", [])


def test_a_narrow_gap_is_healthy_and_overfitting_ends_when_validation_improves_again() -> None:
    """A gap below the threshold never overfits; one that was passed is left when validation improves."""
    narrow, none = followed(1.0 - STEPS / 2000, np.ones(100), window=10, gap=0.06)
    assert (narrow.detector.state, none) == ("healthy", [])
    valid = np.r_[np.ones(50), 1.0 - np.arange(50) / 100]
    recovered, changes = followed(1.0 - STEPS / 125, valid, window=10)
    assert recovered.detector.state == "learning"
    assert changes[0] == 13, "the first gap of at least a tenth"
    assert len(changes) == 2 and 51 < changes[1] <= 60


def test_no_sentence_calls_healthy_what_gets_worse() -> None:
    """Validation rises beyond its floor at 40, the gap stays narrow: said is what is kept, and what of the rest."""
    rising = 1.0 + np.abs(STEPS - 40) / 2000
    conclusion = followed(0.99 * rising, rising, window=10)[0].conclusion()
    assert (conclusion.verdict, conclusion.kept_iteration) == ("healthy", 40)
    assert conclusion.explanation == (
        "healthy: iteration 40 is kept: train loss 0.99 is 1.0% ahead of valid loss 1; "
        "the 60 iterations after it were no better and are left out"
    )


def test_noise_about_the_threshold_changes_the_mind_once() -> None:
    """Gaps that swing about a rising trend are overfitting once, not at every swing."""
    noise = 0.02 * np.random.default_rng(0).standard_normal(100)
    _, changes = followed(1.0 - STEPS / 200 + noise, np.ones(100) + np.roll(noise, 7) / 4, window=10)
    assert len(changes) == 1


def test_the_window_follows_patience() -> None:
    """Between 5 and 20 iterations, unless it is set."""
    for patience, expected in ((1, 5), (7, 7), (50, 20)):
        assert StoppingMonitor(StoppingConfig(patience=patience)).detector.window == expected
    monitor = StoppingMonitor(StoppingConfig(overfitting=OverfittingConfig(window=33)))
    assert monitor.detector.window == 33


def test_validation_alone_says_only_whether_more_would_help() -> None:
    """Without train metrics nothing is called overfitting or healthy; a training that was cut off is named."""
    unknown, none = followed(np.full(100, np.nan), 1.0 + STEPS / 100)
    assert (unknown.conclusion().verdict, none) == ("unknown", [])
    assert "no train loss" in unknown.conclusion().explanation
    assert followed(np.full(100, np.nan), 1.0 / STEPS)[0].conclusion().verdict == "underfitting"
    assert StoppingMonitor(StoppingConfig()).conclusion().verdict == "unknown"
    few = followed([1.0, 0.9], [1.0, 0.9])[0].conclusion()
    assert few.verdict == "unknown" and "need 20 iterations" in few.explanation


def test_a_model_that_never_learned_and_one_that_was_cut_off_underfit() -> None:
    """Train never better than at first, or validation still improving at the end; not when it was stopped."""
    flat = followed(np.ones(100), np.ones(100))[0].conclusion()
    assert flat.verdict == "underfitting" and "never been better" in flat.explanation
    cut = followed(1.0 / STEPS, 1.02 / STEPS)[0].conclusion()
    assert cut.verdict == "underfitting" and "allow more" in cut.explanation
    done = followed(np.exp(-STEPS), 1.02 * np.maximum(np.exp(-STEPS), np.exp(-20.0)), patience=10)[0]
    assert done.conclusion().verdict == "healthy" or done.detector.state == "overfitting"


metrics_of_an_iteration = st.fixed_dictionaries(
    {},
    optional={
        "train.loss": st.one_of(st.floats(0.0, 2.0), st.just(math.nan)),
        "valid.loss": st.one_of(st.floats(0.0, 2.0), st.just(math.nan)),
    },
)


def _run(folder: Path, metrics: Sequence[Mapping[str, float]], crash_at: int | None) -> tuple[list[Any], Conclusion]:
    """Verdicts by iteration, and the conclusion, of a session that may be interrupted once."""
    made = config()
    stopping = StoppingConfig(patience=6, overfitting=OverfittingConfig(action="stop", window=5, gap=0.05))
    made = made.model_copy(update={"stopping": stopping, "checkpoint_every": 1})
    verdicts: list[Any] = [None] * len(metrics)
    while True:
        session = TrainingSession(made, links=Links(checkpoints=CheckpointFolder(folder)))
        restored = session.restore()
        for done in range((restored.iteration if restored else 0) + 1, len(metrics) + 1):
            verdicts[done - 1] = session.iteration(done, metrics[done - 1])
            session.checkpoint(done, lambda path: None)
            if done == crash_at:
                crash_at = None
                break
        else:
            return verdicts, session.conclude()


@settings(max_examples=20, deadline=None)
@given(st.lists(metrics_of_an_iteration, min_size=1, max_size=25), st.integers(1, 25))
def test_a_resumed_training_decides_the_same(
    tmp_path_factory: pytest.TempPathFactory, metrics: list[dict[str, float]], crash_at: int
) -> None:
    """Every verdict and the conclusion are functions of the metrics, wherever the training is interrupted."""
    losses = [{**each, "valid.loss": each.get("valid.loss", 1.0)} for each in metrics]
    finite = [{name: 1.0 if math.isnan(value) else value for name, value in each.items()} for each in losses]
    folder = tmp_path_factory.mktemp("resumed")
    undisturbed, resumed = _run(folder / "a", finite, None), _run(folder / "b", finite, crash_at)
    assert repr(resumed) == repr(undisturbed)


@given(st.lists(metrics_of_an_iteration, max_size=40), st.integers(0, 40))
def test_the_state_is_a_function_of_the_metrics(metrics: list[dict[str, float]], cut: int) -> None:
    """A monitor that was given the same metrics again, missing ones and NaN included, goes on as the first one does."""
    stopping = StoppingConfig(patience=6, overfitting=OverfittingConfig(window=5, gap=0.05))
    first, second = StoppingMonitor(stopping), StoppingMonitor(stopping)
    verdicts = [first.update(i, each) for i, each in enumerate(metrics, 1)]
    for i, each in enumerate(metrics[:cut], 1):
        second.update(i, dict(each))
    assert [second.update(i, each) for i, each in enumerate(metrics[cut:], cut + 1)] == verdicts[cut:]
    assert repr(second.conclusion()) == repr(first.conclusion())


def _trained(kind: str, **hyperparameters: Any) -> tuple[TrainingSession, list[dict[str, Any]], Conclusion]:
    """LightGBM on a planted market: the session, its decisions and the conclusion."""
    planted = plant(kind, Shape(days=200, instruments=50, snr=0.1))
    light = resolve_config("lightgbm", {"lambda_l1": 0.0, "lambda_l2": 0.0, **hyperparameters}, seed=1)
    return _fit(planted.data, light)


def _fit(data: Any, made: TrainingConfig) -> tuple[TrainingSession, list[dict[str, Any]], Conclusion]:
    decisions: list[dict[str, Any]] = []

    def keep(kind: str, payload: Mapping[str, Any]) -> None:
        if kind == "decision":
            decisions.append(dict(payload))

    session = TrainingSession(made, links=Links(events=keep))
    problem = learning_problem(data, fit_processors(data, made.feature_processors), made.label_processor)
    find_family(made.family)().fit(problem, session)
    return session, decisions, session.conclude()


def test_huge_trees_on_noise_are_overfitted_and_say_so_once() -> None:
    """The train loss runs away from a validation loss that rises; one event tells when it began, one why it ended."""
    session, decisions, conclusion = _trained("noise", num_leaves=500, learning_rate=0.2, num_boost_round=200)
    assert conclusion.verdict == "overfitting"
    losses = session.curves()["loss"]
    train, valid = losses["train"][-1], losses["valid"][-1]
    assert train is not None and valid is not None
    assert (
        f"train loss {train:.6g} is {1 - train / valid:.1%} ahead of valid loss {valid:.6g}" in conclusion.explanation
    )
    assert [each["about"] for each in decisions] == ["overfitting", "stop", "fit"]
    assert decisions[0]["gap"] >= 0.1 and decisions[0]["gap_z"] >= 1.96
    assert "has not improved" in decisions[1]["explanation"]


def test_a_regularised_model_of_a_linear_market_is_healthy() -> None:
    """Small trees, held back, on a market with a linear signal."""
    _, decisions, conclusion = _trained(
        "linear", num_leaves=8, lambda_l1=20.0, lambda_l2=20.0, learning_rate=0.1, num_boost_round=500
    )
    assert conclusion.verdict == "healthy", conclusion.explanation
    assert "gets worse" not in conclusion.explanation and "were no better" in conclusion.explanation
    assert 0 < conclusion.kept_gap < 0.1
    assert [each["about"] for each in decisions] == ["stop", "fit"]


FREE = {
    "lightgbm": {"num_leaves": 200, "learning_rate": 0.2, "lambda_l1": 0.0, "lambda_l2": 0.0, "num_boost_round": 120},
    "xgboost": {"max_depth": 8, "learning_rate": 0.2, "min_child_weight": 0.0, "num_boost_round": 120},
}
"""Trees that nothing holds back."""


@pytest.mark.parametrize("model", FREE)
@pytest.mark.parametrize("metric", ["ic", "rank_ic"])
def test_trees_that_are_not_held_back_overfit_noise_by_any_metric(model: str, metric: Metric) -> None:
    """Train's IC, which is reported for the detector alone, runs away from one about zero."""
    data = plant("noise", Shape(days=100, instruments=40)).data
    stop = StoppingConfig(patience=200, overfitting=OverfittingConfig(action="stop", metric=metric, gap=0.5))
    given = resolve_config(model, FREE[model], seed=1).model_copy(update={"stopping": stop})
    session, _, conclusion = _fit(data, given)
    assert conclusion.verdict == "overfitting" and len(session.history) < 120
    curves = session.curves()
    assert set(curves[metric]) == {"train", "valid"}
    train, valid = curves[metric]["train"], curves[metric]["valid"]
    assert train[-1] > 0.6 and abs(valid[-1]) < 0.1
    assert f"train {metric} {train[-1]:.6g}" in conclusion.explanation
    (other,) = {"ic", "rank_ic"} - {metric}
    assert set(curves[other]) == {"valid"}, "what nobody compares is not computed"


def test_a_healthy_model_is_healthy_by_rank_ic_too() -> None:
    """Small trees, held back: train's rank IC stays less than half ahead."""
    data = plant("linear", Shape(days=200, instruments=50, snr=0.1)).data
    held = {"num_leaves": 8, "lambda_l1": 20.0, "lambda_l2": 20.0, "learning_rate": 0.1, "num_boost_round": 500}
    stopping = StoppingConfig(overfitting=OverfittingConfig(metric="rank_ic", gap=0.5))
    light = resolve_config("lightgbm", held, seed=1).model_copy(update={"stopping": stopping})
    session, _, conclusion = _fit(data, light)
    assert conclusion.verdict == "healthy", conclusion.explanation
    assert 0 < conclusion.kept_gap < 0.5
    assert None not in session.curves()["rank_ic"]["train"]


def test_it_may_end_the_training_with_the_best_iteration_kept() -> None:
    """`action: stop` ends at the iteration at which `note` only notes, and keeps the same best iteration."""
    data = plant("noise", Shape(days=200, instruments=50)).data
    light = resolve_config("lightgbm", {"lambda_l1": 0.0, "lambda_l2": 0.0, "num_leaves": 500}, seed=1)
    noted, decisions, _ = _fit(data, light)
    stop = StoppingConfig(overfitting=OverfittingConfig(action="stop"))
    ended, why, _ = _fit(data, light.model_copy(update={"stopping": stop}))
    assert len(ended.history) == decisions[0]["iteration"] < len(noted.history)
    assert ended.best_iteration == noted.best_iteration
    assert why[1]["about"] == "stop" and why[1]["explanation"].startswith("it overfits: ")
