"""The event stream: journal, its way into the database, and what readers see."""

import math
import resource
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlops_tasks.config import Settings
from mlops_tasks.errors import StoreError
from mlops_tasks.modeling.session import Links, TrainingSession
from mlops_tasks.state.database import engine, session
from mlops_tasks.state.tables import TrainingEvent, TrainingRun
from mlops_tasks.state.training_runs import (
    NewEvent,
    RunEndedError,
    end_run,
    open_training_runs,
    record_events,
    record_training_run,
)
from mlops_tasks.training.control import FileControl
from mlops_tasks.training.events import JournalReader, Recorder, follow, read_events, run_progress, runs
from mlops_tasks.training.journal import Journal
from tests.postgres import DATABASES, settings_on
from tests.training.descent import config


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings with an empty state database of its own."""
    with settings_on(request.param, tmp_path) as made:
        yield made


def new_run(settings: Settings, run_id: str = "r1") -> TrainingRun:
    run = TrainingRun(run_id=run_id, model="m", data_version="d", owner="o", priority=0, request={})
    record_training_run(settings, run)
    return run


def event(sequence: int, kind: str = "stage") -> NewEvent:
    return NewEvent.of(sequence, {"kind": kind, "at": 1.7e9 + sequence, "payload": {"n": sequence}})


def sequences(settings: Settings, run_id: str = "r1") -> list[int]:
    return [each.sequence for each in read_events(settings, run_id)]


def test_what_is_journalled_is_recorded_in_order_and_once(settings: Settings, tmp_path: Path) -> None:
    """Kind, time and payload arrive as they were; recording from the start again adds nothing."""
    new_run(settings)
    journal = Journal(tmp_path / "j")
    journal.append("stage", {"stage": "fit"})
    journal.append("iteration", {"iteration": 1, "metrics": {"train.loss": 0.1 + 0.2, "valid.ic": math.nan}})
    assert Recorder(settings, "r1", JournalReader(tmp_path / "j")).record()
    journal.append("finished", {"seconds": 1.5})
    for _ in range(2):
        assert Recorder(settings, "r1", JournalReader(tmp_path / "j")).record()
    found = read_events(settings, "r1")
    assert [(each.sequence, each.kind, each.terminal) for each in found] == [
        (1, "stage", False),
        (2, "iteration", False),
        (3, "finished", True),
    ]
    assert found[1].payload["metrics"] == {"train.loss": 0.1 + 0.2, "valid.ic": None}
    assert found[0].at <= found[1].at <= found[2].at <= found[2].recorded_at


def test_a_line_that_was_cut_off_is_no_event_and_hides_none(settings: Settings, tmp_path: Path) -> None:
    """A write that a kill cut off leaves a fragment; all that is appended after it is read, numbered without a gap."""
    new_run(settings)
    journal = Journal(tmp_path / "j")
    journal.append("stage", {"stage": "load"})
    with (tmp_path / "j").open("ab") as file:
        file.write(b'\n{"kind": "iteration", "at": 17')
    recorder = Recorder(settings, "r1", JournalReader(tmp_path / "j"))
    assert recorder.record()
    assert sequences(settings) == [1]
    journal.append("stage", {"stage": "fit"})
    journal.append("failed", {"reason": "x"})
    assert recorder.record()
    assert [each.kind for each in read_events(settings, "r1")] == ["stage", "stage", "failed"]
    assert sequences(settings) == [1, 2, 3]


def test_nothing_follows_the_terminal_event(settings: Settings, tmp_path: Path) -> None:
    """Neither another end nor a late event of a process that has not noticed; the reader stops there too."""
    new_run(settings)
    record_events(settings, "r1", [event(1), event(2, "failed")])
    assert not end_run(settings, "r1", "cancelled", {})
    with pytest.raises(RunEndedError, match=r"r1 ended with event 2 \(failed\)"):
        record_events(settings, "r1", [event(3)])
    record_events(settings, "r1", [event(1), event(2, "failed")])
    assert sequences(settings) == [1, 2]
    journal = Journal(tmp_path / "j")
    for kind in ("created", "finished", "stage"):
        journal.append(kind, {})
    assert [each.kind for each in JournalReader(tmp_path / "j").read()] == ["created", "finished"]


def test_the_database_itself_refuses_a_second_end(settings: Settings) -> None:
    """The constraint holds for rows that did not come through our functions."""
    new_run(settings)
    record_events(settings, "r1", [event(1, "failed")])
    with pytest.raises(sa.exc.IntegrityError), session(settings) as active:
        active.execute(sa.insert(TrainingEvent), [event(2, "finished").row("r1")])


def test_a_gap_or_an_unknown_run_is_refused(settings: Settings) -> None:
    """The error names the numbers, or the run and where to look."""
    new_run(settings)
    record_events(settings, "r1", [event(1)])
    with pytest.raises(StoreError, match="event 3 would follow event 1"):
        record_events(settings, "r1", [event(3)])
    with pytest.raises(StoreError, match=r"no training run 'r2'.*training list"):
        record_events(settings, "r2", [event(1)])
    with pytest.raises(StoreError, match="no training run 'r2'"):
        next(follow(settings, "r2"))


def test_writers_at_once_leave_one_gap_free_stream(settings: Settings, tmp_path: Path) -> None:
    """Four threads that carry the same journal over while it grows, and one that ends the run: no event twice."""
    new_run(settings)
    journal = Journal(tmp_path / "j")
    for number in range(50):
        journal.append("iteration", {"iteration": number})
    errors: list[Exception] = []

    def carry() -> None:
        try:
            Recorder(settings, "r1", JournalReader(tmp_path / "j")).record()
        except RunEndedError:
            pass
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=carry) for _ in range(4)]
    threads.append(threading.Thread(target=lambda: end_run(settings, "r1", "failed", {})))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    found = read_events(settings, "r1")
    assert [each.sequence for each in found] == list(range(1, len(found) + 1))
    assert [each.terminal for each in found] == [False] * (len(found) - 1) + [True]
    assert [each.payload["iteration"] for each in found[:-1]] == list(range(len(found) - 1))


def test_a_reader_may_begin_anywhere_and_follows_to_the_end(settings: Settings, tmp_path: Path) -> None:
    """`read_events` from every number on, in pages; `follow` yields what comes later and stops at the end."""
    new_run(settings)
    record_events(settings, "r1", [event(number) for number in range(1, 6)])
    for after in range(6):
        assert [each.sequence for each in read_events(settings, "r1", after)] == list(range(after + 1, 6))
        assert [each.sequence for each in read_events(settings, "r1", after, 2)] == list(range(after + 1, 6))[:2]
    following = follow(settings, "r1", after=3, poll_s=0.01)
    assert [each.sequence for each in islice(following, 2)] == [4, 5]
    timer = threading.Timer(0.1, record_events, (settings, "r1", [event(6), event(7, "finished")]))
    timer.start()
    assert [each.sequence for each in following] == [6, 7]
    timer.join()


def test_a_database_that_does_not_answer_costs_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is away nothing is raised and nothing is lost; when it is back everything arrives."""
    settings = Settings(home=tmp_path)
    new_run(settings)
    database = tmp_path / "state" / "state.db"
    journal, recorder = Journal(tmp_path / "j"), Recorder(settings, "r1", JournalReader(tmp_path / "j"))
    journal.append("stage", {})
    assert recorder.record()
    content = database.read_bytes()
    database.write_bytes(b"not a database, so that every statement fails" * 100)
    for _ in range(3):
        journal.append("stage", {})
        assert not recorder.record()
    database.write_bytes(content)
    for leftover in database.parent.glob("state.db-*"):
        leftover.unlink()
    assert recorder.record()
    assert sequences(settings) == [1, 2, 3, 4]


def test_a_full_disk_costs_events_and_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """/dev/full refuses every write: the journal says so once and goes on."""
    journal = Journal(Path("/dev/full"))
    for _ in range(3):
        journal.append("stage", {})
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "free disk space" in caplog.text


def test_a_line_that_the_disk_takes_half_of_is_missed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The system reports no error then, only fewer bytes; the log says so, and what comes later is whole."""
    journal = Journal(tmp_path / "j")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        journal.append("stage", {"stage": "fit"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "j").stat().st_size == 20
    assert "events are being lost" in caplog.text
    journal.append("finished", {})
    assert [(each.sequence, each.kind) for each in JournalReader(tmp_path / "j").read()] == [(1, "finished")]


def test_a_run_is_seen_as_its_newest_events_say(settings: Settings, tmp_path: Path) -> None:
    """State, stage, percent, metrics and ETA follow the stream; open runs are those without an end."""
    for run_id in ("r1", "r2"):
        new_run(settings, run_id)
    journal, recorder = Journal(tmp_path / "j"), Recorder(settings, "r1", JournalReader(tmp_path / "j"))
    seen = []
    progress = {"iteration": 5, "total": 20, "percent": 25.0, "eta_s": 7.5, "metrics": {"valid.loss": 0.5}}
    for kind, payload in (
        ("created", {}),
        ("stage", {"stage": "fit"}),
        ("iteration", progress),
        ("resources", {}),
        ("paused", {"iteration": 5}),
        ("resumed", {"iteration": 5}),
        ("cancelled", {"asked_by": "me"}),
    ):
        journal.append(kind, payload)
        assert recorder.record()
        seen.append(run_progress(settings, "r1"))
    assert [each.state for each in seen] == [
        "queued",
        "running",
        "running",
        "running",
        "paused",
        "running",
        "cancelled",
    ]
    assert [each.sequence for each in seen] == list(range(1, 8))
    at_five = seen[3]
    assert (at_five.stage, at_five.iteration, at_five.percent, at_five.eta_s) == ("fit", 5, 25.0, 7.5)
    assert at_five.metrics == {"valid.loss": 0.5}
    assert (seen[-1].eta_s, seen[-1].ending) == (None, {"asked_by": "me"})
    assert [each.run_id for each in runs(settings)] == ["r2", "r1"]
    assert [each.run_id for each in runs(settings, limit=1)] == ["r2"]
    assert [each.run_id for each in open_training_runs(settings)] == ["r2"]


def test_open_runs_are_found_by_the_index_of_terminal_events(tmp_path: Path) -> None:
    """However long the history, a run costs one probe: SQLite's plan names the partial index."""
    settings = Settings(home=tmp_path)
    new_run(settings)
    statements: list[str] = []
    sa.event.listen(
        engine(settings.state_database), "before_cursor_execute", lambda _, __, text, *___: statements.append(text)
    )
    open_training_runs(settings)
    (query,) = [each for each in statements if "ending" in each]
    with session(settings) as active:
        plan = " ".join(str(row) for row in active.execute(sa.text(f"EXPLAIN QUERY PLAN {query}")))
    assert "uq_training_event_terminal" in plan


def test_reporting_an_iteration_costs_microseconds(tmp_path: Path) -> None:
    """With journal and control, less than 2% of an iteration of 10 ms: boosting 100,000 rows takes longer than that."""
    links = Links(Journal(tmp_path / "j").append, FileControl(tmp_path / "command"))
    session = TrainingSession(config(), links=links)
    started = time.process_time()
    for done in range(1, 2001):
        session.iteration(done, {"train.loss": 1 / done, "valid.loss": 1 / done, "valid.ic": math.nan})
    assert (time.process_time() - started) / 2000 < 0.02 * 0.010
    assert len(JournalReader(tmp_path / "j").read()) == 2000
