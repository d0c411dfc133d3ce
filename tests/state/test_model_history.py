"""The history of models, on SQLite and on PostgreSQL."""

import multiprocessing
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mlops_tasks.cli.verbs import main
from mlops_tasks.config import Settings
from mlops_tasks.errors import StoreError, TransitionError
from mlops_tasks.state import database, model_history
from mlops_tasks.state.database import session, upgrade
from mlops_tasks.state.deployments import record_deployment
from mlops_tasks.state.model_history import (
    Model,
    history_of,
    live_at,
    live_on,
    record_transition,
    state_of,
    states_moved_since,
    tenures,
    transitions,
)
from mlops_tasks.state.tables import Deployment, GateDecision, ModelRevocation, RolloutStep, TrainingRun
from mlops_tasks.state.training_runs import end_run, record_training_run
from mlops_tasks.states import DeploymentState, ModelState
from tests.postgres import DATABASES, settings_on
from tests.state.migrations import downgrade
from tests.state.replayed import Replayed

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty database of its own."""
    with settings_on(request.param, tmp_path) as made:
        yield made


def serving(version: int, reason: str = "") -> Deployment:
    about = {"data_version": "d", "strategy": "blue_green", "attempt": f"a{version}", "reason": reason}
    return Deployment(model_version=version, training_key=f"k{version}", state=DeploymentState.SERVING, **about)


def test_a_promotion_is_one_row_that_names_both(settings: Settings) -> None:
    """The version that comes and the one that goes; a repetition adds nothing, and nobody is promoted otherwise."""
    for version in (1, 2, 2):
        record_deployment(settings, serving(version, "the gate"), by="daily_retraining")
    first, second = transitions(settings)
    assert (first.model_version, first.before, first.after, first.replaced_version) == (
        1,
        "challenger",
        "champion",
        None,
    )
    assert (second.model_version, second.replaced_version, second.replaced_after) == (2, 1, "retired")
    assert (second.by, second.reason, second.training_key) == ("daily_retraining", "the gate", "k2")
    assert states_moved_since(settings, 1) == {1: ModelState.RETIRED, 2: ModelState.CHAMPION}
    with pytest.raises(TransitionError, match="only a deployment makes a champion"):
        record_transition(settings, Model("k1", 1), ModelState.CHAMPION, "by hand")
    assert not record_transition(settings, Model("k2", 2), ModelState.REJECTED, "a late decision")
    with pytest.raises(TransitionError, match="version 1 is retired and cannot become validated"):
        record_transition(settings, Model("k1", 1), ModelState.VALIDATED, "by hand")
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), session(settings) as active:
        active.execute(sa.text("UPDATE model_transition SET reason = 'x'"))


def test_who_was_live(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """At a time, from the promotion on and up to the next one; on a day, each in its turn. The command line says it."""
    assert tenures(settings) == [] and live_at(settings, NOON) is None
    for version, at in ((1, NOON), (2, NOON + timedelta(days=2)), (1, NOON + timedelta(days=2, hours=1))):
        monkeypatch.setattr(model_history, "now", lambda at=at: at)
        record_deployment(settings, serving(version), by="ann")
    moment = timedelta(microseconds=1)
    asked = (NOON - moment, NOON, NOON + timedelta(days=2) - moment, NOON + timedelta(days=2), NOON + timedelta(days=9))
    found = [live_at(settings, each) for each in asked]
    assert [each and each.version for each in found] == [None, 1, 1, 2, 1]
    days = {day: [each.version for each in live_on(settings, date(2024, 3, day))] for day in range(1, 5)}
    assert days == {1: [1], 2: [1], 3: [1, 2, 1], 4: [1]}
    assert live_on(settings, date(2024, 2, 29)) == []
    assert [(each.version, each.until) for each in tenures(settings)][-1] == (1, None)
    monkeypatch.setenv("MLOPS_HOME", str(settings.home))
    monkeypatch.setenv("MLOPS_STATE_URL", settings.state_database)
    assert (
        main(["live", "--at", "2024-03-03 12:30"])
        == main(["live", "--day", "2024-02-01"])
        == main(["history", "2"])
        == 0
    )
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "version 2 (training k2), champion since 2024-03-03 12:00:00 UTC until 2024-03-03 13:00:00 UTC",
        "no version was champion on 2024-02-01 (UTC)",
        "2024-03-03 12:00:00 UTC  version 2: challenger > champion, by ann",
        "2024-03-03 13:00:00 UTC  version 2: champion > retired, by ann: version 1 took its place",
    ]
    assert main(["history", "9"]) == 1 and "no version 9" in capsys.readouterr().out
    assert main(["live", "--at", "2024-03-03 20:30+08:00"]) == main(["live", "--day", "9999-12-31"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["2", "1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["live", "--day", "2024-13-01"], "'2024-13-01' is no day; write it as 2026-03-02"),
        (["live", "--at", "yesterday"], "'yesterday' is no time; write it as"),
        (["live", "--at", "0001-01-01 00:00+14:00"], "is no time"),
        (["history", "9" * 30], "is no version; versions are numbered 1, 2, 3"),
        (["models", "tag", "0", "desk=asia"], "'0' is no version"),
        (["models", "search", "--since", "\0"], "is no day"),
    ],
)
def test_what_is_no_day_time_or_version(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused by the command line, with the form that it asks for."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2 and said in capsys.readouterr().err


def test_a_tenure_of_no_length_interrupts_none(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2 came and went at the very moment at which version 1 was back: no moment was without version 1."""
    for version, at in ((1, NOON), (2, NOON + timedelta(hours=1)), (1, NOON + timedelta(hours=1))):
        monkeypatch.setattr(model_history, "now", lambda at=at: at)
        record_deployment(settings, serving(version))
    (tenure,) = live_on(settings, NOON.date())
    assert (tenure.version, tenure.since, tenure.until) == (1, NOON, None)
    assert live_at(settings, NOON) == live_at(settings, NOON + timedelta(hours=1)) == tenure
    assert [each.version for each in tenures(settings)] == [1, 2, 1]


def test_a_history_begins_with_the_training(settings: Settings) -> None:
    """As its run has recorded it; a version that nobody has heard of has none."""
    request: dict[str, Any] = {"plan": {}}
    record_training_run(
        settings,
        TrainingRun(run_id="r1", model="linear", data_version="d", owner="daily", priority=0, request=request),
    )
    end_run(settings, "r1", "finished", {"training_key": "k1"})
    model = Model("k1", None)
    assert state_of(settings, model) == ModelState.TRAINED
    record_transition(settings, model, ModelState.VALIDATED, "evaluated")
    record_transition(settings, Model("k1", 1), ModelState.CHALLENGER, "registered")
    assert state_of(settings, model) == state_of(settings, Model("k1", 1)) == ModelState.CHALLENGER
    states = ["training", "trained", "validated", "challenger"]
    assert [each.after for each in history_of(settings, 1)] == states
    assert [each.before for each in history_of(settings, 1)] == [None, *states[:-1]]
    with pytest.raises(StoreError, match="no version 9"):
        history_of(settings, 9)


def test_an_older_database_has_a_history_too(settings: Settings) -> None:
    """Of deployments, gate decisions, rollouts and revocations; it is legal, and the new rows go on from it."""
    upgrade(settings)
    step = serving(1)
    step.attempt = "first"
    rows: list[Any] = [
        GateDecision(training_key="k0", decision={"decision": "reject", "rule": "skill", "reasons": ["no skill"]}),
        step,
        RolloutStep(
            **{"rollout_id": "r", "sequence": 1, "model_version": 2, "training_key": "k2", "artefact_digest": "d"},
            **{
                "strategy": "canary",
                "plan": {},
                "state": "holding",
                "asked_at": NOON,
                "began_at": NOON,
                "asked_by": "ann",
            },
        ),
        ModelRevocation(training_key="k1", artefact_digest="d", basis="person", revoked_by="bob", reason="it is bad"),
        serving(2, "the rollout is over"),
    ]
    moved = ["challenger rejected gate", "challenger champion migration", "challenger canary ann"]
    with session(settings) as active:
        for number, row in enumerate(rows):
            row.content_digest = str(number)
            row.recorded_at = NOON + timedelta(hours=number)
            if not isinstance(row, GateDecision):
                row.at = row.recorded_at
        active.add_all(rows)
    downgrade(settings, "0014")
    upgrade(settings)
    found = transitions(settings)
    assert [f"{row.before} {row.after} {row.by}" for row in found] == [*moved, "canary champion migration"]
    assert [row.model_version for row in found] == [None, 1, 2, 2]
    assert (found[-1].replaced_version, found[-1].replaced_after) == (1, "rejected")
    assert [row.at for row in found] == [NOON + timedelta(hours=hours) for hours in (0, 1, 2, 4)]
    assert Replayed().read(found).champion == 2
    record_deployment(settings, serving(3))
    assert Replayed().read(transitions(settings)).champion == 3
    downgrade(settings, "0014")
    with database.engine(settings.state_database).connect() as connection:
        assert not sa.inspect(connection).has_table("model_transition")
    upgrade(settings)
    assert Replayed().read(transitions(settings)).champion == 3


def write(settings: Settings, number: int, turns: int) -> None:
    """As one of several processes: register own versions and deploy each, in a process of its own."""
    for turn in range(turns):
        version = 1000 * number + turn
        for model, to in (
            (Model(f"k{version}", None), ModelState.VALIDATED),
            (Model(f"k{version}", version), ModelState.CHALLENGER),
        ):
            assert record_transition(settings, model, to, "a retraining", f"writer {number}")
        assert record_deployment(settings, serving(version), f"writer {number}")


def write_at_once(settings: Settings, writers: int, turns: int) -> None:
    """What all of them have written is there, in an order in which each row follows from those before it."""
    upgrade(settings)
    children = [
        multiprocessing.get_context("fork").Process(target=write, args=(settings, number, turns))
        for number in range(1, writers + 1)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * writers
    rows = transitions(settings)
    assert len(rows) == writers * turns * 3
    Replayed().read(rows)
    for number in range(1, writers + 1):
        mine = [(row.model_version, row.after) for row in rows if row.by == f"writer {number}"]
        states = ((None, "validated"), (1000 * number, "challenger"), (1000 * number, "champion"))
        assert mine == [(version and version + turn, after) for turn in range(turns) for version, after in states]
    assert len(tenures(settings)) == writers * turns


def test_writers_at_once_lose_nothing(settings: Settings) -> None:
    """Four processes that write the history together."""
    write_at_once(settings, writers=4, turns=3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sixteen_writers_at_once_lose_nothing(settings: Settings) -> None:
    """As above, longer and with more of them."""
    write_at_once(settings, writers=16, turns=25)
