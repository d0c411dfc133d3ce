"""The operational database on SQLite and on PostgreSQL."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import OperationalError

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError, StoreError
from mlops_tasks.state import history
from mlops_tasks.state.database import engine, newest_revision, reading, session, upgrade, wait_at_most
from mlops_tasks.state.deployments import record_deployment
from mlops_tasks.state.quality_looks import found_worse, quality_looks, record_quality_look
from mlops_tasks.state.tables import (
    Base,
    DeliveredGain,
    Deployment,
    DriftReport,
    GateDecision,
    ModelComparison,
    Publication,
    QualityLook,
    ScoreBatch,
)
from tests import programs
from tests.postgres import DATABASES, settings_on


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty database of its own."""
    with settings_on(request.param, tmp_path) as made:
        yield made


def _step(state: str = "started", version: int = 1, **changes: object) -> Deployment:
    values = {"training_key": "k1", "data_version": "d1", "strategy": "blue_green", "reason": "gate"}
    return Deployment(model_version=version, state=state, **(values | changes))


def _rows() -> list[tuple[object, Base]]:
    day = date(2024, 1, 5)
    return [
        (history.record_gate_decision, GateDecision(training_key="k1", decision={"decision": "promote", "gain": 0.01})),
        (record_deployment, _step()),
        (
            history.record_score_batch,
            ScoreBatch(date=day, model_version=1, alias="champion", instruments=3, digest="x"),
        ),
        (
            history.record_drift_report,
            DriftReport(date=day, model_version=1, data_version="d", psi_max=None, n_warn=1, n_alert=0, path="p"),
        ),
        (
            history.record_model_comparison,
            ModelComparison(champion_version=1, challenger_version=2, last_date=day, result={"p": 0.2}),
        ),
        (
            history.record_delivered_gain,
            DeliveredGain(
                model_version=2,
                rival_version=1,
                rule="superiority",
                since=day,
                last_date=day,
                promised=0.01,
                delivered=0.0,
                result={"n": 5},
            ),
        ),
        (history.record_publication, Publication(data_version="d1")),
        (
            record_quality_look,
            QualityLook(
                subject="r1",
                number=1,
                model_version=2,
                rival_version=1,
                data_version="d1",
                worse=True,
                said="its daily rank IC is below",
                result={"loss": 0.02},
            ),
        ),
    ]


def test_recording_twice_leaves_one_row(settings: Settings) -> None:
    """Each fact is written once, however often it is recorded."""
    assert [record(settings, row) for record, row in _rows()] == [True] * 8
    assert [record(settings, row) for record, row in _rows()] == [False] * 8
    tables = [type(row) for _, row in _rows()]
    with reading(settings) as active:
        assert [active.scalar(sa.select(sa.func.count()).select_from(t)) for t in tables] == [1] * 8


def test_latest_returns_the_newest_row_as_recorded(settings: Settings) -> None:
    """What is read back equals what was recorded, and a changed fact is a second row."""
    first = GateDecision(training_key="k1", champion_version=3, decision={"decision": "keep", "gain": -0.25, "n": [1]})
    second = GateDecision(training_key="k2", champion_version=None, decision={"decision": "promote"})
    assert history.latest_gate_decision(settings) is None
    history.record_gate_decision(settings, first)
    history.record_gate_decision(settings, second)
    newest = history.latest_gate_decision(settings)
    assert newest is not None and newest.training_key == "k2" and newest.champion_version is None
    older = history.latest_gate_decision(settings, "k1")
    assert older is not None and older.decision == {"decision": "keep", "gain": -0.25, "n": [1]}
    assert older.recorded_at.tzinfo is UTC and abs(older.recorded_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_deployment_history_keeps_a_return_to_a_version(settings: Settings) -> None:
    """started, serving, another version, serving again are four rows; a repeated step is none."""
    steps = [("started", 1), ("started", 1), ("serving", 1), ("serving", 2), ("serving", 1), ("serving", 1)]
    written = [record_deployment(settings, _step(state, version)) for state, version in steps]
    assert written == [True, False, True, True, True, False]
    latest = history.latest_deployment(settings, state="serving")
    assert latest is not None and latest.model_version == 1
    assert history.latest_deployment(settings, model_version=2).model_version == 2  # type: ignore[union-attr]


def test_the_publication_of_a_moment_is_the_newest_until_then(settings: Settings) -> None:
    """A vintage is in use from its publication to the next one's, and again where it came back."""
    hours = [datetime(2024, 3, 1, hour, tzinfo=UTC) for hour in range(5)]
    for hour, version in ((1, "d1"), (2, "d2"), (3, "d2"), (4, "d1")):
        history.record_publication(settings, Publication(data_version=version, at=hours[hour]))
    found = [
        history.publication_at(settings, hour + timedelta(minutes=minutes)) for hour in hours for minutes in (0, 59)
    ]
    assert [row and row.data_version for row in found] == [None, None, *["d1"] * 2, *["d2"] * 4, *["d1"] * 2]


def test_a_look_is_taken_once_and_what_it_found_stays(settings: Settings) -> None:
    """Whoever comes second leaves nothing, whatever he has found; looks of others are theirs."""

    def look(subject: str, number: int, worse: bool) -> QualityLook:
        about = {"model_version": 2, "rival_version": 1, "data_version": "d", "said": f"look {number}", "result": {}}
        return QualityLook(subject=subject, number=number, worse=worse, **about)

    taken = [look("r1", 2, False), look("r1", 1, False), look("r1", 2, True), look("r2", 3, True), look("r1", 3, True)]
    assert [record_quality_look(settings, each) for each in taken] == [True, True, False, True, True]
    assert [(row.number, row.worse) for row in quality_looks(settings, "r1")] == [(1, False), (2, False), (3, True)]
    worse = found_worse(settings, "r1")
    assert worse is not None and worse.number == 3 and found_worse(settings, "r3") is None


def test_unknown_deployment_state_is_refused(settings: Settings) -> None:
    """A state outside the list is an error that names the list."""
    with pytest.raises(StoreError, match="started, serving, rolled_back, restored, failed"):
        record_deployment(settings, _step("sleeping"))


def test_times_are_utc_whatever_zone_was_given(settings: Settings) -> None:
    """A time given in another zone comes back as the same instant in UTC; a naive one is refused."""
    given = datetime(2024, 3, 1, 9, 30, tzinfo=timezone(timedelta(hours=8)))
    record_deployment(settings, _step(at=given))
    latest = history.latest_deployment(settings)
    assert latest is not None and latest.at == given and latest.at.utcoffset() == timedelta(0)
    with pytest.raises(sa.exc.StatementError, match="no zone"):
        record_deployment(settings, _step("serving", at=datetime(2024, 3, 1)))


@pytest.mark.parametrize("statement", ["UPDATE deployment SET reason = 'x'", "DELETE FROM deployment"])
def test_rows_cannot_be_changed(settings: Settings, statement: str) -> None:
    """The database itself refuses to change or remove history."""
    record_deployment(settings, _step())
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), session(settings) as active:
        active.execute(sa.text(statement))


def test_migrations_make_exactly_the_tables_of_the_models(settings: Settings) -> None:
    """An upgraded database and the table definitions do not differ."""
    assert upgrade(settings) == upgrade(settings) == newest_revision()
    with engine(settings.state_database).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_processes_that_start_at_once_upgrade_once(settings: Settings) -> None:
    """Four processes that open an empty database together all succeed and record one row between them."""
    code = (
        "from mlops_tasks.config import Settings; from pathlib import Path; import sys\n"
        "from mlops_tasks.state.deployments import record_deployment\n"
        "from mlops_tasks.state.tables import Deployment\n"
        "s = Settings(home=Path(sys.argv[1]), state_url=sys.argv[2])\n"
        "record_deployment(s, Deployment(model_version=1, training_key='k', data_version='d',"
        " strategy='b', state='started'))"
    )
    words = (code, settings.home, settings.state_database)
    children = [programs.start(*words, stderr=subprocess.PIPE) for _ in range(4)]
    assert [(child.communicate()[1], child.wait()) for child in children] == [("", 0)] * 4
    with reading(settings) as active:
        assert active.scalar(sa.select(sa.func.count()).select_from(Deployment)) == 1


def test_an_error_in_a_session_rolls_back(settings: Settings) -> None:
    """Nothing of a failed transaction stays."""
    with pytest.raises(RuntimeError), session(settings) as active:
        row = _step()
        row.content_digest = "x"
        active.add(row)
        active.flush()
        raise RuntimeError
    assert history.latest_deployment(settings) is None


def test_sqlite_is_configured_for_many_processes(tmp_path: Path) -> None:
    """SQLite runs in WAL mode with a busy timeout and foreign keys."""
    with reading(Settings(home=tmp_path)) as active:
        values = [active.scalar(sa.text(f"PRAGMA {p}")) for p in ("journal_mode", "busy_timeout", "foreign_keys")]
    assert values == ["wal", 120_000, 1]


def test_a_process_whose_writers_do_not_wait_long_gives_up(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """While another one holds the database, and without having written; afterwards it writes as ever."""
    settings = Settings(home=tmp_path)
    request.addfinalizer(partial(wait_at_most, 120))
    with session(settings) as holder:
        holder.execute(sa.text("SELECT 1"))
        wait_at_most(0.05)
        with pytest.raises(OperationalError, match="database is locked"):
            record_deployment(settings, _step())
    assert history.latest_deployment(settings) is None
    record_deployment(settings, _step())
    assert history.latest_deployment(settings) is not None


def test_a_bad_address_is_a_clear_error(tmp_path: Path) -> None:
    """Text that is no address and a server that does not answer are errors that name the setting."""
    with pytest.raises(ConfigError, match="state_url"):
        upgrade(Settings(home=tmp_path, state_url="not an address"))
    with pytest.raises(StoreError, match="state_url"):
        upgrade(Settings(home=tmp_path, state_url="postgresql+psycopg2://x@127.0.0.1:1/x"))
