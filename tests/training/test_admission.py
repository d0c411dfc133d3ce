"""Trainings wait for room on the machine: requests on both databases, and processes that train and are killed."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from mlops_tasks import cli
from mlops_tasks.config import Settings, TrainingSettings
from mlops_tasks.errors import CapacityError, TrainingCancelledError
from mlops_tasks.machine.admission import Admission, Place, queue_info
from mlops_tasks.machine.memory_need import MemoryNeed
from mlops_tasks.state.resource_requests import Queue, change_queue, resource_events
from mlops_tasks.state.training_runs import training_runs
from mlops_tasks.training.control import command_run
from mlops_tasks.training.events import read_events, run_progress
from tests import programs
from tests.postgres import DATABASES, settings_on
from tests.programs import Program
from tests.training.descent import DESCENT, SmallMarket, config, journal_reaches
from tests.training.test_control import in_background, wait_for

LIMITS = {"memory_limit_mb": 1000.0, "slots": 2, "threads": 1, "owner_weights": {"ada": 2.0}}
NEED = MemoryNeed(rows=10, features=2, base_mb=300.0, data_mb=80.0, model_mb=20.0)
HOLD = """
import sys, time
from pathlib import Path
from mlops_tasks.config import Settings
from mlops_tasks.state.training_runs import training_runs
from mlops_tasks.machine.admission import Admission
from mlops_tasks.machine.memory_need import MemoryNeed
settings = Settings.model_validate_json(sys.argv[1])
admission = Admission(settings, sys.argv[2], "bea")
place = admission.ask(MemoryNeed(1, 1, 400.0, 0.0, 0.0))
while not place.granted:
    time.sleep(0.02)
    place = admission.look()
print("granted", flush=True)
if len(sys.argv) > 3:
    time.sleep(float(sys.argv[3]))
    admission.release()
else:
    time.sleep(600)
"""
"""Takes 400 MB and a slot, and keeps them, or gives them back after some seconds."""


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """1,000 MB and two slots for trainings, and an empty database."""
    with settings_on(request.param, tmp_path, training=TrainingSettings(**LIMITS)) as made:
        yield made


def other(settings: Settings, name: str, *seconds: str) -> Program:
    """A process that asks for a slot of its own."""
    return programs.start(HOLD, settings.model_dump_json(), name, *seconds)


def test_who_finds_room_starts_and_who_does_not_waits_for_a_release(settings: Settings) -> None:
    """Two fit; the third says why it waits and at which place, and starts when one has ended; each step is a row."""
    first, second, third = (Admission(settings, name, "daily") for name in ("one", "two", "three"))
    assert first.ask(NEED).granted
    assert second.ask(NEED).granted
    place = third.ask(NEED)
    assert (place.granted, place.position, place.waits_for) == (False, 1, "slots")
    assert place.reason == "it needs 1 slots, and 0 of 2 are free"
    assert third.look() == place
    first.release()
    first.release()
    assert third.look().granted
    for admission in (second, third):
        admission.release()
    assert [row.kind for row in resource_events(settings, "three")] == ["asked", "granted", "released"]
    assert queue_info(settings) == {
        "capacity": {"memory_mb": 1000.0, "slots": 2},
        "running": [],
        "waiting": [],
        "owners": {},
    }


def test_the_queue_shows_who_holds_what_and_whose_turn_it_is(settings: Settings) -> None:
    """Shares, entitlements by weight, and the owner that holds least before the one that asked first."""
    held = [Admission(settings, name, "daily") for name in ("one", "two")]
    waiting = [
        Admission(settings, "three", "daily"),
        Admission(settings, "four", "daily", priority=5),
        Admission(settings, "five", "ada"),
    ]
    for admission in (*held, *waiting):
        admission.ask(NEED)
    info = queue_info(settings)
    assert [each["request_id"] for each in info["running"]] == ["one", "two"]
    assert [each["request_id"] for each in info["waiting"]] == ["five", "four", "three"]
    assert [each["position"] for each in info["waiting"]] == [1, 2, 3]
    assert (info["owners"]["ada"]["entitled"], info["owners"]["ada"]["share"]) == (0.6667, 0.0)
    assert (info["owners"]["daily"]["entitled"], info["owners"]["daily"]["share"]) == (0.3333, 1.0)
    waiting[0].release()
    held[0].release()
    assert [waiting[2].look().granted, waiting[1].look().granted] == [True, False]


def test_what_can_never_fit_is_refused_with_the_numbers(settings: Settings) -> None:
    """It does not join the queue."""
    huge = MemoryNeed(rows=1_000_000, features=158, base_mb=600.0, data_mb=1500.4, model_mb=800.0)
    message = (
        r"needs 2,900 MB \(1,500 MB for 1,000,000 rows x 158 features, 800 MB for the model, 600 MB for the process\), "
        r"and training\.memory_limit_mb allows 1,000 MB; raise training\.memory_limit_mb"
    )
    with pytest.raises(CapacityError, match=message):
        Admission(settings, "huge", "daily").ask(huge)
    assert resource_events(settings, "huge") == []


def test_who_waits_for_memory_that_no_training_holds_gives_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while: other programs may give it back."""
    monkeypatch.setattr("mlops_tasks.machine.admission.ALONE_S", 0.3)
    holder, waiting = Admission(settings, "one", "daily"), Admission(settings, "two", "daily")
    holder.ask(replace(NEED, model_mb=500.0))
    assert waiting.ask(NEED).waits_for == "memory"
    less = settings.model_copy(update={"training": settings.training.model_copy(update={"memory_limit_mb": 399.0})})
    holder.settings = waiting.settings = less
    holder.release()
    assert waiting.look().reason == "it needs 400 MB, and 399 MB are free"
    time.sleep(0.35)
    with pytest.raises(CapacityError, match="allows 399 MB"):
        waiting.look()


def test_a_killed_holder_frees_its_place(settings: Settings) -> None:
    """The next one that looks finds it gone; in the log the release says so."""
    with other(settings, "one") as holder, other(settings, "two") as second:
        for process in (holder, second):
            assert process.stdout is not None
            assert process.stdout.readline() == "granted\n"
        waiting = Admission(settings, "three", "daily")
        assert not waiting.ask(NEED).granted
        holder.kill()
        holder.wait()
        assert waiting.look().granted
        (released,) = (row for row in resource_events(settings, "one") if row.kind == "released")
        assert released.payload["lost"]
        second.kill()


def test_processes_that_ask_at_once_never_hold_more_than_there_is(settings: Settings) -> None:
    """Four of them, two slots: at every row of the log two are granted at most, and all are served."""
    crowd = [other(settings, f"p{number}", "0.05") for number in range(4)]
    assert [process.wait(300) for process in crowd] == [0] * 4
    rows = sorted((row for n in range(4) for row in resource_events(settings, f"p{n}")), key=lambda row: row.id)
    held = most = 0
    for row in rows:
        held += {"granted": 1, "released": -1}.get(row.kind, 0)
        most = max(most, held)
    assert (len(rows), held) == (12, 0)
    assert 1 <= most <= 2


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> SmallMarket:
    return SmallMarket.make(tmp_path_factory.mktemp("base"))


@pytest.mark.usefixtures("descending")
def test_trainings_take_turns_and_a_killed_one_makes_room(base: SmallMarket, tmp_path: Path) -> None:
    """One slot: the first is killed with its process, the others train one after the other, and one is cancelled
    while it waits."""
    market = base.copy(tmp_path / "home", slots=1)
    (market.settings.home / "settings.yaml").write_text("training: {slots: 1}\n")
    with programs.start(DESCENT, market.to_json()) as holder:
        assert holder.stdout is not None
        first = holder.stdout.readline().strip()
        assert journal_reaches(market.settings, first, 1)
        handles = [market.start(steps=steps) for steps in (5, 6, 7)]
        background = [in_background(handle) for handle in handles]
        wait_for(lambda: all(_queued(market, handle.run_id) for handle in handles))
        command_run(market.settings, handles[2].run_id, "cancel", "me")
        background[2][0].join()
        holder.kill()
    for thread, _ in background:
        thread.join()
    assert isinstance(background[2][1][0], TrainingCancelledError)
    assert run_progress(market.settings, handles[2].run_id).ending["forced"] is False
    trained, history = [], []
    for handle, (_, outcome) in zip(handles[:2], background[:2], strict=True):
        assert outcome[0].is_dir()
        rows = resource_events(market.settings, handle.run_id)
        trained.append([row.id for row in rows if row.kind in ("granted", "released")])
        history += [(row.id, row.request_id, row.kind, row.payload) for row in rows]
    (_, released), (granted, _) = sorted(trained)
    assert released < granted, sorted(history)
    assert {event.kind for event in read_events(market.settings, handles[2].run_id)} == {
        "created",
        "queued",
        "cancelled",
    }


def _queued(market: SmallMarket, run_id: str) -> bool:
    events = read_events(market.settings, run_id)
    return any(event.kind == "queued" and event.payload["position"] >= 1 for event in events)


@pytest.mark.usefixtures("descending")
def test_a_training_that_cannot_fit_ends_before_it_has_a_process(base: SmallMarket, tmp_path: Path) -> None:
    """created, failed, and nothing between; the error has the numbers and the remedy."""
    market = base.copy(tmp_path / "home", memory_limit_mb=50.0)
    handle = market.start()
    with pytest.raises(CapacityError, match=r"needs [\d,]+ MB .* training\.memory_limit_mb allows 50 MB; raise"):
        handle.supervise()
    events = read_events(market.settings, handle.run_id)
    assert [event.kind for event in events] == ["created", "failed"]
    assert events[-1].payload["error"] == "CapacityError"
    assert events[-1].payload["estimated_memory_mb"] > 50
    assert not any(market.settings.training_runs_dir.iterdir())


def test_a_database_that_does_not_answer_is_waited_for(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is asked, when the answer of a commit is lost, and when what is held is given back; it asks once."""
    monkeypatch.setattr("mlops_tasks.machine.admission.POLL_S", 0.01)
    holder, waiting = Admission(settings, "one", "daily"), Admission(settings, "two", "daily")
    holder.ask(replace(NEED, model_mb=500.0))
    calls, places = [], []

    def troubled(change: Callable[..., Queue | None]) -> Callable[..., Queue | None]:
        def call(*arguments: Any) -> Queue | None:
            calls.append(1)
            if len(calls) in (1, 4):
                raise OperationalError("select", {}, OSError("refused"))
            after = change(*arguments)
            if len(calls) == 2:
                raise OperationalError("commit", {}, OSError("lost"))
            return after

        return call

    def freed(place: Place) -> None:
        places.append(place)
        holder.leave()

    monkeypatch.setattr("mlops_tasks.machine.admission.change_queue", troubled(change_queue))
    assert waiting.wait(NEED, freed)
    assert [place.waits_for for place in places] == ["memory"]
    assert [event.kind for event in resource_events(settings, "two")] == ["asked", "granted"]


def test_what_a_process_held_before_it_asked_is_not_asked_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what the machine has, the part counts that the process has taken since, up to what it asked for."""
    monkeypatch.setattr("mlops_tasks.machine.admission.available_mb", lambda: 5000.0)
    unlimited = settings.model_copy(update={"training": TrainingSettings(slots=2, threads=1, memory_reserve_mb=0)})
    Admission(unlimited, "one", "daily").ask(replace(NEED, base_mb=0.0))
    assert 5000 <= queue_info(unlimited)["capacity"]["memory_mb"] < 5060
    ballast = np.ones(150_000_000 // 8)
    assert queue_info(unlimited)["capacity"]["memory_mb"] == 5100
    assert ballast.sum() == len(ballast)


def test_what_works_for_a_request_counts_as_its_own(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that its holder did not start: what it has beyond what it inherited, up to what was asked for."""
    monkeypatch.setattr("mlops_tasks.machine.admission.available_mb", lambda: 5000.0)
    unlimited = settings.model_copy(update={"training": TrainingSettings(slots=2, threads=1, memory_reserve_mb=0)})
    admission = Admission(unlimited, "one", "daily")
    admission.ask(replace(NEED, base_mb=0.0, data_mb=980.0))
    code = "kept = bytearray(b'x' * 200_000_000); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        before = queue_info(unlimited)["capacity"]["memory_mb"]
        admission.works_in(worker.pid, 100.0)
        assert 100 <= queue_info(unlimited)["capacity"]["memory_mb"] - before <= 130
        worker.kill()
    assert [event.kind for event in resource_events(unlimited, "one")] == ["asked", "granted", "works"]
    admission.leave()
    admission.works_in(worker.pid, 100.0)
    assert [event.kind for event in resource_events(unlimited, "one")][3:] == ["released"]


def test_owner_and_priority_are_the_runs(base: SmallMarket, tmp_path: Path) -> None:
    """Daily and zero where nobody says otherwise."""
    market = base.copy(tmp_path / "home")
    market.start_config(config(), owner="ada", priority=3)
    market.start()
    assert [(run.owner, run.priority) for run in training_runs(market.settings, 2)] == [("daily", 0), ("ada", 3)]


def test_the_command_line_shows_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For people and as JSON."""
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    (tmp_path / "settings.yaml").write_text(f"training: {json.dumps(LIMITS)}\n")
    settings = Settings(home=tmp_path, training=TrainingSettings(**LIMITS))
    assert cli.main(["training", "queue"]) == 0
    assert capsys.readouterr().out == "for trainings: 1,000 MB, 2 slots\nnothing runs or waits\n"
    for name in ("one", "two", "three"):
        Admission(settings, name, "daily", priority=1).ask(NEED)
    assert cli.main(["training", "queue", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert [each["request_id"] for each in info["waiting"]] == ["three"]
    assert cli.main(["training", "queue"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1].split()[:2] == ["running", "one"]
    assert said[3].endswith("priority 1: it needs 1 slots, and 0 of 2 are free")
    assert said[4].startswith("owner daily: weight 1, entitled to 100%, holds 100%")
