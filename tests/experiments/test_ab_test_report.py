"""The report of an A/B test: one folder and one run in MLflow, equal content once, whatever is killed in between."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from mlops_tasks.cli import main
from mlops_tasks.config import Settings
from mlops_tasks.experiments.daily_task import analyze_experiments_task
from mlops_tasks.experiments.lifecycle import move_experiment, running_traffic
from mlops_tasks.experiments.metric_events import ingest_events
from mlops_tasks.files import read_json, retire_folder
from mlops_tasks.registry.ab_test_run import DIGEST_TAG
from mlops_tasks.registry.client import AB_TEST_EXPERIMENT, connect, experiment_id
from mlops_tasks.reports import ReportKind, find_report
from mlops_tasks.stage_results import Analyzed, check_result
from mlops_tasks.states import ExperimentState
from tests.experiments.designs import running
from tests.registry.conftest import migrated_mlflow, settings

__all__ = ["migrated_mlflow", "settings"]

BEGAN = datetime(2024, 1, 1, tzinfo=UTC)
UNITS = [f"account-{number}" for number in range(40)]
EFFECT = "cost_bps.treatment.effect"


@pytest.fixture
def home(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An experiment that has run for 45 of 60 days without an effect, and is looked at every week from day 30 on."""
    monkeypatch.setattr("mlops_tasks.experiments.lifecycle.now", lambda: BEGAN)
    running(settings, looks="weekly", guards=[])
    assert ingest_events(settings, "orders", events(settings, range(45))).refused == 0
    return settings


def events(settings: Settings, days: range, effect: float = 0.0) -> Iterator[dict[str, Any]]:
    """One of each unit and day."""
    arms = running_traffic(settings).assign("orders", UNITS)
    for day in days:
        draw = np.random.default_rng(day)
        at = (BEGAN + timedelta(days=day, hours=10)).isoformat()
        for row, unit in enumerate(UNITS):
            value = draw.normal() + effect * (arms.arm_of(row) == "treatment")
            yield {"event_id": f"{day}-{row}-{effect}", "unit": unit, "metric": "cost_bps", "value": value, "at": at}


def logged(settings: Settings) -> tuple[MlflowClient, Run]:
    """The only run of the experiment."""
    client = connect(settings)
    (run,) = client.search_runs([experiment_id(settings, AB_TEST_EXPERIMENT)])
    return client, run


def looks(client: MlflowClient, run: Run, name: str = EFFECT) -> list[tuple[int, float]]:
    """Step and value of each logged number, in order."""
    history = client.get_metric_history(run.info.run_id, name)
    return [(each.step, each.value) for each in sorted(history, key=lambda each: (each.step, each.timestamp))]


def test_the_report_and_the_run_tell_the_same(home: Settings) -> None:
    """Design, looks by day with intervals, state and advice, and the files."""
    told = analyze_experiments_task()
    check_result("experiments.analyze", Analyzed, dict(told))
    client, run = logged(home)
    assert told["runs"] == {"orders": run.info.run_id} and told["experiment_id"] == run.info.experiment_id
    report = find_report(home, ReportKind.AB_TEST, "orders")
    assert report.files == ["report.json", "effect.png", "difference.png", "sample_ratio.png"]
    assert {each.path for each in client.list_artifacts(run.info.run_id)} == set(report.files)
    assert "running; orders: wait, day 45 of 60" in report.said and report.day == "2024-02-14"
    assert [look["day"] for look in report.content["looks"]] == [30, 35, 40, 45]
    for name in ("effect", "lower", "upper", "p_value"):
        expected = [(look["day"], look[name]) for look in report.content["looks"]]
        assert looks(client, run, f"cost_bps.treatment.{name}") == expected
    newest = report.content["analysis"]["findings"][0]["result"]
    assert report.content["looks"][-1]["effect"] == newest["effect"]
    assert run.data.params["primary.name"] == "cost_bps" and run.data.params["arms.treatment"] == "0.5"
    assert (run.data.tags["state"], run.data.tags["advice"], run.info.status) == ("running", "wait", "RUNNING")
    assert "Orders sized by the new scores" in run.data.tags["mlflow.note.content"]
    (units,) = [row for row in report.content["units"] if row["day"] == "2024-01-01"]
    assert units["control"] + units["treatment"] == len(UNITS)


def test_an_equal_analysis_writes_nothing_twice(home: Settings) -> None:
    """Neither in the home nor in MLflow; five more days add one look, and change none."""
    analyze_experiments_task()
    client, run = logged(home)
    path = home.reports_dir / "ab_test" / "orders" / "report.json"
    made, before = path.stat(), looks(client, run)
    assert analyze_experiments_task()["runs"] == {"orders": run.info.run_id}
    assert path.stat().st_ino == made.st_ino and path.stat().st_mtime_ns == made.st_mtime_ns
    assert looks(client, logged(home)[1]) == before
    ingest_events(home, "orders", events(home, range(45, 50)))
    analyze_experiments_task()
    after = looks(client, logged(home)[1])
    assert after[:-1] == before and after[-1][0] == 50


def test_a_killed_task_that_runs_again_ends_in_the_same_state(home: Settings) -> None:
    """Killed before MLflow had all of it, and before the report had its name."""
    analyze_experiments_task()
    client, run = logged(home)
    folder = home.reports_dir / "ab_test" / "orders"
    files, known = {path.name: path.read_bytes() for path in folder.iterdir()}, looks(client, run)
    client.delete_tag(run.info.run_id, DIGEST_TAG)
    retire_folder(folder)
    (folder.parent / f".orders.{2**30}.left").mkdir()
    analyze_experiments_task()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert looks(client, logged(home)[1]) == known and logged(home)[1].data.tags == run.data.tags
    assert [path.name for path in folder.parent.iterdir()] == ["orders"], "what was left is removed"


def test_late_events_change_a_look_that_was_taken(home: Settings) -> None:
    """MLflow shows the newest value of the step, and keeps the one before."""
    analyze_experiments_task()
    client, run = logged(home)
    before = dict(looks(client, run))
    ingest_events(home, "orders", events(home, range(32, 33), effect=1.0))
    analyze_experiments_task()
    content = read_json(home.reports_dir / "ab_test" / "orders" / "report.json")
    after = dict(looks(client, logged(home)[1]))
    assert after == {look["day"]: look["effect"] for look in content["looks"]}
    assert after[30] == before[30] and after[35] != before[35]


def test_an_end_is_told_once(home: Settings) -> None:
    """Whoever stops it by hand finds the state in the report and in MLflow after the next analysis, and no more."""
    analyze_experiments_task()
    move_experiment(home, "orders", ExperimentState.STOPPED, "planned end")
    assert list(analyze_experiments_task()["runs"]) == ["orders"]
    _, run = logged(home)
    assert (run.data.tags["state"], run.info.status) == ("stopped", "FINISHED")
    assert find_report(home, ReportKind.AB_TEST, "orders").content["reason"] == "planned end"
    assert analyze_experiments_task()["runs"] == {}


def test_plots_are_written_where_they_are_asked_for(
    home: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a report, and without MLflow."""
    capsys.readouterr()
    assert main(["experiments", "analyze", "orders", "--plots", str(tmp_path / "plots")]) == 0
    said = capsys.readouterr().out.splitlines()
    names = ["effect.png", "difference.png", "sample_ratio.png"]
    assert said[-3:] == [str(tmp_path / "plots" / name) for name in names]
    assert all((tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG") for name in names)
    assert not (home.reports_dir / "ab_test").exists()
