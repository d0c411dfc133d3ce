"""Queries behind the live pages, on SQLite and on PostgreSQL: what is new, what a DAG run has started, thin curves."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlops_tasks.config import Settings
from mlops_tasks.state.deployments import deployments_after, newest_deployment_id, record_deployment
from mlops_tasks.state.rollouts import (
    newest_rollout_step_id,
    record_rollout,
    record_rollout_step,
    rollout_steps_after,
)
from mlops_tasks.state.training_runs import (
    finished_trainings,
    last_training_events,
    new_training_events,
    training_runs_of,
)
from mlops_tasks.states import RolloutState
from mlops_tasks.training.curves import run_curves
from mlops_tasks.training.estimates import past_seconds
from mlops_tasks.training.events import trainings_of
from tests.plugins.runs import DAG_RUN, FINISHED, Runs
from tests.plugins.streams import WAITING, deployment
from tests.postgres import DATABASES, settings_on


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty database of its own."""
    with settings_on(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def runs(settings: Settings) -> Runs:
    """Writes training runs."""
    return Runs(settings, datetime(2026, 3, 2, tzinfo=UTC))


def test_steps_of_deployments_and_rollouts_come_in_order_after_any_id(settings: Settings) -> None:
    """Each once; the newest id is 0 before the first."""
    assert newest_deployment_id(settings) == newest_rollout_step_id(settings) == 0
    for state in ("started", "failed", "started"):
        assert record_deployment(settings, deployment(state))
    record_rollout(settings, WAITING)
    record_rollout_step(settings, WAITING, replace(WAITING, state=RolloutState.ABORTED))
    steps = deployments_after(settings, 0, 10)
    assert [row.state for row in steps] == ["started", "failed", "started"]
    assert newest_deployment_id(settings) == steps[-1].id
    assert [row.id for row in deployments_after(settings, steps[0].id, 1)] == [steps[1].id]
    first, second = rollout_steps_after(settings, 0, 10)
    assert (first.state, second.state) == ("waiting", "aborted")
    assert rollout_steps_after(settings, newest_rollout_step_id(settings), 10) == []


def test_a_dag_run_has_the_trainings_that_it_has_started(settings: Settings, runs: Runs) -> None:
    """The newest first; another run's, and another DAG's of the same name, are not among them."""
    made = [runs.open("linear").run_id, runs.open("lightgbm").run_id]
    found = training_runs_of(settings, DAG_RUN.dag_id, DAG_RUN.run_id)
    assert [run.run_id for run in found] == made[::-1]
    assert [each.run_id for each in trainings_of(settings, DAG_RUN.dag_id, DAG_RUN.run_id)] == made[::-1]
    assert training_runs_of(settings, "tune_models", DAG_RUN.run_id) == []
    assert training_runs_of(settings, DAG_RUN.dag_id, "none") == []


def test_curves_are_thinned_out_evenly_with_the_newest_iteration(settings: Settings, runs: Runs) -> None:
    """Whatever number of points is asked for, and as of any event; samples of resources likewise."""
    run = runs.open()
    for first in range(1, 1000, 100):
        run.iterate(first, first + 99, total=1000)
        run.add(("resources", {"cpu_percent": first / 10, "rss_mb": 100.0, "threads": 3}), ("resources", {}))
    whole = run_curves(settings, run.run_id, 5000)
    assert [step.iteration for step in whole.steps] == list(range(1, 1001)) and whole.until == run.sequence
    assert [sample.used["cpu_percent"] for sample in whole.samples] == [number / 10 for number in range(1, 1000, 100)]
    assert whole.samples[0].used.keys() == {"cpu_percent", "rss_mb"}
    thin = [step.iteration for step in run_curves(settings, run.run_id, 300).steps]
    assert thin[-1] == 1000 and len(thin) == 250 and {b - a for a, b in zip(thin, thin[1:], strict=False)} == {4}
    early = run_curves(settings, run.run_id, 5000, until=53)
    assert early.until == 53 and early.steps[-1].iteration == 50 and early.steps[-1].best == 22


def test_a_log_ends_with_the_newest_events_that_are_no_curves(settings: Settings, runs: Runs) -> None:
    """Newest first, as of an event, so many."""
    run = runs.finished()
    kinds = [event.kind for event in last_training_events(settings, run.run_id, run.sequence, 3, ("iteration",))]
    assert kinds == ["finished", "stage", "stage"]
    assert [each.sequence for each in last_training_events(settings, run.run_id, 2, 10)] == [2, 1]


def test_the_time_of_a_model_is_told_by_those_that_were_trained(settings: Settings, runs: Runs) -> None:
    """What was found finished took no time, and other models say nothing; without any it is not known."""
    assert past_seconds(settings, "lightgbm") is None
    for seconds, reused in ((10.0, False), (30.0, False), (0.1, True)):
        runs.open("lightgbm").add(("finished", {**FINISHED, "seconds": seconds, "reused": reused}))
    runs.open("linear").add(("finished", FINISHED))
    assert len(finished_trainings(settings, "lightgbm", 10)) == 3
    told = past_seconds(settings, "lightgbm")
    assert told is not None and (told.trainings, told.least, told.median, told.most) == (2, 10.0, 20.0, 30.0)


def test_many_followed_runs_are_asked_for_in_one_query(settings: Settings, runs: Runs) -> None:
    """As many as the event stream asks for at once."""
    made = [runs.open().run_id for _ in range(5)]
    heads = dict.fromkeys((*made, *(f"none-{number}" for number in range(195))), 1)
    found = new_training_events(settings, heads, 100)
    assert {event.run_id for event in found} == set(made) and len(found) == 10
