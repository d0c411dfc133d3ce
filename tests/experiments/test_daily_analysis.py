"""The daily analysis of an experiment: planted effects are found with their size, and what must stop it stops it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_tasks.config import Settings
from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.daily_analysis import Advice, ExperimentAnalysis, analyse_experiment
from mlops_tasks.experiments.daily_task import analyze_experiments_task
from mlops_tasks.experiments.lifecycle import create_experiment, create_layer, experiments, running_traffic
from mlops_tasks.experiments.metric_events import ingest_events
from mlops_tasks.state.alerts.handling import open_episodes
from mlops_tasks.state.experiments import analyses_of
from mlops_tasks.states import ExperimentState, UnitKind
from tests.experiments.designs import design, running
from tests.registry.conftest import migrated_mlflow, new_home

__all__ = ["migrated_mlflow"]

BEGAN = datetime(2024, 1, 1, tzinfo=UTC)
UNITS = [f"account-{number}" for number in range(40)]


@pytest.fixture
def settings(tmp_path: Path, migrated_mlflow: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An empty home, in which experiments begin on the first day of 2024."""
    monkeypatch.setattr("mlops_tasks.experiments.lifecycle.now", lambda: BEGAN)
    return new_home(tmp_path, migrated_mlflow, monkeypatch)


def measured(settings: Settings, days: int, cost: float, errors: float = 0.0, **changes: Any) -> ExperimentAnalysis:
    """After so many days on which the treatment adds this to both metrics."""
    running(settings, planned_days=120, looks="weekly", **changes)
    arms = running_traffic(settings).assign("orders", UNITS)
    draw = np.random.default_rng(3)

    def events() -> Iterator[dict[str, Any]]:
        for day in range(days):
            market = draw.normal(0, 5)
            for row, unit in enumerate(UNITS):
                treated = arms.arm_of(row) == "treatment"
                at = (BEGAN + timedelta(days=day, hours=10)).isoformat()
                for metric, effect, level in (("cost_bps", cost, market), ("errors", errors, 0.0)):
                    value = level + draw.normal(0, 1) + effect * treated
                    sent = {
                        "event_id": f"{metric}{day}-{row}",
                        "unit": unit,
                        "metric": metric,
                        "value": value,
                        "at": at,
                    }
                    yield {**sent, "value": value, "at": at}

    assert ingest_events(settings, "orders", events()).refused == 0
    return analyse_experiment(settings, "orders")


def test_a_better_arm_is_found_with_its_size(settings: Settings) -> None:
    """Lower costs are better; what all accounts have in common on a day does not hide it."""
    found = measured(settings, 60, cost=-0.5)
    primary = next(each for each in found.findings if not each.guard)
    assert primary.result is not None
    assert found.advice == Advice.STOP_WINNER and found.arm == "treatment" and found.days == 60
    assert primary.result.lower < -0.5 < primary.result.upper
    assert primary.result.effect == pytest.approx(-0.5, abs=0.15)
    assert found.ratio is not None and not found.ratio.mismatch
    lines = "\n".join(found.lines())
    assert "orders: stop winner (treatment), day 60 of 120" in lines and "The treatment is better" in lines
    assert "120 planned days" in lines, "the power is that of all the looks"


def test_the_method_that_was_registered_is_taken(settings: Settings) -> None:
    """Cosine terms, which need more days."""
    found = measured(settings, 120, cost=-0.5, method="obrien_fleming")
    assert {each.result.method for each in found.findings if each.result is not None} == {"obrien_fleming"}
    assert found.advice == Advice.STOP_WINNER


def test_harm_to_a_guard_comes_before_a_gain(settings: Settings) -> None:
    """The treatment costs less and fails more."""
    found = measured(settings, 60, cost=-0.5, errors=0.5)
    assert found.advice == Advice.STOP_HARM and found.arm == "treatment"
    guard = next(each for each in found.findings if each.guard)
    assert guard.verdict is not None and guard.verdict.outcome == "worse"


def test_nothing_is_said_before_the_first_look(settings: Settings) -> None:
    """Ten days are too few, however large the effect looks."""
    found = measured(settings, 10, cost=-0.5)
    assert found.advice == Advice.WAIT and found.days == 10
    assert all(each.result is None and each.waits_for for each in found.findings)


def test_without_an_effect_it_goes_on(settings: Settings) -> None:
    """And without any event, too; a draft has nothing to analyse."""
    assert measured(settings, 60, cost=0.0).advice == Advice.WAIT
    create_layer(settings, "other", UnitKind.ACCOUNT)
    create_experiment(settings, design(name="draft", layer="other"))
    with pytest.raises(ExperimentError, match="draft is a draft; start it"):
        analyse_experiment(settings, "draft")


def test_missing_units_are_noticed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the treatment's events are lost on their way."""
    monkeypatch.setattr("tests.experiments.test_daily_analysis.UNITS", [f"account-{n}" for n in range(2000)])
    running(settings)
    arms = running_traffic(settings).assign("orders", UNITS)
    sent = [
        {"event_id": unit, "unit": unit, "metric": "cost_bps", "value": 1.0, "at": BEGAN.isoformat()}
        for row, unit in enumerate(UNITS)
        if arms.arm_of(row) == "control" or row % 2
    ]
    ingest_events(settings, "orders", sent)
    found = analyse_experiment(settings, "orders")
    assert found.advice == Advice.DISTRUST
    assert "find out where before reading any metric" in found.lines()[1]


def test_the_daily_task_stops_what_does_harm(settings: Settings) -> None:
    """Once, with an alert, and records what it saw; a run after it finds nothing to do."""
    measured(settings, 60, cost=-0.5, errors=0.5)
    told = analyze_experiments_task()
    assert (told["advice"], told["stopped"]) == ({"orders": "stop_harm"}, ["orders"])
    assert (told["paused"], told["decided"]) == ([], [])
    assert experiments(settings)["orders"].state == ExperimentState.STOPPED
    (episode,) = open_episodes(settings)
    assert (episode.key.kind, episode.key.subject, episode.severity) == ("experiment_harmful", "orders", "critical")
    (row,) = analyses_of(settings, "orders")
    assert row.result["advice"] == "stop_harm" and row.days == 60
    assert analyze_experiments_task()["advice"] == {}


def test_the_daily_task_leaves_a_winner_to_people(settings: Settings) -> None:
    """It tells once that one is found, however often it runs, and goes on assigning."""
    measured(settings, 60, cost=-0.5)
    for _ in range(2):
        assert analyze_experiments_task()["advice"] == {"orders": "stop_winner"}
    assert experiments(settings)["orders"].state == ExperimentState.RUNNING
    assert [episode.key.kind for episode in open_episodes(settings)] == ["experiment_due"]
    assert len(analyses_of(settings, "orders")) == 1
