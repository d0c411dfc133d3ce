"""Metrics of an experiment's models from the log of predictions: planted scores give the closed form's values."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from mlops_tasks.config import PortfolioSettings, Settings
from mlops_tasks.data.vintages import Vintage, current_vintage, publish, write_vintage
from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.daily_analysis import analyse_experiment
from mlops_tasks.experiments.design import PredictionMetric
from mlops_tasks.experiments.inference.offers import Data
from mlops_tasks.experiments.lifecycle import (
    Experiment,
    create_experiment,
    create_layer,
    history_of,
    move_experiment,
)
from mlops_tasks.experiments.metric_events import ingest_events
from mlops_tasks.experiments.prediction_metrics import ArmScores
from mlops_tasks.features.labels import forward_return
from mlops_tasks.registry.client import MODEL_NAME
from mlops_tasks.state.predictions import record_predictions
from mlops_tasks.state.tables import Prediction, PredictionScores
from mlops_tasks.states import ExperimentState, UnitKind
from tests.experiments.designs import design
from tests.monitoring.test_performance import answer, vintage_of
from tests.operation import bars
from tests.registry.conftest import migrated_mlflow, new_home, new_operation, vintage_template
from tests.registry.trainings import DAYS, INSTRUMENTS, Spec

__all__ = ["migrated_mlflow", "vintage_template"]

FIRST, FAVOURED, END = 60, 90, 100
"""Places of days: from the first on versions 1 and 2 score the label and its opposite, then each has a favourite."""
SCORED = DAYS[FIRST:END]
FREE = PortfolioSettings(topk=1, n_drop=1, open_cost_bps=0, close_cost_bps=0, min_cost=0)
NOT_ASKED = INSTRUMENTS[15:]
"""Names that nobody asked version 2 about."""
RANK_IC = {"name": "rank_ic", "source": "predictions", "smallest_effect": 0.01}


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path, vintage_template: tuple[Path, str, str]
) -> Iterator[Settings]:
    """Four versions, the last two with labels of five days, and what they were asked on the forty days `SCORED`;
    two were never asked."""
    with pytest.MonkeyPatch.context() as patch:
        settings = new_home(tmp_path_factory.mktemp("log"), migrated_mlflow, patch)
        operation = new_operation(settings, vintage_template)
        for key, horizon in (("a", 1), ("b", 1), ("c", 5), ("d", 5), ("e", 1), ("f", 1)):
            operation.register(Spec(key=key * 16, horizon=horizon))
        publish(settings, operation.vintage.data_version)
        create_layer(settings, "accounts", UnitKind.ACCOUNT, Decimal(0))
        record_predictions(settings, *log_of(settings, operation.vintage))
        yield settings


def log_of(settings: Settings, last: Vintage) -> tuple[list[Prediction], list[PredictionScores]]:
    """What the service logs of each day, while it is the newest one."""
    rows, tables = [], []
    labels = {horizon: forward_return(last, horizon) for horizon in (1, 5)}
    draw = np.random.default_rng(4)
    for place, day in enumerate(SCORED, FIRST):
        vintage = vintage_of(settings, DAYS[: place + 1])
        one, five = (labels[horizon].xs(day).astype(float) for horizon in (1, 5))
        noise = pd.Series(draw.normal(0, 0.04, len(five)), five.index)
        skilled = place < FAVOURED
        scores = {
            (1, "champion"): one if skilled else favourite("S003", one.index),
            (2, "shadow"): (-one if skilled else favourite("S007", one.index)).drop(NOT_ASKED),
            (3, "champion"): noise,
            (4, "canary"): five + noise.sample(frac=1, random_state=place).set_axis(five.index),
        }
        for (version, arm), values in scores.items():
            row, table = answer(vintage, values, len(rows) + 1, model_version=version, arm=arm)
            rows.append(row)
            tables.append(table)
    return rows, tables


def favourite(name: str, names: pd.Index) -> pd.Series:
    """The same scores every day, one name on top."""
    return pd.Series(-np.arange(len(names)) / 100, names).where(names != name, 1.0)


def at(day: pd.Timestamp) -> datetime:
    """Noon of a day."""
    return day.to_pydatetime().replace(tzinfo=UTC) + timedelta(hours=12)


class Steps:
    """Registers an experiment and takes it through its states on given days."""

    def __init__(self, settings: Settings, patch: pytest.MonkeyPatch) -> None:
        self.settings, self.patch = settings, patch

    def __call__(
        self, name: str, versions: Sequence[int], steps: Mapping[ExperimentState, pd.Timestamp], **changes: Any
    ) -> list[Experiment]:
        """The steps of an experiment of two versions."""
        settings = self.settings
        models = dict(zip(("control", "treatment"), versions, strict=True))
        made = design(name=name, share="0.05", models=models, **({"primary": RANK_IC, "guards": []} | changes))
        self.patch.setattr("mlops_tasks.experiments.lifecycle.now", lambda: at(DAYS[0]))
        create_experiment(settings, made)
        for state, day in steps.items():
            self.patch.setattr("mlops_tasks.experiments.lifecycle.now", lambda day=day: at(day))
            move_experiment(settings, name, state, "on its way")
        return history_of(settings, name)


@pytest.fixture
def steps(home: Settings, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """On the home of this module."""
    return Steps(home, monkeypatch)


GONE = 6
"""A version that is removed from the registry while its experiment runs."""
RUNNING, PAUSED, STOPPED = ExperimentState.RUNNING, ExperimentState.PAUSED, ExperimentState.STOPPED


def text(days: pd.DatetimeIndex) -> list[str]:
    """Days as the analysis names them."""
    return [str(day.date()) for day in days]


def test_scores_that_are_the_label_and_its_opposite(home: Settings, steps: Steps) -> None:
    """ICs of 1 and -1, on the names that both were asked for, on the days on which the experiment ran."""
    history = steps("perfect", (1, 2), {RUNNING: DAYS[65], STOPPED: DAYS[80]})
    scores = ArmScores(home, history)
    for metric in (PredictionMetric.RANK_IC, PredictionMetric.IC):
        found = scores.paired(metric, "treatment")
        assert list(found.values.index) == text(DAYS[65:80]) and found.data is None
        np.testing.assert_allclose(found.values, np.tile([1.0, -1.0], (15, 1)))
    hits = scores.paired(PredictionMetric.HIT_RATE, "treatment").values
    assert (hits["control"] == 1).all() and (hits["treatment"] == 0).all()
    label = forward_return(current_vintage(home), 1).drop(NOT_ASKED, level="instrument")
    best = scores.paired(PredictionMetric.TOP_RETURN, "treatment").values
    for day in (DAYS[65], DAYS[79]):
        own = label.xs(day).astype(float)
        expected = [own.max() - own.mean(), own.min() - own.mean()]
        np.testing.assert_allclose(best.loc[str(day.date())], expected, rtol=1e-6)


def test_a_pause_does_not_count(home: Settings, steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day counts if the experiment was running when it ended."""
    history = steps("paused", (1, 2), {RUNNING: DAYS[65], PAUSED: DAYS[70]})
    monkeypatch.setattr("mlops_tasks.experiments.lifecycle.now", lambda: at(DAYS[75]))
    move_experiment(home, "paused", RUNNING, "back")
    found = ArmScores(home, history_of(home, "paused")).paired(PredictionMetric.RANK_IC, "treatment")
    assert list(found.values.index) == [*text(DAYS[65:70]), *text(DAYS[75:END])] and len(history) == 3


def test_no_outcome_is_used_before_it_is_known_and_none_changes_later(home: Settings, steps: Steps) -> None:
    """With bars up to each day: only labels that exist, and the same values whatever the bars after them are."""
    history = steps("known", (3, 4), {RUNNING: SCORED[0]})
    whole = ArmScores(home, history).paired(PredictionMetric.RANK_IC, "treatment")
    portfolio = PortfolioSettings(topk=3, n_drop=1)
    traded = home.model_copy(update={"portfolio": portfolio})
    account = ArmScores(traded, history).paired(PredictionMetric.PORTFOLIO_RETURN, "treatment")
    assert whole.data is Data.OVERLAPPING_LABELS and account.data is None
    assert list(whole.values.index) == text(SCORED) and list(account.values.index) == text(SCORED[1:])
    known = bars(DAYS[:90])
    later = bars(DAYS[90:110])
    wild = np.random.default_rng(1).uniform(0.5, 2.0, len(later))
    for column in ("open", "high", "low", "close", "vwap"):
        later[column] *= wild
    for frame, last in ((known, 90), (pd.concat([known, later]).sort_values(["instrument", "datetime"]), 110)):
        vintage = write_vintage(home, frame.reset_index(drop=True), None, {"source": "planted", "quarantined": 0})
        cut = ArmScores(traded, history, vintage)
        found = cut.paired(PredictionMetric.RANK_IC, "treatment").values
        assert list(found.index) == text(SCORED[: min(len(SCORED), last - 60 - 6)])
        pd.testing.assert_frame_equal(found.iloc[:24], whole.values.iloc[:24])
        earned = cut.paired(PredictionMetric.PORTFOLIO_RETURN, "treatment").values
        assert earned.index[-1] == str(DAYS[min(88, 99) if last == 90 else 99].date())
        pd.testing.assert_frame_equal(earned.iloc[:28], account.values.iloc[:28], rtol=1e-6)


def test_a_favourite_earns_its_return_at_its_cost(home: Settings, steps: Steps) -> None:
    """One name, bought at the close after the first score with 95% of the account (Qlib's risk degree), then held."""
    history = steps("favourites", (1, 2), {RUNNING: DAYS[90]})
    costly = FREE.model_copy(update={"open_cost_bps": 10.0})
    close = bars().set_index(["datetime", "instrument"])["close"].unstack().loc[DAYS[91] : DAYS[99]]
    free = ArmScores(home.model_copy(update={"portfolio": FREE}), history)
    paid = ArmScores(home.model_copy(update={"portfolio": costly}), history)
    returns = free.paired(PredictionMetric.PORTFOLIO_RETURN, "treatment").values
    assert list(returns.index) == text(DAYS[91:100])
    for arm, name in (("control", "S003"), ("treatment", "S007")):
        account = 0.05 + 0.95 * close[name] / close[name].iloc[0]
        np.testing.assert_allclose(returns[arm], account.pct_change().fillna(0.0), atol=2e-6)
        costs = paid.paired(PredictionMetric.PORTFOLIO_COST, "treatment").values[arm]
        assert costs.iloc[0] == pytest.approx(0.95 * 10e-4, rel=1e-3) and (costs.iloc[1:] == 0).all()
        turnover = free.paired(PredictionMetric.TURNOVER, "treatment").values[arm]
        assert turnover.iloc[0] == pytest.approx(0.95, abs=1e-3) and (turnover.iloc[1:] == 0).all()
    told = free.portfolios("treatment")
    assert told.days == 9 and "described, not tested" in told.said() and "drawdown" in told.said()
    assert told.treatment["annual_return"] == pytest.approx(returns["treatment"].mean() * 252)


def test_skill_is_found_with_overlapping_labels(home: Settings, steps: Steps) -> None:
    """The whole analysis: the better version is found by a method that keeps its level where labels overlap."""
    account = {"name": "turnover", "source": "predictions", "better": "lower", "smallest_effect": 0.1}
    steps("skill", (3, 4), {RUNNING: SCORED[0]}, planned_days=60, looks="weekly", guards=[account])
    found = analyse_experiment(home, "skill")
    primary = found.findings[0]
    assert (found.days, found.advice, found.arm) == (40, "stop_winner", "treatment")
    assert primary.case is not None and primary.case.data is Data.OVERLAPPING_LABELS
    assert primary.result is not None and 0.3 < primary.result.effect < 0.9 and primary.result.n == 40
    assert "described, not tested" in found.lines()[-1] and found.ratio is None
    assert found.to_json()["portfolios"][0]["treatment"]["max_drawdown"] <= 0


@pytest.mark.parametrize(
    ("versions", "metric", "said"),
    [
        ((1, GONE), "rank_ic", rf"the label of version {GONE} is not known"),
        ((1, 5), "turnover", r"arm treatment: version 5 has no scores .* trigger deploy_model with this version"),
        ((1, 3), "rank_ic", r"different horizons \(1 and 5 days\) .* compare portfolio_return"),
    ],
)
def test_what_cannot_be_compared_says_what_to_do(
    home: Settings, steps: Steps, versions: tuple[int, int], metric: str, said: str
) -> None:
    """The analysis goes on, and its finding has the reason."""
    name = f"without-{versions[1]}-{metric.replace('_', '-')}"
    steps(name, versions, {RUNNING: SCORED[0]}, primary={**RANK_IC, "name": metric})
    if GONE in versions:
        MlflowClient().delete_model_version(MODEL_NAME, str(GONE))
    found = analyse_experiment(home, name)
    assert found.advice == "wait" and found.days == 0
    with pytest.raises(ExperimentError, match=said):
        raise ExperimentError(found.findings[0].waits_for)


def test_events_of_a_computed_metric_are_refused(home: Settings, steps: Steps) -> None:
    """They would be counted beside what is computed."""
    steps("computed", (1, 2), {RUNNING: SCORED[0]})
    event = {"event_id": "1", "unit": "a", "metric": "rank_ic", "value": 0.1, "at": at(SCORED[1]).isoformat()}
    assert "computed from the log of predictions" in ingest_events(home, "computed", [event]).faults[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models": {}}, r"rank_ic is computed from the scores of models; name each arm's version"),
        ({"primary": {**RANK_IC, "name": "drawdown"}}, r"drawdown is a statistic of the whole path"),
        ({"primary": {**RANK_IC, "name": "rankic"}}, r"no metric 'rankic' of predictions; did you mean rank_ic"),
        ({"switchback": {"block": 5, "washout": 1}}, r"compares both versions on every day"),
    ],
)
def test_wrong_metrics_of_predictions_are_refused(changes: dict[str, Any], said: str) -> None:
    """With what to do."""
    with pytest.raises(ExperimentError, match=said):
        design(**{"models": {"control": 1, "treatment": 2}, "primary": RANK_IC, "guards": [], **changes})
