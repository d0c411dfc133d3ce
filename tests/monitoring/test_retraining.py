"""What drift starts, on SQLite and on PostgreSQL: by the rule, once in a cool-down, lost or doubled by no kill."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlops_tasks.config import DriftRetrainingRules, DriftSettings, Settings
from mlops_tasks.monitoring.retraining import confirmed, wanted_retraining
from mlops_tasks.monitoring.tasks import monitor_task
from mlops_tasks.state.deployments import record_deployment
from mlops_tasks.state.history import record_drift_report
from mlops_tasks.state.retrainings import record_begun, retrainings
from mlops_tasks.state.rollouts import Rollout, RolloutPlan, record_rollout, record_rollout_step
from mlops_tasks.state.tables import Deployment, DriftReport, now
from mlops_tasks.states import DeploymentState, RolloutState, Strategy
from mlops_tasks.training.tasks import plan_run_task
from tests.operation import make_champion
from tests.postgres import DATABASES, settings_on
from tests.registry.conftest import Operation
from tests.registry.trainings import Spec

DAYS = pd.bdate_range("2024-01-01", periods=14)
RULES = DriftRetrainingRules(enabled=True, confirmed_days=3, min_importance=0.05, cooldown_days=5, form={"seed": 7})
CHAMPION = 4


@pytest.fixture(params=DATABASES)
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """A champion, and nothing else."""
    with settings_on(request.param, tmp_path, drift=DriftSettings(retraining=RULES)) as made:
        served = {"state": DeploymentState.SERVING, "strategy": "direct"}
        record_deployment(made, Deployment(model_version=CHAMPION, training_key="k", data_version="d", **served))
        yield made


def report(day: pd.Timestamp, at_stake: float | None = 0.3, **changes: Any) -> DriftReport:
    """Of a day with drift."""
    values = {"model_version": CHAMPION, "data_version": "d", "psi_max": 0.4, "n_warn": 1, "n_alert": 2, "path": "p"}
    return DriftReport(**{"date": day.date(), "at_stake": at_stake, **values, **changes})


def drifted(settings: Settings, days: pd.DatetimeIndex, **changes: Any) -> None:
    for day in days:
        record_drift_report(settings, report(day, **changes))


def wanted(settings: Settings, until: int) -> str | None:
    """The run that is asked for when so many days are known."""
    found = wanted_retraining(settings, "d", DAYS[:until])
    return None if found is None else found.run_id


def test_lasting_drift_starts_one_retraining_in_a_cool_down(watched: Settings) -> None:
    """Fourteen days of drift: on the third day, and whenever five market days have passed since the last one."""
    asked = {}
    for until in range(1, len(DAYS) + 1):
        drifted(watched, DAYS[until - 1 : until])
        found = wanted(watched, until)
        assert wanted(watched, until) == found  # until its run begins it is asked for again
        if found is not None:
            asked[until] = found
            assert record_begun(watched, found) and not record_begun(watched, found)
    assert asked == {n: f"drift__{DAYS[n - 1].date()}__v{CHAMPION}" for n in (3, 8, 13)}
    rows = retrainings(watched)
    assert [row.step for row in rows] == ["asked", "begun"] * 3
    assert rows[0].reason == rows[1].reason and rows[0].form == {"seed": 7}
    assert rows[0].reason == (
        f"version {CHAMPION} has drifted on 3 market days up to {DAYS[2].date()}; now 2 columns with 30% of the "
        "score's importance are beyond the limit"
    )


def test_a_retraining_that_was_recorded_is_started_whatever_comes_in_between(watched: Settings) -> None:
    """A process that dies before Airflow knows of the run: later ones ask for the same, on quiet days too."""
    drifted(watched, DAYS[:3])
    first = wanted(watched, 3)
    drifted(watched, DAYS[3:6], n_alert=0)
    assert [wanted(watched, until) for until in (4, 5, 6)] == [first] * 3
    record_begun(watched, str(first))
    assert wanted(watched, 6) is None and len(retrainings(watched)) == 2


def test_processes_that_ask_at_once_ask_for_one(watched: Settings) -> None:
    """The record is made in one transaction with the look at those before."""
    drifted(watched, DAYS[:7])
    days = [3, 4, 5, 6, 7]
    with ThreadPoolExecutor(len(days)) as pool:
        found = list(pool.map(lambda until: wanted(watched, until), days))
    (row,) = retrainings(watched)
    assert {each for each in found if each is not None} == {row.run_id}


def test_no_retraining_is_asked_for_beside_an_undecided_rollout(watched: Settings) -> None:
    """Neither a new one nor one that was recorded before; the decision sets it free."""
    drifted(watched, DAYS[:4])
    begun = Rollout(
        rollout_id="r1",
        version=5,
        training_key="k5",
        digest="x",
        strategy=Strategy.CANARY,
        plan=RolloutPlan((0.1,), 60.0, 600.0),
        state=RolloutState.HOLDING,
        asked_at=now(),
        at=now(),
        champion=CHAMPION,
        began_at=now(),
    )
    record_rollout(watched, begun)
    assert wanted(watched, 3) is None and retrainings(watched) == []
    decided = replace(begun, state=RolloutState.REJECTED, at=now() + timedelta(seconds=1))
    assert record_rollout_step(watched, begun, decided)
    assert wanted(watched, 3) is not None
    record_rollout(watched, replace(begun, rollout_id="r2", version=6, digest="y"))
    assert wanted(watched, 4) is None and len(retrainings(watched)) == 1


def test_the_drift_of_another_version_starts_nothing(watched: Settings) -> None:
    """The champion that drifted is out of service already."""
    drifted(watched, DAYS[:3], model_version=CHAMPION - 1)
    assert wanted(watched, 3) is None


@pytest.mark.parametrize(
    ("changed", "is_confirmed"),
    [
        ({}, True),
        ({2: {"n_alert": 0}}, False),
        ({3: {"at_stake": 0.04}}, False),
        ({3: {"at_stake": None}}, True),
        ({4: None}, False),
        ({3: None}, False),
        ({1: {"n_alert": 0}}, True),
    ],
)
def test_drift_is_confirmed_by_the_last_days(changed: dict[int, dict[str, Any] | None], is_confirmed: bool) -> None:
    """By three in a row up to the newest one, each with enough at stake; an unknown share is not a small one."""
    given = {place: {} for place in range(5)} | changed
    reports = [report(DAYS[place], **each) for place, each in given.items() if each is not None]
    assert (confirmed(reports, DAYS[:5], RULES) is not None) == is_confirmed


def test_of_a_days_reports_the_last_one_counts() -> None:
    """A restated vintage takes a day's drift back."""
    reports = [report(day) for day in DAYS[:3]]
    assert confirmed([*reports, report(DAYS[1], n_alert=0, data_version="e")], DAYS[:3], RULES) is None


def test_the_monitor_asks_and_the_run_says_that_it_has_begun(
    operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off by default. The run is asked for until its plan is made."""
    make_champion(operation.settings, operation.register(Spec()))
    days = operation.vintage.calendar()
    drifted(operation.settings, days[-3:], model_version=1)
    assert monitor_task()["retraining"] is None and retrainings(operation.settings) == []
    (operation.settings.home / "settings.yaml").write_text("drift: {retraining: {enabled: true}}\n")
    asked = f"drift__{days[-1].date()}__v1"
    for _ in range(2):
        found = monitor_task()
        assert (found["retraining"], found["retraining_form"]) == (asked, {})
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "daily_retraining")
    for run_id in ("manual__1", asked):
        monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", run_id)
        plan_run_task()
    assert monitor_task()["retraining"] is None
    assert [row.run_id for row in retrainings(operation.settings)] == [asked] * 2
