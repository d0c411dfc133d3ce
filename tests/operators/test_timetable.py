"""The schedule that follows an exchange: holidays and clock changes, catchup, and Airflow's own storage."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mlops_tasks.config import PROJECT
from mlops_tasks.data.exchanges.calendars import last_closed_session, schedule

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """A function that puts one question to the timetable in Airflow's own process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.operators.ask_timetable"],
        env=os.environ | {"AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow"))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )
    assert process.stdin is not None and process.stdout is not None

    def asked(calendar: str, delay_min: float, **question: Any) -> Any:
        json.dump({"calendar": calendar, "delay_min": delay_min} | question, process.stdin)
        print(file=process.stdin, flush=True)
        return json.loads(next(line for line in process.stdout if line.startswith("=")).removeprefix("="))

    with process:
        yield asked
        process.stdin.close()


def next_run(ask: Ask, calendar: str, delay_min: float, **question: Any) -> datetime | None:
    """When the next run is, which is also its data interval."""
    found = ask(calendar, delay_min, **question)
    assert found is None or found == [found[0]] * 3
    return found and datetime.fromisoformat(found[0])


def runs(ask: Ask, calendar: str, delay_min: float, start: str, count: int) -> list[str]:
    """The first `count` runs from `start` on with catchup, in UTC."""
    found, last = [], None
    for _ in range(count):
        last = next_run(ask, calendar, delay_min, earliest=start, last=last and last.isoformat(), catchup=True)
        assert last is not None
        found.append(last.strftime("%a %Y-%m-%d %H:%M"))
    return found


def closes(calendar: str, first: str, last: str) -> list[datetime]:
    """The closes from one day to another, both included."""
    return [close.item().replace(tzinfo=UTC) for close in schedule(calendar, first, last).closes]


@pytest.mark.parametrize(
    ("calendar", "start", "expected"),
    [
        (
            "XNYS",
            "2024-07-02",
            ["Tue 2024-07-02 21:30", "Wed 2024-07-03 18:30", "Fri 2024-07-05 21:30", "Mon 2024-07-08 21:30"],
        ),
        (
            "XNYS",
            "2024-11-27",
            ["Wed 2024-11-27 22:30", "Fri 2024-11-29 19:30", "Mon 2024-12-02 22:30"],
        ),
        ("XNYS", "2024-03-08", ["Fri 2024-03-08 22:30", "Mon 2024-03-11 21:30"]),
        ("XNYS", "2024-11-01", ["Fri 2024-11-01 21:30", "Mon 2024-11-04 22:30"]),
        ("XSHG", "2024-02-07", ["Wed 2024-02-07 08:30", "Thu 2024-02-08 08:30", "Mon 2024-02-19 08:30"]),
        ("XSHG", "2024-03-29", ["Fri 2024-03-29 08:30", "Mon 2024-04-01 08:30", "Tue 2024-04-02 08:30"]),
        ("24/7", "2024-02-28", ["Wed 2024-02-28 01:30", "Thu 2024-02-29 01:30", "Fri 2024-03-01 01:30"]),
    ],
    ids=["half day", "Thanksgiving", "spring forward", "fall back", "Chinese New Year", "no clock change", "always"],
)
def test_there_is_one_run_a_session(ask: Ask, calendar: str, start: str, expected: list[str]) -> None:
    """Holidays and weekends have none, half days an earlier one; the delay follows the exchange's own clock."""
    assert runs(ask, calendar, 90, start, len(expected)) == expected


def test_a_year_of_runs_is_a_year_of_sessions(ask: Ask) -> None:
    """No session is left out and none comes twice."""
    expected = [close + timedelta(minutes=45) for close in closes("XNYS", "2024-01-01", "2024-12-31")]
    found = runs(ask, "XNYS", 45, "2024-01-01", len(expected))
    assert found == [moment.strftime("%a %Y-%m-%d %H:%M") for moment in expected]


def test_a_restriction_includes_its_ends(ask: Ask) -> None:
    """A run at the very start or end is one; a second beyond, it is none."""
    assert runs(ask, "XNYS", 90, "2024-07-03T18:30", 1) == ["Wed 2024-07-03 18:30"]
    assert runs(ask, "XNYS", 90, "2024-07-03T18:30:01", 1) == ["Fri 2024-07-05 21:30"]
    for latest, there in (("2024-07-03T18:30:00", True), ("2024-07-03T18:29:59", False)):
        assert (next_run(ask, "XNYS", 90, earliest="2024-07-03", latest=latest, catchup=True) is not None) is there


@pytest.mark.parametrize("calendar", ["XNYS", "XSHG", "24/7"])
def test_without_catchup_missed_runs_are_skipped_up_to_the_newest(ask: Ask, calendar: str) -> None:
    """After a long stop the newest closed session is run at once, then the one after it; never an older one."""
    delay = timedelta(minutes=30)
    newest = next_run(ask, calendar, 30, earliest="2020-01-01", last="2021-06-01T20:30", catchup=False)
    assert newest is not None
    session = str(last_closed_session(calendar, datetime.now(UTC), delay))
    assert newest == closes(calendar, session, session)[0] + delay
    following = next_run(ask, calendar, 30, earliest="2020-01-01", last=newest.isoformat(), catchup=False)
    assert following is not None and following > datetime.now(UTC)


def test_the_first_run_without_a_start_date_lies_ahead(ask: Ask) -> None:
    """Switching the DAG on does not start a run at once, with catchup or without."""
    for catchup in (True, False):
        first = next_run(ask, "XNYS", 90, catchup=catchup)
        assert first is not None and datetime.now(UTC) < first < datetime.now(UTC) + timedelta(days=6)


def test_a_run_by_hand_is_of_the_moment(ask: Ask) -> None:
    """Its interval is the moment at which it was asked for."""
    assert ask("XNYS", 90, manual="2024-07-04T12:00:00Z") == ["2024-07-04T12:00:00+00:00"] * 2


def test_an_unknown_calendar_is_an_import_error_of_the_dag(ask: Ask) -> None:
    """Airflow shows the message, which names the setting and the known calendars; other known ones pass."""
    complaint = ask("NYSX", 90, validate=True)
    assert complaint.startswith("calendar 'NYSX' is unknown; set") and "calendar.schedule to one of" in complaint
    assert [ask(calendar, 90, validate=True) for calendar in ("XNYS", "XHKG", "24/7")] == [None] * 3


STORED = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
dag = DagBag(sys.argv[1]).dags["sync_market_data"]
heavy = [name for name in ("numpy", "pandas", "exchange_calendars") if name in sys.modules]
data = json.loads(json.dumps(DagSerialization.to_dict(dag)))
timetable = DagSerialization.from_dict(data).timetable
print(json.dumps({"type": type(timetable).__name__, "stored": timetable.serialize(), "summary": timetable.summary,
                  "description": timetable.description, "heavy": heavy, "catchup": dag.catchup}))
"""


def test_the_dag_keeps_its_timetable_in_airflows_storage(tmp_path: Path) -> None:
    """The settings' exchange and delay survive Airflow's DAG serialisation; parsing computes no session."""
    environ = os.environ | {
        "AIRFLOW_HOME": str(tmp_path),
        "MLOPS_HOME": str(tmp_path),
        "MLOPS_CALENDAR__SCHEDULE": "XSHG",
        "MLOPS_CALENDAR__DELAY_MIN": "45",
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    command = [sys.executable, "-c", STORED, str(PROJECT / "dags")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "type": "SessionTimetable",
        "stored": {"calendar": "XSHG", "delay_min": 45.0},
        "summary": "XSHG close + 45 min",
        "description": "After each session of XSHG, 45 minutes after its close",
        "heavy": [],
        "catchup": False,
    }
