"""Runs in processes of their own: paused, resumed, cancelled, dying, too slow, two at once; and the command line."""

import json
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlops_tasks import cli
from mlops_tasks.errors import (
    ConfigError,
    ErrorKind,
    StageError,
    StageTimeoutError,
    StoreError,
    TrainingCancelledError,
    TrainingError,
)
from mlops_tasks.files import read_json
from mlops_tasks.state.tables import TrainingRun, now
from mlops_tasks.state.training_runs import NewEvent, record_events, record_training_run
from mlops_tasks.training.control import command_run
from mlops_tasks.training.engine import TrainingHandle, UnifiedQlibTrainingEngine
from mlops_tasks.training.events import read_events, run_progress, runs
from mlops_tasks.training.journal import Journal
from mlops_tasks.training.supervision import LEASE_S, end_lost_runs
from tests import programs
from tests.training.descent import DESCENT, FIT_STAGE, SmallMarket, config, contents, journal_reaches
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("descending")

PACE = {"step_s": 0.1}
"""Slow enough that a command arrives before the last step."""
LAST = 35
"""The iteration at which early stopping ends the small training."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> SmallMarket:
    return SmallMarket.make(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def calm(base: SmallMarket) -> dict[str, bytes]:
    """The files of an undisturbed training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlops_tasks.training.supervision.FIT_STAGE", FIT_STAGE)
        return contents(base.start(**PACE).supervise())


@pytest.fixture
def market(base: SmallMarket, tmp_path: Path) -> SmallMarket:
    return base.copy(tmp_path / "home")


def kinds(market: SmallMarket, run_id: str) -> list[str]:
    """Of a run's events, without the samples of what it uses: these come when it is time."""
    return [event.kind for event in read_events(market.settings, run_id) if event.kind != "resources"]


def in_background(handle: TrainingHandle) -> tuple[threading.Thread, list[Any]]:
    """Supervise in a thread; the list gets the folder or the error."""
    outcome: list[Any] = []

    def supervise() -> None:
        try:
            outcome.append(handle.supervise())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=supervise)
    thread.start()
    return thread, outcome


def test_a_paused_training_waits_and_ends_as_the_undisturbed_one(market: SmallMarket, calm: dict[str, bytes]) -> None:
    """Pause writes a checkpoint and computes nothing more; after resume the files are equal, byte for byte."""
    handle = market.start(**PACE)
    thread, outcome = in_background(handle)
    assert journal_reaches(market.settings, handle.run_id, 4)
    command_run(market.settings, handle.run_id, "pause", "me")
    wait_for(lambda: run_progress(market.settings, handle.run_id).state == "paused")
    paused = run_progress(market.settings, handle.run_id)
    assert kinds(market, handle.run_id)[-2:] == ["checkpoint", "paused"]
    time.sleep(0.7)
    assert run_progress(market.settings, handle.run_id).iteration == paused.iteration
    command_run(market.settings, handle.run_id, "resume", "me")
    thread.join()
    assert contents(outcome[0]) == calm
    count = Counter(kinds(market, handle.run_id))
    assert (count["iteration"], count["paused"], count["resumed"], count["finished"]) == (LAST, 1, 1, 1)
    assert not any(market.settings.checkpoints_dir.iterdir())
    assert not any(market.settings.training_runs_dir.iterdir())


def test_a_model_that_is_fitted_at_once_waits_before_its_next_stage(market: SmallMarket) -> None:
    """Linear has no iterations; paused, it says so and does nothing more until it is resumed."""
    handle = market.start_config(market.plan.config("linear", market.settings))
    command_run(market.settings, handle.run_id, "pause", "me")
    thread, outcome = in_background(handle)
    wait_for(lambda: run_progress(market.settings, handle.run_id).state == "paused")
    before = kinds(market, handle.run_id)
    time.sleep(0.7)
    assert kinds(market, handle.run_id) == before
    command_run(market.settings, handle.run_id, "resume", "me")
    thread.join()
    assert outcome[0].is_dir()
    after = kinds(market, handle.run_id)
    assert (after[: len(before) + 1], after.count("paused"), after[-1]) == ([*before, "resumed"], 1, "finished")


def test_a_cancelled_training_leaves_its_checkpoint_only(market: SmallMarket, calm: dict[str, bytes]) -> None:
    """It ends as cancelled, by whom; there is no training folder; the next attempt goes on and ends the same."""
    handle = market.start(**PACE)
    thread, outcome = in_background(handle)
    assert journal_reaches(market.settings, handle.run_id, 8)
    command_run(market.settings, handle.run_id, "cancel", "Ada")
    thread.join()
    assert isinstance(outcome[0], TrainingCancelledError)
    assert "cancelled by Ada" in str(outcome[0])
    ending = run_progress(market.settings, handle.run_id)
    assert (ending.state, ending.ending["asked_by"], ending.ending["forced"]) == ("cancelled", "Ada", False)
    assert not market.settings.training_dir.exists()
    assert not any(market.settings.training_runs_dir.iterdir())
    with pytest.raises(StoreError, match=r"has ended \(cancelled\): there is nothing to resume"):
        command_run(market.settings, handle.run_id, "resume", "Ada")

    again = market.start(**PACE)
    assert contents(again.supervise()) == calm
    events = read_events(market.settings, again.run_id)
    (restored,) = (event for event in events if event.kind == "restored")
    assert restored.payload["iteration"] >= 7
    iterations = [event.payload["iteration"] for event in events if event.kind == "iteration"]
    assert iterations == list(range(restored.payload["iteration"] + 1, LAST + 1))
    assert read_json(market.settings.training_dir / events[-1].payload["training_key"] / "metrics.json")["run_id"] == (
        again.run_id
    )


def test_a_training_that_does_not_listen_is_killed(base: SmallMarket, tmp_path: Path) -> None:
    """Once the grace period is over; the event says that it was forced."""
    market = base.copy(tmp_path / "home", cancel_grace_s=0.5)
    handle = market.start_config(config().model_copy(update={"family": "deaf"}))
    thread, outcome = in_background(handle)
    wait_for(lambda: run_progress(market.settings, handle.run_id).stage == "fit")
    command_run(market.settings, handle.run_id, "cancel", "me")
    thread.join()
    assert isinstance(outcome[0], TrainingCancelledError)
    assert run_progress(market.settings, handle.run_id).ending["forced"]
    assert not market.settings.training_dir.exists()


def test_a_training_past_its_limit_is_ended(base: SmallMarket, tmp_path: Path) -> None:
    """The error names the setting; the run failed with it."""
    market = base.copy(tmp_path / "home", time_limit_s=1.0)
    handle = market.start_config(config().model_copy(update={"family": "deaf"}))
    with pytest.raises(StageTimeoutError, match=r"limit of 1 s; raise training\.time_limit_s"):
        handle.supervise()
    assert run_progress(market.settings, handle.run_id).ending["error"] == "StageTimeoutError"


def test_a_training_that_dies_in_native_code_failed(market: SmallMarket) -> None:
    """Its last events are there, then `failed` with the signal."""
    handle = market.start_config(config().model_copy(update={"family": "dying"}))
    with pytest.raises(StageError, match="ended by SIGABRT") as caught:
        handle.supervise()
    assert caught.value.kind is ErrorKind.TRANSIENT
    assert kinds(market, handle.run_id) == ["created", "stage", "stage", "stage", "iteration", "failed"]


def test_a_diverging_training_failed_with_its_events(market: SmallMarket) -> None:
    """The error is the training's own, with the remedy; every iteration up to the last is in the stream."""
    handle = market.start(learning_rate=1e4)
    with pytest.raises(TrainingError, match=r"diverges; lower hyperparameters\.descent\.learning_rate"):
        handle.supervise()
    events = read_events(market.settings, handle.run_id)
    iterations = [event.payload["iteration"] for event in events if event.kind == "iteration"]
    assert iterations == list(range(1, len(iterations) + 1))
    assert 1 <= len(iterations) < 10
    assert events[-1].kind == "failed"
    assert f"at iteration {iterations[-1]} " in events[-1].payload["reason"]
    assert not market.settings.training_dir.exists()


def test_the_same_training_twice_at_once_is_trained_once(market: SmallMarket, calm: dict[str, bytes]) -> None:
    """The second waits for the first and finds its folder."""
    handles = [market.start(**PACE) for _ in range(2)]
    background = [in_background(handle) for handle in handles]
    for thread, _ in background:
        thread.join()
    folders = {outcome[0] for _, outcome in background}
    assert [contents(folder) for folder in folders] == [calm]
    endings = [run_progress(market.settings, handle.run_id).ending for handle in handles]
    assert sorted(ending["reused"] for ending in endings) == [False, True]
    assert sorted(kinds(market, handle.run_id).count("iteration") for handle in handles) == [0, LAST]


def test_a_run_is_lost_when_its_caller_is_gone(market: SmallMarket) -> None:
    """Only then: the run of a caller that lives stays open; what the lost one had journalled is recorded."""
    waiting = market.start(steps=2)
    with programs.start(DESCENT, market.to_json()) as caller:
        assert caller.stdout is not None
        run_id = caller.stdout.readline().strip()
        assert journal_reaches(market.settings, run_id, 1)
        caller.kill()
    assert end_lost_runs(market.settings) == [run_id]
    assert end_lost_runs(market.settings) == []
    events = read_events(market.settings, run_id)
    assert kinds(market, run_id)[:5] == ["created", "stage", "stage", "stage", "iteration"]
    assert events[-1].kind == "failed"
    assert "lost" in events[-1].payload["reason"]
    assert run_progress(market.settings, waiting.run_id).state == "queued"
    waiting.supervise()


def test_a_disk_that_is_full_at_the_end_costs_no_terminal_event(market: SmallMarket, calm: dict[str, bytes]) -> None:
    """What the caller cannot append to its journal goes to the state database directly."""
    handle = market.start(**PACE)
    handle.supervisor.journal = Journal(Path("/dev/full"))
    assert contents(handle.supervise()) == calm
    events = read_events(market.settings, handle.run_id)
    assert [event.terminal for event in events] == [False] * (len(events) - 1) + [True]
    assert [event.kind for event in events].count("iteration") == LAST
    assert events[-1].payload["training_key"]
    assert not any(market.settings.training_runs_dir.iterdir())


def test_a_run_of_another_machine_is_lost_when_it_is_silent_for_long(market: SmallMarket) -> None:
    """Its process cannot be asked; an event within the lease keeps it."""
    quiet = LEASE_S + 60
    for run_id, age in (("silent", quiet), ("alive", LEASE_S - 60)):
        process = {"host": "another", "pid": 1, "started": 1}
        made = now() - timedelta(seconds=quiet)
        row = TrainingRun(
            run_id=run_id, model="m", data_version="d", owner="o", priority=0, request={"process": process}, at=made
        )
        record_training_run(market.settings, row)
        record_events(market.settings, run_id, [NewEvent(1, "resources", now() - timedelta(seconds=age), {})])
    assert end_lost_runs(market.settings) == ["silent"]


def test_a_bad_configuration_starts_nothing(market: SmallMarket) -> None:
    """No run, no folder."""
    with pytest.raises(ConfigError, match="unknown model 'perceptron'"):
        UnifiedQlibTrainingEngine(market.settings).start(market.plan, market.feature_version, "perceptron")
    assert runs(market.settings) == []
    assert not market.settings.training_runs_dir.exists()


def test_the_command_line_shows_and_steers(
    market: SmallMarket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """list, show, watch, cancel: for people and as JSON; what cannot be done is one line and exit status 1."""
    monkeypatch.setenv("MLOPS_HOME", str(market.settings.home))

    def training(*arguments: str) -> tuple[int, str]:
        status = cli.main(["training", *arguments])
        return status, capsys.readouterr().out

    assert training("list") == (0, "no training run yet\n")
    handle = market.start(steps=3)
    status, said = training("list")
    heading, row = said.splitlines()
    assert (status, heading.split()[-1], row.split()[-1]) == (0, "state", "queued")
    handle.supervise()
    (listed,) = json.loads(training("list", "--json")[1])
    assert (listed["run_id"], listed["state"], listed["iteration"], listed["percent"]) == (
        handle.run_id,
        "finished",
        3,
        100.0,
    )
    status, said = training("watch", handle.run_id, "--json", "--after", "3")
    events = [json.loads(line) for line in said.splitlines()]
    assert (status, [event["sequence"] for event in events]) == (0, list(range(4, len(events) + 4)))
    assert events[-1]["terminal"]
    status, said = training("show", handle.run_id)
    assert len(said.splitlines()) == len(events) + 4
    assert "[########................] 1/3 train.loss" in said
    status, said = training("cancel", handle.run_id)
    assert (status, "there is nothing to cancel" in said) == (1, True)
    status, said = training("show", "nobody")
    assert (status, said.startswith("StoreError: there is no training run 'nobody'")) == (1, True)
