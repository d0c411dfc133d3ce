"""Days as units in the life of an experiment: a schedule that is known beforehand, and one test at its end."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_tasks.cli import main
from mlops_tasks.config import Settings
from mlops_tasks.data.exchanges.calendars import sessions
from mlops_tasks.errors import ExperimentError
from mlops_tasks.experiments.daily_analysis import ExperimentAnalysis, analyse_experiment
from mlops_tasks.experiments.day_schedule import DaySchedule
from mlops_tasks.experiments.inference.switchback import Switchback, switchback_test
from mlops_tasks.experiments.lifecycle import (
    create_experiment,
    create_layer,
    history_of,
    move_experiment,
    override_units,
    running_traffic,
)
from mlops_tasks.experiments.metric_events import ingest_events
from mlops_tasks.states import ExperimentState, UnitKind
from tests.evaluation.test_significance import ar1
from tests.experiments.designs import design

BEGAN = datetime(2024, 1, 1, 12, tzinfo=UTC)
BLOCKS: dict[str, Any] = {"switchback": {"block": 5, "washout": 1}, "layer": "days", "guards": []}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home with a layer of days, in which experiments begin on the first day of 2024."""
    monkeypatch.setattr("mlops_tasks.experiments.lifecycle.now", lambda: BEGAN)
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
    settings = Settings(home=tmp_path)
    create_layer(settings, "days", UnitKind.DAY)
    return settings


def started(settings: Settings) -> DaySchedule:
    """The schedule of a switchback of sixty days that has just begun."""
    create_experiment(settings, design(**BLOCKS))
    move_experiment(settings, "orders", ExperimentState.RUNNING, "go")
    schedule = history_of(settings, "orders")[-1].enrolment.schedule
    assert schedule is not None
    return schedule


def test_the_schedule_is_of_market_days_and_known_before_they_come(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sixty sessions from the day after the start on, in pairs of blocks; a pause and a new process change none."""
    schedule = started(settings)
    assert list(schedule.days) == list(map(str, sessions("XNYS", "2024-01-02", "2024-12-31")[:60]))
    arms = running_traffic(settings).assign("orders", schedule.days)
    blocks = arms.codes.reshape(6, 2, 5)
    assert (blocks == blocks[:, :, :1]).all() and (blocks[:, :, 0].sum(axis=1) == 1).all()
    assert arms.counts() == {"control": 30, "treatment": 30}
    move_experiment(settings, "orders", ExperimentState.PAUSED, "a doubt")
    move_experiment(settings, "orders", ExperimentState.RUNNING, "dispelled")
    capsys.readouterr()
    assert main(["experiments", "assign", "orders", *schedule.days, "2024-01-01", "2024-01-06"]) == 0
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[1] for row in told[:60]] == [arms.arm_of(row) for row in range(60)]
    assert [row[1:] for row in told[60:]] == [["-", "not_scheduled"]] * 2
    assert main(["experiments", "list"]) == 0
    assert "2024-01-02 to 2024-03-27 in blocks of 5 days, the first 1 left out" in capsys.readouterr().out


def test_a_calendar_that_is_named_is_followed(tmp_path: Path) -> None:
    """Shanghai is closed when the year changes, and for its spring festival."""
    days = DaySchedule.after(date(2024, 1, 31), Switchback(60, 5, 1), "XSHG").days
    assert "2024-02-08" in days and not {"2024-02-09", "2024-02-12", "2024-02-16"} & set(days)
    assert len(days) == 60 and list(days) == sorted(days)


def test_every_salt_is_another_coin() -> None:
    """Each pair comes out both ways, half of the time, and independently of its neighbour."""
    schedule = DaySchedule.after(date(2024, 1, 1), Switchback(60, 5, 1), "24/7")
    drawn = np.array([schedule.first(f"salt {number}") for number in range(2000)])
    np.testing.assert_allclose(drawn.mean(axis=0), 0.5, atol=0.05)
    np.testing.assert_allclose(np.corrcoef(drawn.T)[np.triu_indices(6, 1)], 0, atol=0.1)


def test_no_effect_is_found_at_the_level_and_an_effect_is_found() -> None:
    """Dependent days, with carry-over on the first day of each block: the salts' coins are the test's randomness."""
    schedule = DaySchedule.after(date(2024, 1, 1), Switchback(80, 5, 1), "24/7")
    false, found = [], []
    for number in range(250):
        first = schedule.first(f"salt {number}")
        arms = schedule.codes(f"salt {number}", schedule.days).astype(float)
        before = np.concatenate([[0.0], arms[:-1]])
        noise = ar1(0.5, 80, number) + 2.0 * (before - arms)
        false.append(switchback_test(noise, first, schedule.design).significant)
        found.append(switchback_test(noise + 3.0 * arms, first, schedule.design).significant)
    assert np.mean(false) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 250)
    assert np.mean(found) >= 0.8


def measured(settings: Settings, monkeypatch: pytest.MonkeyPatch, skipped: int = 0, late: bool = False) -> DaySchedule:
    """Two events a day, of which the treatment's are lower by two, with the day as their unit."""
    schedule = started(settings)
    arms = running_traffic(settings).assign("orders", schedule.days)
    noise = ar1(0.5, 60, 1)

    def events() -> Iterator[dict[str, Any]]:
        for row, day in enumerate(schedule.days):
            if row == skipped - 1:
                continue
            moment = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(hours=20)
            for number, aside in enumerate((-0.5, 0.5)):
                value = 10 + noise[row] + aside - 2.0 * (arms.arm_of(row) == "treatment")
                sent = {"event_id": f"{row}-{number}", "unit": day, "metric": "cost_bps", "value": value}
                yield {**sent, "at": moment.isoformat()}

    assert ingest_events(settings, "orders", events()).refused == 0
    if not late:
        monkeypatch.setattr("mlops_tasks.experiments.daily_analysis.now", lambda: datetime(2024, 3, 27, 23, tzinfo=UTC))
    return schedule


def told(settings: Settings) -> tuple[ExperimentAnalysis, str]:
    """The analysis, and what its only finding says."""
    found = analyse_experiment(settings, "orders")
    (finding,) = found.findings
    return found, finding.said()


def test_it_is_looked_at_once_when_its_last_day_has_ended(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not an hour before; then the effect is found, by the randomisation test over the six pairs."""
    schedule = measured(settings, monkeypatch)
    found, said = told(settings)
    assert found.advice == "wait" and "ends on 2024-03-27, and is looked at once" in said and found.ratio is None
    monkeypatch.setattr("mlops_tasks.experiments.daily_analysis.now", lambda: datetime(2024, 3, 28, tzinfo=UTC))
    found, said = told(settings)
    result = found.findings[0].result
    assert result is not None and (result.method, result.n) == ("switchback", schedule.design.pairs)
    assert (found.days, found.advice, found.arm) == (60, "stop_winner", "treatment")
    assert result.effect == pytest.approx(-2, abs=0.8) and "any dependence between days is allowed" in said


def test_a_day_without_a_value_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gap could depend on the arm."""
    schedule = measured(settings, monkeypatch, skipped=17, late=True)
    found, said = told(settings)
    assert f"{schedule.days[16]} of the schedule have no event of cost_bps; send them" in said
    assert (found.advice, found.days) == ("stop_end", 59)


def test_a_day_is_not_chosen_by_hand(settings: Settings) -> None:
    """The coin is what the test rests on."""
    schedule = started(settings)
    with pytest.raises(ExperimentError, match="a day chosen by hand would spoil its test"):
        override_units(settings, "orders", {schedule.days[0]: "treatment"}, "the desk's wish")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"planned_days": 50}, r"5 pairs of blocks of 5 days, but 6 are needed; take shorter blocks or 60 days"),
        ({"planned_days": 66}, r"66 planned days are no whole pairs of blocks of 5; plan 60 or 70"),
        ({"switchback": {"block": 2, "washout": 2}}, r"has no day to count; make blocks longer"),
        ({"looks": "weekly"}, r"the randomisation test is made once, at the planned end; set looks to one"),
        ({"arms": {"control": "0.4", "treatment": "0.6"}}, r"give each a share of 0\.5"),
        ({"arms": {"a": "0.5", "b": "0.25", "c": "0.25"}}, r"a coin chooses between two arms"),
        ({"share": "0.5"}, r"of all days"),
        ({"switchback": None}, r"no day compares two; switch between the arms in blocks"),
        ({"layer": "accounts"}, r"layer accounts has account units"),
    ],
)
def test_wrong_designs_of_days_are_refused(settings: Settings, changes: dict[str, Any], said: str) -> None:
    """At registration, with what to do."""
    create_layer(settings, "accounts", UnitKind.ACCOUNT)
    with pytest.raises(ExperimentError, match=said):
        create_experiment(settings, design(**BLOCKS | changes))
