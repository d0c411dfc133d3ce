"""The search: deterministic, resumable, within its budgets, blind for the test segment, and finds what is planted."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from mlops_tasks.config import StackSettings, TrainingSettings
from mlops_tasks.errors import CapacityError, ConfigError, StageError, StoreError, TrainingError
from mlops_tasks.evaluation.ic import daily_rank_ic
from mlops_tasks.machine.admission import Admission
from mlops_tasks.machine.memory_need import MemoryNeed
from mlops_tasks.modeling.configuration import resolve_config
from mlops_tasks.modeling.dataset import LearningData
from mlops_tasks.process import run_stage
from mlops_tasks.stage_process import StageProcess, end_group
from mlops_tasks.state.resource_requests import resource_events
from mlops_tasks.state.trials import trials_of
from mlops_tasks.tuning.optimizer import (
    CONFIG,
    REASON,
    RETRY_OF,
    WAITED,
    WORKER,
    HyperparameterOptimizer,
    StudySubject,
    seconds_of,
)
from mlops_tasks.tuning.report import list_studies
from mlops_tasks.tuning.storage import study_store
from mlops_tasks.tuning.study import StudyConfig
from mlops_tasks.tuning.trial import folds_of, iteration_observer, weekly_means, without_test
from tests.planted import Shape, plant
from tests.postgres import postgres_schema
from tests.tuning.pointer import optimizer, planted, settings_of
from tests.waiting import wait_for

PLANTED = planted()


def configurations(found: HyperparameterOptimizer) -> list[dict]:
    """What was tried, in order, lost trials not counted."""
    return [trial.params for trial in found.study.trials if trial.state != optuna.trial.TrialState.FAIL]


def daily(found: HyperparameterOptimizer) -> list[dict]:
    return [row.result for row in trials_of(found.settings, found.name)]


@pytest.mark.usefixtures("pointer_zoo")
@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "cmaes"])
def test_every_sampler_finds_most_of_what_is_planted(sampler, tmp_path):
    """The linear signal gives F0 and F7 opposite signs, so that the best rank IC needs a focus near 1; the default
    of 0.5 has none. CMA-ES searches the numbers only."""
    config = {"sampler": sampler, "pruner": "none", "trials": 24, "startup_trials": 6}
    if sampler == "cmaes":
        config["fixed"] = {"sign": True}
    found = optimizer(settings_of(tmp_path), config)
    assert found.run(PLANTED.data) == 24
    (best,) = found.best()
    rows = PLANTED.data.features.index.get_level_values("datetime") >= PLANTED.data.unwatched_since(0.5, 1)
    rows[PLANTED.data.rows("valid").stop :] = False
    optimum = daily_rank_ic(PLANTED.data.features["F0"].iloc[rows], PLANTED.data.label.iloc[rows]).mean()
    assert best.values[0] > 0.7 * optimum > 0.1
    assert found.study.trials[0].params["focus"] == 0.5
    assert abs(found.study.trials[0].values[0]) < 0.05


@pytest.mark.usefixtures("pointer_zoo")
def test_one_worker_is_deterministic_and_an_interruption_changes_nothing(tmp_path):
    """Twice the same study is the same trials with the same daily rank ICs; so it is when the worker ends after each
    few trials and another process goes on."""
    config = {"trials": 14, "startup_trials": 5, "pruner": "none"}
    whole, again, parts = (optimizer(settings_of(tmp_path / name), config) for name in "abc")
    assert whole.run(PLANTED.data) == again.run(PLANTED.data) == 14
    finished = []
    for count in (3, 4, 100):
        parts = HyperparameterOptimizer(parts.settings, parts.config, parts.subject)
        finished.append(parts.run(PLANTED.data, stop_after=count))
    assert finished == [3, 4, 7]
    assert configurations(whole) == configurations(again) == configurations(parts)
    assert daily(whole) == daily(again) == daily(parts)
    assert len({tuple(each.items()) for each in configurations(whole)}) == 14
    assert whole.run(PLANTED.data) == 0


@pytest.mark.usefixtures("pointer_zoo")
def test_a_larger_budget_goes_on_with_the_same_study(tmp_path):
    """The trials that are there count; a study is found by its name with the budget that it was last given."""
    few = optimizer(settings_of(tmp_path), {"trials": 4})
    few.run(PLANTED.data)
    more = optimizer(few.settings, {"trials": 6})
    assert more.name == few.name
    assert more.run(PLANTED.data) == 2
    loaded = HyperparameterOptimizer.load(few.settings, few.name)
    assert (loaded.config, loaded.subject.to_json()) == (more.config, more.subject.to_json())
    with pytest.raises(StoreError, match="no study nothing"):
        HyperparameterOptimizer.load(few.settings, "nothing")


@pytest.mark.usefixtures("pointer_zoo")
def test_a_study_is_found_under_the_name_that_it_was_given(tmp_path):
    """Also when a release since has a field more, and so other names; it goes on where it was."""
    now, old = optimizer(settings_of(tmp_path), {"trials": 3}), "pointer-old"
    now.run(PLANTED.data, stop_after=2)
    storage = study_store(now.settings).storage()
    optuna.copy_study(from_study_name=now.name, from_storage=storage, to_storage=storage, to_study_name=old)
    asked = {name: value for name, value in now.config.model_dump(mode="json").items() if name != "startup_trials"}
    optuna.load_study(study_name=old, storage=storage).set_user_attr(CONFIG, asked)
    found = HyperparameterOptimizer.load(now.settings, old)
    assert found.name == old and found.config == now.config
    assert found.run(PLANTED.data) == 1
    assert {each["study"]: each["trials"] for each in list_studies(now.settings)} == {now.name: 2, old: 3}


@pytest.mark.usefixtures("pointer_zoo")
def test_listing_writes_nothing_and_needs_no_zoo(tmp_path, monkeypatch):
    """Studies of a model that is gone are listed with what they found; only to go on is refused."""
    found = optimizer(settings_of(tmp_path), {"trials": 4})
    found.run(PLANTED.data, stop_after=2)
    database = found.settings.tuning_dir / "studies.db"
    before = database.read_bytes()
    monkeypatch.undo()
    (listed,) = list_studies(found.settings)
    assert listed == {
        "study": found.name,
        "model": "pointer",
        "objectives": ["rank_ic"],
        "trials": 2,
        "budget": 4,
        "best": found.best()[0].values,
    }
    with pytest.raises(ConfigError, match="unknown model 'pointer'"):
        HyperparameterOptimizer.load(found.settings, found.name)
    assert database.read_bytes() == before


def test_the_search_never_sees_the_test_segment(tmp_path):
    """No row of it reaches a fold; other features and labels there change no trial, bit for bit."""
    made = plant("interaction", Shape(days=120, instruments=30, snr=0.2), seed=3)
    rows = made.data.rows("test")
    features, label = made.data.features.copy(), made.data.label.copy()
    features.iloc[rows], label.iloc[rows] = 1e6, np.nan
    other = LearningData(features, label, made.data.segments)
    config = StudyConfig(model="lightgbm", trials=3, fixed={"num_boost_round": 20, "lambda_l1": 0, "lambda_l2": 1})
    results = []
    for name, data in (("a", made.data), ("b", other)):
        found = HyperparameterOptimizer(settings_of(tmp_path / name), config, StudySubject("v", "f", 1, data.segments))
        found.run(data)
        results.append(daily(found))
        last = without_test(data).features.index[-1][0].date()
        assert last == data.segments["valid"][1]
        assert "test" not in found.subject.to_json()["segments"]
    assert results[0] == results[1]
    assert all(each["rank_ic"] != 0 for each in results[0])


def test_walk_forward_folds_are_purged_and_cover_the_validation_days():
    """Each day is validated once, by a model that learns from all rows before it whose label ends before it."""
    made, horizon = plant("linear", Shape(days=100, instruments=10)), 2
    folds = folds_of(made.data, resolve_config("lightgbm", seed=1), 4, horizon)
    days = made.data.features.index.get_level_values(0)
    seen = np.concatenate([days[fold.data.rows("valid")].unique() for fold in folds])
    assert list(seen) == list(days[made.data.rows("valid")].unique())
    for fold in folds:
        problem = fold.problem
        learned = problem.day[problem.learned(problem.train)]
        assert learned.min() == 0
        assert learned.max() == problem.day[problem.valid].min() - horizon - 2
        assert problem.valid.stop == len(problem.label)
    with pytest.raises(TrainingError, match="too few for 20 folds"):
        folds_of(made.data, resolve_config("lightgbm", seed=1), 20, horizon)


@pytest.mark.usefixtures("pointer_zoo")
def test_trials_wait_for_their_turn_and_the_wait_is_no_training_time(tmp_path):
    """While somebody else holds the only slot nothing is trained; each trial is a request of its owner, and the time
    budget is of training alone."""
    settings = settings_of(tmp_path)
    settings = settings.model_copy(update={"training": settings.training.model_copy(update={"slots": 1, "threads": 1})})
    found = optimizer(settings, {"trials": 2, "time_s": 1.5})
    other = Admission(settings, "daily-run", "daily")
    assert other.ask(MemoryNeed(1, 1, 1.0, 0.0, 0.0)).granted
    giving_back = threading.Timer(4.0, other.release)
    giving_back.start()
    assert found.run(PLANTED.data, owner="ada", priority=2) == 2
    giving_back.join()
    waits = [trial.user_attrs[WAITED] for trial in found.study.trials]
    assert waits[1] < 0.5 < waits[0] < 5
    assert all(0 <= seconds_of(trial) < 1.5 for trial in found.study.trials)
    for number in range(2):
        events = resource_events(settings, f"{found.name}-{number}")
        assert [event.kind for event in events] == ["asked", "granted", "released"]
        assert {event.owner for event in events} == {"ada"}
        assert events[0].payload["priority"] == 2


@pytest.mark.usefixtures("pointer_zoo")
def test_a_full_machine_ends_a_worker_and_costs_no_configuration(tmp_path):
    """Free again, the machine tries what it refused; a configuration that it refuses twice has failed. So often as the
    workers come, each failure counts for its own worker only."""
    config = {"trials": 6, "pruner": "none"}
    free = settings_of(tmp_path)
    full = free.model_copy(update={"training": TrainingSettings(threads=1, memory_reserve_mb=1e9)})
    with pytest.raises(CapacityError):
        optimizer(full, config).run(PLANTED.data)
    found = optimizer(free, config)
    assert found.run(PLANTED.data, stop_after=2) == 2
    assert len(configurations(found)) == 2 and configurations(found)[0]["focus"] == 0.5
    for refused in range(6, 2, -1):
        with pytest.raises(CapacityError):
            optimizer(full, config).run(PLANTED.data)
        failed = [trial for trial in found.study.trials if REASON in trial.user_attrs]
        assert len(failed) == 6 - refused


@pytest.mark.usefixtures("pointer_zoo")
def test_what_the_machine_never_has_is_a_failed_configuration(tmp_path):
    """With a limit on all trainings nothing is waited for: those above it are recorded with the numbers."""
    settings = settings_of(tmp_path)
    training = settings.training.model_copy(update={"memory_limit_mb": 200.0})
    found = optimizer(settings.model_copy(update={"training": training}), {"trials": 8, "sampler": "random"})
    assert found.run(PLANTED.data) == 8
    failed = [row for row in trials_of(settings, found.name) if row.state == "failed"]
    assert failed and all("training.memory_limit_mb allows 200" in row.result["reason"] for row in failed)


@pytest.mark.usefixtures("pointer_zoo")
def test_a_trial_beyond_the_memory_budget_is_refused_and_recorded(tmp_path):
    """The family says 100 MB of scale: those above 2 are failed with the numbers, the others complete."""
    found = optimizer(settings_of(tmp_path), {"trials": 12, "memory_mb": 200, "sampler": "random"})
    assert found.run(PLANTED.data) == 12
    rows = trials_of(found.settings, found.name)
    assert [row.number for row in rows] == list(range(12))
    for row in rows:
        large = row.configuration["scale"] > 2
        assert row.state == ("failed" if large else "complete" if row.result.get("daily") else "pruned")
        assert not large or "memory_mb allows 200" in row.result["reason"]
    assert {row.state for row in rows} >= {"failed", "complete"}


@pytest.mark.usefixtures("pointer_zoo")
def test_the_time_budget_ends_the_search_and_the_trial_under_way(tmp_path):
    """Trials of 0.1 s and a budget of a quarter of a second: the third is cut off, a fourth not begun; also not by
    the next process."""
    config = {"trials": 50, "time_s": 0.25, "fixed": {"step_s": 0.01}, "pruner": "none"}
    found = optimizer(settings_of(tmp_path), config)
    began = time.monotonic()
    finished = found.run(PLANTED.data)
    assert time.monotonic() - began < 10
    assert 1 <= finished <= 4
    assert optimizer(found.settings, config).run(PLANTED.data) == 0
    assert {row.state for row in trials_of(found.settings, found.name)} <= {"complete", "pruned"}


def test_training_seconds_are_those_after_the_wait_and_of_trials_whose_end_is_known():
    """A trial of ten seconds, six of which it waited: as it ends, as it runs, before its turn, and lost."""
    complete, failed, running = TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING
    known = [
        (complete, {WAITED: 6.0}, 4.0),
        (failed, {WAITED: 6.0, REASON: "diverged"}, 4.0),
        (failed, {WAITED: 6.0}, 0.0),
        (running, {WAITED: 6.0}, 4.0),
        (running, {}, 0.0),
    ]
    for state, attributes, seconds in known:
        value = 0.1 if state == complete else None
        trial = optuna.trial.create_trial(state=state, value=value, user_attrs=attributes)
        trial.datetime_start = datetime.now() - timedelta(seconds=10)
        trial.datetime_complete = None if state == running else trial.datetime_start + timedelta(seconds=10)
        assert seconds_of(trial) == pytest.approx(seconds, abs=0.5)


@pytest.mark.usefixtures("pointer_zoo")
def test_a_failing_configuration_is_recorded_and_a_failing_study_ended(tmp_path):
    """Whatever a library raises; when the first five all fail, the study names the reason."""
    some = optimizer(settings_of(tmp_path), {"trials": 8, "sampler": "random", "fixed": {"broken_above": 0.6}})
    assert some.run(PLANTED.data) == 8
    rows = trials_of(some.settings, some.name)
    assert all((row.state == "failed") == (row.configuration["focus"] > 0.6) for row in rows)
    assert all("FloatingPointError: focus" in row.result["reason"] for row in rows if row.state == "failed")
    assert {row.state for row in rows} >= {"failed"}
    none = optimizer(some.settings, {"trials": 8, "fixed": {"broken_above": -1.0}})
    with pytest.raises(TrainingError, match=r"first 5 trials .* all failed.*FloatingPointError"):
        none.run(PLANTED.data)
    assert none.run(PLANTED.data) == 3, "what failed before is no reason to try nothing"
    with pytest.raises(TrainingError, match=r"no trial of study .* is complete"):
        none.best()


@pytest.mark.usefixtures("pointer_zoo")
def test_several_objectives_have_a_pareto_front(tmp_path):
    """No trial of the front is beaten in both, every other one is; the first objective comes first."""
    found = optimizer(
        settings_of(tmp_path),
        {"trials": 20, "objectives": ("rank_ic", "turnover"), "sampler": "nsga2", "pruner": "none"},
    )
    found.run(PLANTED.data)
    front = found.best()
    assert {t.number for t in front} == {t.number for t in found.study.best_trials}
    values = [trial.values[0] for trial in front]
    assert values == sorted(values, reverse=True) and values[0] == max(t.values[0] for t in found.study.trials)


@pytest.mark.usefixtures("pointer_zoo")
@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_trials_that_fall_behind_are_pruned_by_their_iterations(pruner, tmp_path):
    """A trial below the median at an iteration ends there, and the best one at that iteration is never among them.

    What pruners compare are the watched days, and trials are judged on the others.
    """
    config = {"trials": 24, "sampler": "random", "pruner": pruner, "startup_trials": 5}
    found = optimizer(settings_of(tmp_path), config)
    found.run(PLANTED.data)
    pruned = [t for t in found.study.trials if t.state == optuna.trial.TrialState.PRUNED]
    assert len(pruned) >= 3
    assert all(t.last_step < 10 for t in pruned)
    everything = {t.number: t.intermediate_values[1] for t in found.study.trials}
    assert found.study.trials[max(everything, key=everything.__getitem__)].state == optuna.trial.TrialState.COMPLETE


@pytest.mark.usefixtures("pointer_zoo")
def test_wilcoxon_prunes_after_a_fold_and_spares_the_rest(tmp_path):
    """Weeks of walk-forward folds are compared with the best trial's: a sign that is wrong is seen after few folds."""
    config = {"trials": 10, "pruner": "wilcoxon", "folds": 3, "sampler": "random", "fixed": {"focus": 1.0}}
    made = plant("linear", Shape(days=600, instruments=30, snr=0.5), 1)
    found = optimizer(settings_of(tmp_path), config)
    found.run(made.data)
    states = {(t.params["sign"], t.state.name) for t in found.study.trials}
    assert (True, "COMPLETE") in states and (False, "PRUNED") in states and (True, "PRUNED") not in states
    whole = next(t for t in found.study.trials if t.state.name == "COMPLETE")
    assert len(whole.intermediate_values) == 15  # of 120 validation days three times 25 that no training saw


def test_only_some_iterations_are_reported():
    """Database rows of a long training: 28 of a thousand."""
    seen: list[int] = []
    observe = iteration_observer("rank_ic", lambda value, step: seen.append(step))
    for done in range(1, 1001):
        observe(done, {"valid.rank_ic": 0.1, "valid.loss": 1.0})
    assert seen == [*range(1, 11), *range(20, 101, 10), *range(200, 1001, 100)]
    observe(2000, {"valid.loss": 1.0})
    observe(3000, {"valid.rank_ic": float("nan")})
    assert seen[-1] == 1000


def test_weekly_means_use_every_day():
    """Groups of five; what is left over joins the last one."""
    series = pd.Series(np.arange(12.0))
    assert weekly_means(series) == [2.0, np.mean(np.arange(5.0, 12.0))]
    assert weekly_means(series[:3]) == [1.0]


@pytest.mark.usefixtures("pointer_zoo")
def test_sqlite_takes_one_worker_and_says_so(tmp_path):
    """A second one is refused while the first works, and may come after it."""
    found = optimizer(settings_of(tmp_path), {"trials": 1})
    assert not found.shared
    with study_store(found.settings).lease(found.name), pytest.raises(StoreError, match="SQLite supports only one"):
        found.run(PLANTED.data)
    assert found.run(PLANTED.data) == 1


def test_other_databases_are_refused(tmp_path):
    """By the name of the setting."""
    for address, said in (("mysql://host/db", "not in mysql"), ("nonsense", "not a database URL")):
        with pytest.raises(ConfigError, match=f"tuning.storage_url.*{said}"):
            study_store(settings_of(tmp_path, address))


@dataclass
class Workers:
    """Workers of one study, each in a process of its own."""

    processes: list[StageProcess]
    ended: list[Future[dict[str, int]]]

    def kill(self, number: int) -> None:
        """End one outright."""
        os.kill(self.processes[number].pid, signal.SIGKILL)
        with pytest.raises(StageError, match=f"exit status {-signal.SIGKILL}"):
            self.ended[number].result()


@contextmanager
def at_work(count: int, home: Path, url: str, config: Mapping[str, Any]) -> Iterator[Workers]:
    """So many workers, which begin at the same moment, however long each took to start."""
    gate = home / "gate"
    gate.mkdir()
    given = {"home": str(home), "storage_url": url, "config": config, "gate": str(gate)}
    workers = Workers([], [])
    with ThreadPoolExecutor(count) as pool:
        for number in range(count):
            run = partial(run_stage, "tests.tuning.pointer:work", given, time_limit_s=120)
            workers.ended.append(pool.submit(run, on_start=workers.processes.append))
            wait_for(lambda: len(list(gate.iterdir())) > number)  # noqa: B023  it is waited for at once
        (gate / "open").touch()
        try:
            yield workers
        finally:
            for process in workers.processes:
                end_group(process)


def wait_for_running(found: HyperparameterOptimizer, workers: int) -> None:
    """Until so many trials are under way at once."""
    for _ in range(1200):
        trials = found.study.get_trials(deepcopy=False)
        running = [t for t in trials if t.state.name == "RUNNING" and WORKER in t.user_attrs]
        if len(running) >= workers:
            return
        time.sleep(0.05)
    pytest.fail("no worker took a trial within a minute")


@pytest.mark.usefixtures("pointer_zoo")
def test_workers_in_postgresql_share_a_budget_and_none_of_it_is_lost_when_one_is_killed(tmp_path):
    """Three processes, one killed outright in a trial: twelve configurations are tried, each finished once, the
    killed one's trial failed and tried again; the gate sees all of them."""
    config = {"trials": 12, "fixed": {"step_s": 0.1}, "pruner": "none"}
    with postgres_schema() as url:
        found = optimizer(settings_of(tmp_path, url), config)
        assert found.shared
        with at_work(3, tmp_path, url, config) as workers:
            wait_for_running(found, 3)
            workers.kill(0)
            counts = [ended.result()["finished"] for ended in workers.ended[1:]]
        trials = found.study.trials
    assert all(trial.state.is_finished() for trial in trials)
    retries = [trial for trial in trials if RETRY_OF in trial.user_attrs]
    lost = [trial for trial in trials if trial.state.name == "FAIL"]
    assert [trial.user_attrs[RETRY_OF] for trial in retries] == [trial.number for trial in lost]
    assert len(lost) == 1
    assert retries[0].params == lost[0].params
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert len(complete) == 12 == len({tuple(trial.params.items()) for trial in complete})
    assert sum(counts) <= 12
    rows = trials_of(found.settings, found.name)
    assert [row.number for row in rows if row.state == "complete"] == [trial.number for trial in complete]


@pytest.mark.usefixtures("pointer_zoo")
def test_a_search_in_sqlite_goes_on_after_a_kill(tmp_path):
    """The trial under way is failed and tried again, the finished ones stay, and the budget is kept."""
    config = {"trials": 4, "fixed": {"step_s": 0.1}, "pruner": "none"}
    found = optimizer(settings_of(tmp_path), config)
    with at_work(1, tmp_path, "", config) as workers:
        wait_for_running(found, 1)
        workers.kill(0)
    before = [trial for trial in found.study.trials if trial.state.name == "COMPLETE"]
    assert found.run(PLANTED.data) == 4 - len(before)
    trials = found.study.trials
    assert all((seconds_of(trial) == 0) == (trial.state.name == "FAIL") for trial in trials)
    lost = [trial.number for trial in trials if trial.state.name == "FAIL"]
    assert [t.user_attrs[RETRY_OF] for t in trials if RETRY_OF in t.user_attrs] == lost and len(lost) == 1
    assert sum(trial.state.name == "COMPLETE" for trial in trials) == 4


@pytest.mark.usefixtures("pointer_zoo")
def test_studies_lie_beside_the_state_in_a_schema_of_their_own(tmp_path):
    """Both keep a table `alembic_version`; neither takes the other's for its own."""
    with postgres_schema() as url:
        settings = settings_of(tmp_path).model_copy(update={"state_url": url, "stack": StackSettings()})
        found = optimizer(settings, {"trials": 2})
        assert found.shared
        assert found.run(PLANTED.data) == 2
        assert len(trials_of(settings, found.name)) == 2
        again = optimizer(settings, {"trials": 2})
        assert again.run(PLANTED.data) == 0
