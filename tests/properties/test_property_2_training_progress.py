"""Property 2, completeness of the training progress record.

Whatever happens to the processes of a training, and whenever: its events are numbered 1, 2, 3, ... without a gap,
exactly one of them is terminal and it is the last, they can be read from any number on, and every iteration's metrics
are there, once in each attempt that computed it and the same in all of them.
"""

import itertools
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from mlops_tasks.config import Settings
from mlops_tasks.machine.liveness import this_process
from mlops_tasks.modeling.checkpoints import CheckpointFolder
from mlops_tasks.modeling.session import Links, TrainingSession
from mlops_tasks.state.database import engine
from mlops_tasks.state.tables import TrainingEvent, TrainingRun
from mlops_tasks.state.training_runs import RunEndedError, record_training_run
from mlops_tasks.states import TERMINAL
from mlops_tasks.training.engine import TrainingHandle
from mlops_tasks.training.events import JournalReader, Recorder, read_events
from mlops_tasks.training.journal import Journal
from mlops_tasks.training.run_folder import RunFolder
from mlops_tasks.training.supervision import end_lost_runs
from tests import programs
from tests.programs import stages_of
from tests.training.descent import (
    CHECKPOINT_EVERY,
    DESCENT,
    FIT_STAGE,
    SmallMarket,
    config,
    contents,
    descending,  # noqa: F401  a fixture
    journal_reaches,
)

LAST = 35
"""Iterations of the small training."""


def check_stream(events: Sequence[TrainingEvent]) -> None:
    """What holds for the events of every run that has ended."""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.terminal for event in events] == [False] * (len(events) - 1) + [True]
    assert [event.kind in TERMINAL for event in events] == [event.terminal for event in events]


def iterations(events: Sequence[TrainingEvent]) -> dict[int, dict[str, float]]:
    """Metrics by iteration; each is there once."""
    found = [(event.payload["iteration"], event.payload["metrics"]) for event in events if event.kind == "iteration"]
    assert len(found) == len(dict(found))
    return dict(found)


# The way of the events: any sequence of appends, cut-off writes, deaths of the recorder, and ends.


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("streams"))


@contextmanager
def failing(database: Settings, statement: int) -> Iterator[None]:
    """Let the database fail at a statement of the block, counted from 1; at none for 0."""
    numbers = itertools.count(1)

    def fail(*_: object) -> None:
        if next(numbers) == statement:
            raise OperationalError("any statement", {}, OSError("no answer"))

    address = engine(database.state_database)
    sa.event.listen(address, "before_cursor_execute", fail)
    try:
        yield
    finally:
        sa.event.remove(address, "before_cursor_execute", fail)


DEEDS = ("append", "append many", "cut off", "record", "new recorder", "second recorder", "end", "lost")
STEPS = st.lists(st.tuples(st.sampled_from(DEEDS), st.one_of(st.just(0), st.integers(1, 12))), max_size=25)
"""What is done, and at which statement the database fails then."""
LOST = ("failed", None)


@given(steps=STEPS)
@example(steps=[("append many", 0), ("end", 0), ("lost", 4), ("lost", 0)])
@example(steps=[("append many", 0), ("lost", 4), ("lost", 9), ("lost", 0)])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_record_is_a_prefix_of_the_journal_until_it_is_the_whole(
    database: Settings, steps: list[tuple[str, int]]
) -> None:
    """After every step what is recorded is what was appended first; in the end all of it, up to the first end.

    Where there is no end and the run is lost, that is what follows all of it.
    """
    database.training_runs_dir.mkdir(exist_ok=True)
    folder = RunFolder(Path(tempfile.mkdtemp(dir=database.training_runs_dir)))
    request = {"process": {**this_process(), "started": 0}}
    record_training_run(
        database,
        TrainingRun(run_id=folder.run_id, model="m", data_version="d", owner="o", priority=0, request=request),
    )
    journal = Journal(folder.journal)
    whole: list[tuple[str, int | None]] = []
    numbers = itertools.count()

    def has_end() -> bool:
        return bool(whole) and whole[-1][0] in TERMINAL

    def recorder() -> Recorder:
        return Recorder(database, folder.run_id, JournalReader(folder.journal))

    def append(kind: str) -> None:
        number = next(numbers)
        journal.append(kind, {"n": number})
        if not has_end():
            whole.append((kind, number))

    current, second = recorder(), recorder()
    for deed, fails_at in [*steps, ("end", 0), ("record", 0)]:
        with suppress(RunEndedError), failing(database, fails_at):
            if deed == "append":
                append("stage")
            elif deed == "append many":
                for _ in range(20):
                    append("iteration")
            elif deed == "cut off":
                with suppress(FileNotFoundError), folder.journal.open("ab") as file:
                    file.write(b'\n{"kind": "iteration", "at": 1.5, "pay')
            elif deed == "end":
                append("finished")
            elif deed == "new recorder":
                current = recorder()
            elif deed == "lost":
                with suppress(OperationalError):
                    if folder.run_id in end_lost_runs(database) and not has_end():
                        whole.append(LOST)
            else:
                (current if deed == "record" else second).record()
        recorded = [(event.kind, event.payload.get("n")) for event in read_events(database, folder.run_id)]
        assert recorded == whole[: len(recorded)]
    events = read_events(database, folder.run_id)
    check_stream(events)
    assert len(events) == len(whole)
    for after in range(0, len(events) + 1, 7):
        later = [event.sequence for event in read_events(database, folder.run_id, after)]
        assert later == list(range(after + 1, len(events) + 1))


# The session: any sequence of attempts that die before or after any iteration.


@dataclass
class Cut:
    """Where an attempt ends: at the report of an iteration, or in the middle of writing its checkpoint."""

    iteration: int
    writing: bool


CUTS = st.lists(st.builds(Cut, st.integers(1, LAST + 5), st.booleans()), max_size=6)


class Killed(BaseException):
    """An attempt's end, without clean-up."""


def metrics(done: int) -> dict[str, float]:
    """Best at 12, so that patience 30 would end it at 42; LAST comes first. The IC is undefined now and then."""
    return {"valid.loss": 1 + (done - 12) ** 2 / 1000, "valid.ic": math.nan if done % 4 else 1 / done}


def attempt(folder: Path, number: int, cut: Cut | None) -> TrainingSession:
    """One process's part: up to a cut, or to the end."""
    journal = Journal(folder / f"{number}.j")
    session = TrainingSession(config(), links=Links(journal.append, None, CheckpointFolder(folder / "checkpoints")))
    session.expect(LAST)
    restored = session.restore()

    def write(files: Path) -> None:
        (files / "half").write_text("x")
        if cut is not None and cut.writing and done >= cut.iteration:
            raise Killed

    for done in range((restored.iteration if restored else 0) + 1, LAST + 1):
        session.iteration(done, metrics(done))
        if cut is not None and not cut.writing and done >= cut.iteration:
            raise Killed
        session.checkpoint(done, write)
    return session


@given(cuts=CUTS)
@settings(max_examples=60)
def test_attempts_overlap_by_a_checkpoint_interval_at_most_and_miss_nothing(cuts: list[Cut]) -> None:
    """Each attempt reports consecutive iterations from its checkpoint on; together they report all, alike."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seen: dict[int, dict[str, float | None]] = {}
        for number, cut in enumerate([*cuts, None]):
            try:
                session = attempt(folder, number, cut)
            except Killed:
                session = None
            found = JournalReader(folder / f"{number}.j").read()
            own = [event.payload for event in found if event.kind == "iteration"]
            first = next((event.payload["iteration"] for event in found if event.kind == "restored"), 0)
            assert [each["iteration"] for each in own] == list(range(first + 1, first + 1 + len(own)))
            assert max(seen, default=0) - CHECKPOINT_EVERY <= first <= max(seen, default=0)
            for each in own:
                assert seen.setdefault(each["iteration"], each["metrics"]) == each["metrics"]
        assert session is not None
        assert sorted(seen) == list(range(1, LAST + 1))
        assert (session.best_iteration, len(session.history)) == (12, LAST)
        for done, values in seen.items():
            ic = metrics(done)["valid.ic"]
            assert values == {**metrics(done), "valid.ic": None if math.isnan(ic) else ic}


# Real processes, really killed.


@dataclass(frozen=True)
class Kill:
    """Who gets SIGKILL, and when: so many milliseconds after an iteration shows in the journal."""

    victim: str
    iteration: int
    delay_ms: int


KILLS = st.lists(
    st.builds(Kill, st.sampled_from(["child", "parent", "both"]), st.integers(1, LAST - 1), st.integers(0, 8)),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> SmallMarket:
    return SmallMarket.make(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def calm(base: SmallMarket) -> tuple[dict[str, bytes], dict[int, dict[str, float]]]:
    """Files and metrics of the undisturbed training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlops_tasks.training.supervision.FIT_STAGE", FIT_STAGE)
        handle = base.start()
        return contents(handle.supervise()), iterations(read_events(base.settings, handle.run_id))


def train_and_kill(market: SmallMarket, kill: Kill) -> str:
    """A run in processes of its own, of which some are killed; its id."""
    with programs.start(DESCENT, market.to_json()) as parent:
        assert parent.stdout is not None
        run_id = parent.stdout.readline().strip()
        if journal_reaches(market.settings, run_id, kill.iteration):
            stages = stages_of(parent.pid)
            psutil.wait_procs(stages, kill.delay_ms / 1000)
            for stage in stages if kill.victim != "parent" else []:
                with suppress(psutil.NoSuchProcess):
                    stage.kill()
            if kill.victim != "child":
                parent.kill()
            _, alive = psutil.wait_procs(stages, 20)
            assert not alive
    return run_id


@pytest.mark.usefixtures("descending")
@given(kills=KILLS)
@example(kills=[Kill("parent", 9, 3), Kill("child", 17, 0), Kill("both", 24, 5)])
@settings(
    max_examples=1,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_killed_processes_leave_a_complete_record_and_the_same_model(
    base: SmallMarket, calm: tuple[dict[str, bytes], dict[int, dict[str, float]]], kills: list[Kill]
) -> None:
    """SIGKILL of child, parent or both at any moment, as often as may be; then one attempt that is left alone."""
    with tempfile.TemporaryDirectory() as name:
        market = base.copy(Path(name, "home"))
        run_ids = [train_and_kill(market, kill) for kill in kills]
        handle: TrainingHandle = market.start()
        assert contents(handle.supervise()) == calm[0]
        assert read_events(market.settings, run_ids[0])[-1].kind == "failed" or kills[0].iteration > LAST - 10
        seen: dict[int, dict[str, float]] = {}
        for run_id in [*run_ids, handle.run_id]:
            events = read_events(market.settings, run_id)
            check_stream(events)
            own = iterations(events)
            first = next((event.payload["iteration"] for event in events if event.kind == "restored"), 0)
            if own:
                assert sorted(own) == list(range(first + 1, max(own) + 1))
                assert max(seen, default=0) - CHECKPOINT_EVERY <= first <= max(seen, default=0)
            for done, values in own.items():
                assert seen.setdefault(done, values) == values
        assert seen == calm[1]
        assert not any(market.settings.checkpoints_dir.glob("*/"))
        assert not any(market.settings.training_runs_dir.iterdir())
