"""The whole chain in Airflow: once, once more on unchanged bars, with a day more; and with every task killed once."""

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.files import read_json
from mlops_tasks.stack.chain import Follower
from mlops_tasks.stack.console import Progress
from mlops_tasks.stack.credentials import read_credentials
from mlops_tasks.stack.up import connect
from tests.e2e.operation import Killer, Operation, stage_spans, task_tries, write_panel

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

DAYS = 260
"""Sessions of the small market; the shortest that gives all three segments a fair number of days."""

POINTERS = {"data/current.json", "training/latest.json"}
"""The files that say what is in use; all others are never changed once they are written."""

ROUNDS = 4
"""Disturbed runs at most; nearly always one is enough, and a task that was faster than its killer is met once more."""

SMALL = {"MLOPS_PORTFOLIO__TOPK": "10", "MLOPS_PORTFOLIO__N_DROP": "2", "MLOPS_STACK__RETRY_DELAY_S": "1"}


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bars of both operations."""
    path: Path = tmp_path_factory.mktemp("source") / "panel.parquet"
    write_panel(path, DAYS)
    return path


@pytest.fixture(scope="module")
def calm(panel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operation]:
    """An operation that nobody disturbs."""
    operation = Operation(tmp_path_factory.mktemp("calm") / "home", panel, SMALL)
    try:
        yield operation
    finally:
        operation.down()


@pytest.fixture(scope="module")
def first_run(calm: Operation) -> tuple[str, dict]:
    """What the first run printed, and the state that it left."""
    return calm.up(), calm.state()


def test_one_command_leads_from_bars_to_a_served_champion(calm, first_run):
    """Both DAGs are green, the champion serves all instruments of the newest date, and the table shows both models."""
    said, state = first_run
    assert {state for state, _ in task_tries(calm.home).values()} == {"success"}
    assert "| lightgbm" in said
    assert "| linear" in said
    assert state["registry"]["aliases"] == {"champion": 1, "challenger": 1}
    assert [status for _, status, _ in state["registry"]["runs"]] == ["FINISHED"] * 2
    token = (calm.home / "secrets" / "scoring_token").read_text().strip()
    request = urllib.request.Request(
        f"{calm.settings.scoring_url}/v1/score",
        data=b"{}",
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    vintage = read_json(calm.home / "data" / "vintages" / state_version(calm) / "manifest.json")
    assert answer["date"] == vintage["last_date"]
    assert len(answer["scores"]) >= 25
    assert answer["missing"] == []


def state_version(operation: Operation) -> str:
    version: str = read_json(operation.home / "data" / "current.json")["data_version"]
    return version


def test_every_task_killed_once_ends_in_the_same_state(calm, panel, first_run, tmp_path_factory):
    """`kill -9` of a process of each task, and its retry: files, registry and history equal the undisturbed run's."""
    spans, expected = stage_spans(calm.home), first_run[1]
    killed: dict[str, str] = {}
    for _ in range(ROUNDS):
        operation = Operation(tmp_path_factory.mktemp("disturbed") / "home", panel, SMALL)
        killer = Killer(operation.home, spans, spared=set(killed))
        try:
            killer.start()
            operation.up()
            killer.stop()
            tries, state = task_tries(operation.home), operation.state()
        finally:
            operation.down()
        assert {state for state, _ in tries.values()} == {"success"}
        assert state == expected
        hit = {task for task, (_, count) in tries.items() if count == 2}
        assert {task for task, (_, count) in tries.items() if count != 1} == hit <= set(killer.struck)
        killed |= {task: killer.struck[task] for task in hit}
        if set(killed) == set(tries):
            break
        spans |= {task: span for task, span in stage_spans(operation.home).items() if task not in hit}
    assert set(killed) == set(tries)
    assert set(killed.values()) == {"stage", "airflow"}


def test_a_second_run_on_unchanged_bars_changes_nothing(calm, first_run):
    """The same command again: no new asset, no new file, run, version or record."""
    said = calm.up()
    assert "nothing new was published" in said
    assert calm.state() == first_run[1]


def test_one_more_day_of_bars_adds_that_day(calm, first_run):
    """The new vintage has one more day; features of earlier years are not computed again; scores are of the new day."""
    _, before = first_run
    write_panel(calm.source, DAYS + 1)
    calm.up()
    after = calm.state()
    kept = {name: digest for name, digest in before["files"].items() if name not in POINTERS}
    assert kept.items() <= after["files"].items()
    new = set(after["files"]) - set(before["files"])
    assert len([name for name in new if name.startswith("features/partitions/") and name.endswith(".parquet")]) == 1
    days = {row[0] for row in after["history"]["score_batch"]} - {row[0] for row in before["history"]["score_batch"]}
    manifest = read_json(calm.home / "data" / "vintages" / state_version(calm) / "manifest.json")
    assert days == {manifest["last_date"]}
    assert len(after["registry"]["runs"]) == 4


def test_a_run_by_hand_takes_its_form(calm, first_run):
    """Model, horizon, dates and strategy come from the form; a shadow deployment leaves the champion in service."""
    sessions = current_vintage(calm.settings).calendar()
    day = [str(session.date()) for session in sessions]
    form = {
        "models": ["linear"],
        "horizon": 5,
        "topk": 5,
        "train": f"{day[0]}:{day[149]}",
        "valid": f"{day[150]}:{day[199]}",
        "test": f"{day[200]}:{day[-1]}",
        "deployment_strategy": "shadow",
    }
    api = connect(calm.settings, read_credentials(calm.settings))
    api.trigger("daily_retraining", "by_hand", form)
    Follower(api, Progress(), time.monotonic() + 600).follow("daily_retraining", "by_hand")
    state = calm.state()
    (key,) = read_json(calm.home / "training" / "latest.json")["training_keys"]
    plan = read_json(calm.home / "training" / key / "plan.json")
    assert (plan["model"], plan["horizon"], plan["topk"]) == ("linear", 5, 5)
    assert plan["segments"]["valid"] == [day[150], day[199]]
    newest = max(state["registry"]["versions"])
    assert state["registry"]["versions"][newest][0] == key
    assert state["registry"]["aliases"]["challenger"] == newest
    assert state["registry"]["aliases"]["champion"] < newest
