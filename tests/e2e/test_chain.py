"""The whole chain in Airflow: with every task killed once, once more on unchanged bars, with a day more, by hand.

One stack serves all questions, for each takes most of a minute to start; what the killed tasks must leave is computed
without one (`reference.py`). What is asked of the services themselves is asked of this stack as well.
"""

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from playwright.sync_api import Locator, expect

from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.files import read_json
from mlops_tasks.process import EVALUATION_POOL, HEAVY_POOL, TRAINING_POOL
from mlops_tasks.stack import keeper
from mlops_tasks.stack.chain import Follower
from mlops_tasks.stack.console import Progress
from mlops_tasks.stack.credentials import ADMIN, airflow_users_file, read_credentials
from mlops_tasks.stack.environment import STACK_ID, airflow_url, mlflow_url
from mlops_tasks.stack.health import basic_authorization, get, unhealthy, wait_for
from mlops_tasks.stack.processes import own_processes
from mlops_tasks.stack.up import connect
from mlops_tasks.state.alerts.handling import open_episodes
from mlops_tasks.state.alerts.raising import raise_daily_alert
from tests.browsers import chromium
from tests.e2e.operation import (
    DAYS,
    SMALL,
    WITHOUT_STAGE,
    Killer,
    Operation,
    select_rows,
    task_tries,
    tasks_with_stages,
    write_panel,
)
from tests.e2e.person import Person, person
from tests.e2e.questions import PATIENCE_MS, Question

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

POINTERS = {"data/current.json", "training/latest.json"}
"""The files that say what is in use; all others are never changed once they are written."""

ROUNDS = 4
"""Disturbed runs at most; nearly always one is enough, and a task that was faster than its killer is met once more."""

VIEWER = "viewer"

SHOWN_ALERT = "replay_different"

ROUNDS_TO_WATCH = 4000
"""Iterations of a training that a person watches: some ten seconds."""

OWN = {
    **SMALL,
    "MLOPS_STACK__RETRY_DELAY_S": "1",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:ADMIN,{VIEWER}:VIEWER",
}


@dataclass(frozen=True)
class FirstRun:
    """What the first run of an operation printed and left, while its tasks were killed.

    Attributes
    ----------
    tries
        State and number of tries of each task instance.
    stages
        The task instances that ran a stage.
    struck
        Task instance to the process of it that got the signal, whether or not that came in time.
    """

    said: str
    state: dict[str, Any]
    tries: Mapping[str, tuple[str, int]]
    stages: set[str]
    struck: Mapping[str, str]

    @property
    def hit(self) -> set[str]:
        """The task instances that had to be tried once more."""
        return {task for task, (_, count) in self.tries.items() if count == 2}


@dataclass(frozen=True)
class Disturbed:
    """The first runs of as many operations as it took to kill every task, and the last of these, which still runs."""

    operation: Operation
    runs: tuple[FirstRun, ...]

    @property
    def killed(self) -> dict[str, str]:
        """Each task that was tried again in any of the runs, and the process of it that was killed."""
        return {task: run.struck.get(task, "nobody") for run in self.runs for task in run.hit}


@pytest.fixture(scope="module")
def disturbed(panel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disturbed]:
    """Operations whose tasks are killed on their first try; nearly always it is one."""
    runs: tuple[FirstRun, ...] = ()
    for _ in range(ROUNDS):
        operation = Operation(tmp_path_factory.mktemp("disturbed") / "home", panel, OWN)
        found = Disturbed(operation, runs)
        killer = Killer(operation.home, spared=set(found.killed))
        try:
            killer.start()
            said = operation.up()
            killer.stop()
            tries, stages = task_tries(operation.home), tasks_with_stages(operation.home)
            runs += (FirstRun(said, operation.state(), tries, stages, dict(killer.struck)),)
            found = Disturbed(operation, runs)
            if set(found.killed) == set(tries) or len(runs) == ROUNDS:
                yield found
                return
        finally:
            killer.stop()
            operation.down()


@pytest.fixture(scope="module")
def calm(disturbed: Disturbed) -> Operation:
    """The operation that still runs; from now on nobody disturbs it."""
    return disturbed.operation


@pytest.fixture(scope="module")
def first_run(disturbed: Disturbed) -> FirstRun:
    """Its first run."""
    return disturbed.runs[-1]


def test_every_task_killed_once_ends_in_the_same_state(disturbed, expected):
    """`kill -9` of a process of each task, and its retry: files, registry and history equal the undisturbed run's.

    This is a run of the whole chain, each task twice: over a minute on any machine.
    """
    for run in disturbed.runs:
        assert {state for state, _ in run.tries.values()} == {"success"}
        assert run.state == expected
        assert {task for task, (_, count) in run.tries.items() if count != 1} == run.hit <= set(run.struck)
        assert run.stages == set(run.tries) - WITHOUT_STAGE
    assert set(disturbed.killed) == set(disturbed.runs[-1].tries)
    assert set(disturbed.killed.values()) == {"stage", "airflow"}


def test_one_command_leads_from_bars_to_a_served_champion(calm, first_run):
    """Both DAGs are green, the champion serves all instruments of the newest date, and the table shows both models."""
    said, state = first_run.said, first_run.state
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


def test_airflow_shows_what_was_decided(calm, first_run):
    """The gate's sentence is the run's note, mapped tasks bear their models' names, and their links lead to the MLflow
    run and to the training's page."""
    (note,) = select_rows(
        calm.home,
        "select content from dag_run_note join dag_run on dag_run.id = dag_run_id where dag_id = 'daily_retraining'",
    )
    assert note[0].startswith(("version 1 (", "version 2 (")) and " by rule " in note[0]
    named = select_rows(calm.home, "select task_id, rendered_map_index from task_instance where map_index >= 0")
    tasks = {"build_model.train_model", "build_model.evaluate_model", "build_model.log_run"}
    assert set(named) == {(task, model) for task in tasks for model in ("lightgbm", "linear")}
    links = select_rows(calm.home, "select key, value from xcom where key like '_link_%' and map_index = 0")
    addresses = {key: json.loads(value) for key, value in links}
    assert addresses["_link_MLflow run"].startswith(f"{mlflow_url(calm.settings)}/#/experiments/")
    token = airflow_token(calm.settings, read_credentials(calm.settings).airflow_password)
    page = airflow_url(calm.settings) + addresses["_link_Training"].removeprefix("/plugin/training")
    assert get(page, {"Authorization": f"Bearer {token}"}, 120).status == 200  # the first page imports the app


def state_version(operation: Operation) -> str:
    version: str = read_json(operation.home / "data" / "current.json")["data_version"]
    return version


def test_who_does_not_log_in_sees_nothing(calm, first_run):
    """MLflow and Airflow ask for a password, and MLflow for the name under which a page reached it."""
    settings = calm.settings
    made = read_credentials(settings)
    experiments = f"{mlflow_url(settings)}/api/2.0/mlflow/experiments/get?experiment_id=0"
    allowed = basic_authorization(ADMIN, made.mlflow_password)
    assert get(experiments, {}).status == 401
    assert get(experiments, basic_authorization(ADMIN, "password1234")).status == 401
    assert get(experiments, allowed).status == 200
    assert get(experiments, {**allowed, "Host": "evil.example"}).status == 403
    pools = f"{airflow_url(settings)}/api/v2/pools/{HEAVY_POOL}"
    token = airflow_token(settings, made.airflow_password)
    assert get(pools, {}).status == 401
    assert get(pools, {"Authorization": f"Bearer {token}"}).status == 200


def airflow_token(settings: Settings, password: str) -> str:
    body = json.dumps({"username": ADMIN, "password": password}).encode()
    request = urllib.request.Request(f"{airflow_url(settings)}/auth/token", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())["access_token"]


def test_services_listen_here_only_and_show_no_secret(calm, first_run):
    """Nothing but the three ports of this machine is open; no secret is in a command line or a log."""
    settings = calm.settings
    record, made = keeper.read_record(settings), read_credentials(settings)
    own = own_processes(record.stack_id, record.keeper)
    listening = {(c.laddr.ip, c.laddr.port) for p in own for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
    ports = (settings.stack.airflow_port, settings.stack.mlflow_port, settings.stack.scoring_port)
    assert listening == {("127.0.0.1", port) for port in ports}
    shown = " ".join(" ".join(process.cmdline()) for process in own)
    shown += " ".join(path.read_text(errors="replace") for path in keeper.logs_dir(settings).iterdir())
    shown += " ".join(path.read_text(errors="replace") for path in (calm.home / "airflow" / "logs").rglob("*.log"))
    assert not [name for name, secret in vars(made).items() if secret in shown]


def test_a_persons_command_reaches_the_stack(calm, first_run):
    """With nothing but the home in its environment; the files of models are in MLflow's server, behind a password."""
    command = [PROJECT / "bin" / "alphaops", "deploy", "1"]
    done = subprocess.run(command, env=calm.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert calm.state() == first_run.state


def test_a_second_run_on_unchanged_bars_changes_nothing(calm, first_run):
    """The same command again: no service starts, no new asset, no new file, run, version or record."""
    before = {state.name: state.pid for state in keeper.service_states(calm.settings)}
    said = calm.up()
    assert "nothing new was published" in said
    assert calm.make("status").count("healthy") == len(before)
    assert calm.state() == first_run.state
    assert {state.name: state.pid for state in keeper.service_states(calm.settings)} == before
    api = connect(calm.settings, read_credentials(calm.settings))
    assert not any(api.ensure_pool(pool, 1, "") for pool in (HEAVY_POOL, TRAINING_POOL, EVALUATION_POOL))


def test_one_more_day_of_bars_adds_that_day(calm, first_run):
    """The new vintage has one more day; features of earlier years are not computed again; scores are of the new day.

    By now the operation's own settings name one model only.
    """
    before = first_run.state
    write_panel(calm.source, DAYS + 1)
    own = calm.home / "settings.yaml"
    own.write_text(yaml.safe_dump(yaml.safe_load(own.read_text()) | {"training": {"models": ["linear"]}}))
    calm.up()
    after = calm.state()
    kept = {name: digest for name, digest in before["files"].items() if name not in POINTERS}
    assert kept.items() <= after["files"].items()
    new = set(after["files"]) - set(before["files"])
    assert len([name for name in new if name.startswith("features/partitions/") and name.endswith(".parquet")]) == 1
    days = {row[0] for row in after["history"]["score_batch"]} - {row[0] for row in before["history"]["score_batch"]}
    manifest = read_json(calm.home / "data" / "vintages" / state_version(calm) / "manifest.json")
    assert days == {manifest["last_date"]}
    assert len(after["registry"]["runs"]) == 3


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


def test_a_person_approves_a_deployment_on_airflows_page(calm, first_run):
    """Airflow lists the question, a viewer's click does not answer it, the admin's lets the deployment go on, with the
    name kept; until then the task waits and the champion serves."""
    run, registry = ("deploy_model", "asked"), calm.state()["registry"]
    champion = registry["aliases"]["champion"]
    other = min(set(registry["versions"]) - {champion})
    command = [PROJECT / "bin" / "alphaops", "approve-model", str(other), "--reason", "the desk wants it"]
    subprocess.run(command, env=calm.environ, capture_output=True, check=True)
    api = connect(calm.settings, read_credentials(calm.settings))
    api.unpause(run[0])
    api.trigger(*run, {"version": other, "strategy": "direct", "approval": "before_deploy"})

    def is_waiting() -> bool:
        return [task.state for task in api.tasks(*run)] == ["awaiting_input"]

    assert wait_for(is_waiting, 300)
    passwords = read_json(airflow_users_file(calm.settings))
    question = Question(airflow_url(calm.settings), f"Deploy version {other}?")
    with chromium() as browser:
        assert question.answer(browser, VIEWER, passwords[VIEWER], "Approve") == 403
        assert is_waiting()
        assert calm.state()["registry"]["aliases"]["champion"] == champion
        assert question.answer(browser, ADMIN, passwords[ADMIN], "Approve") == 200
    Follower(api, Progress(), time.monotonic() + 600).follow(*run)
    state = calm.state()
    assert state["registry"]["aliases"]["champion"] == other
    version, _, step, reason = state["history"]["deployment"][-1]
    assert (version, step, reason) == (str(other), "serving", f"approved by {ADMIN}")


def test_a_person_does_a_days_work_on_the_pages(calm, first_run):
    """Sees how the operation stands, starts a training, watches its curves grow through a lost connection, reads its
    report, deploys another version and rolls it back, takes care of an alert, registers an experiment and reads it; all
    in Airflow's frame. A viewer is shown no form and refused what the forms send."""
    settings, passwords = calm.settings, read_json(airflow_users_file(calm.settings))
    champion = calm.state()["registry"]["aliases"]["champion"]
    other = min(version for version in calm.state()["registry"]["versions"] if version != champion)
    approve = [PROJECT / "bin" / "alphaops", "approve-model", str(other), "--reason", "the desk wants to see it"]
    subprocess.run(approve, env=calm.environ, capture_output=True, check=True)
    raise_daily_alert(settings, kind=SHOWN_ALERT, cause="desk", message="somebody should have a look")
    with chromium() as browser:
        with person(browser, airflow_url(settings), ADMIN, passwords[ADMIN]) as admin:
            _looks_at_today(admin, champion)
            _trains(admin, settings)
            _deploys_and_rolls_back(admin, calm, champion, other)
            _takes_care(admin, settings)
            _registers_an_experiment(admin)
        with person(browser, airflow_url(settings), VIEWER, passwords[VIEWER]) as viewer:
            frame = viewer.open("deployments")
            expect(frame.locator("#serving")).to_contain_text(f"version {champion}")
            assert frame.locator("form[data-post]").count() == 0
            answer = viewer.page.request.post(
                f"{viewer.url}/mlops/v1/deployments/rollback",
                data={"reason": "I may not"},
                headers={"Origin": viewer.url},
            )
            assert answer.status == 403
    assert calm.state()["registry"]["aliases"]["champion"] == champion


def _looks_at_today(admin: Person, champion: int) -> None:
    frame = admin.open("today")
    expect(frame.locator("main")).to_contain_text(f"version {champion}", ignore_case=True)
    admin.take_picture("today")


def _trains(admin: Person, settings: Settings) -> None:
    """Long enough to be watched; a shadow leaves the champion in service."""
    frame = admin.open("training", "new")
    for model, wanted in (("linear", False), ("lightgbm", True)):
        frame.locator(f"[data-choose={model}]").set_checked(wanted)
    frame.locator("[data-model=lightgbm] summary").click()
    frame.locator("[id='lightgbm.num_boost_round']").fill(str(ROUNDS_TO_WATCH))
    frame.get_by_text("Early stopping", exact=True).click()
    frame.locator("[name=stopping]").fill(f"lightgbm.patience={ROUNDS_TO_WATCH}")
    frame.locator("[name=deployment_strategy]").select_option("shadow")
    admin.take_picture("new_training")
    run = admin.starts(frame.locator("#train"), "Train")

    frame = admin.open("training")
    row = frame.locator("tr[data-run]", has_text="running").first
    row.get_by_role("link", name="lightgbm").click()
    number = frame.locator("#summary .number")
    expect(frame.locator("#link")).to_have_text("live", timeout=PATIENCE_MS)
    expect(frame.locator("#curves canvas").first).to_be_visible(timeout=PATIENCE_MS)
    first = _iteration(number)
    assert wait_for(lambda: _iteration(number) > first, 120)
    admin.take_picture("live_training")
    context = admin.page.context
    context.set_offline(True)
    expect(frame.locator("#link")).not_to_have_text("live", timeout=PATIENCE_MS)
    lost = _iteration(number)
    context.set_offline(False)
    assert wait_for(lambda: _iteration(number) > lost, 120)
    expect(frame.locator("#summary .state")).to_have_text("finished", timeout=300_000)
    assert wait_for(lambda: _iteration(number) == ROUNDS_TO_WATCH, 60), number.inner_text()

    Follower(connect(settings, read_credentials(settings)), Progress(), time.monotonic() + 600).follow(*run)
    frame.get_by_role("link", name="Report", exact=True).click()
    expect(frame.locator("h1")).to_contain_text("lightgbm")
    expect(frame.locator("main")).to_contain_text("certificate", ignore_case=True)
    expect(frame.locator("canvas").first).to_be_visible(timeout=PATIENCE_MS)
    admin.take_picture("training_report")


def _iteration(number: Locator) -> int:
    found = re.search(r"(\d+) of", number.inner_text().replace(",", ""))
    return int(found.group(1)) if found else 0


def _deploys_and_rolls_back(admin: Person, calm: Operation, champion: int, other: int) -> None:
    api = connect(calm.settings, read_credentials(calm.settings))
    frame = admin.open("deployments")
    frame.locator("#plan [name=version]").first.fill(str(other))
    frame.locator("#plan [name=strategy]").first.select_option("direct")
    frame.get_by_role("button", name="Show").click()
    run = admin.starts(frame.locator("#deploy"), f"Deploy version {other} by direct")
    Follower(api, Progress(), time.monotonic() + 600).follow(*run)
    expect(frame.locator("#serving")).to_contain_text(f"version {other}", timeout=PATIENCE_MS)
    admin.take_picture("deployments")
    back = frame.locator("form[data-post='deployments/rollback']")
    back.locator("[name=reason]").fill("it was a trial")
    back.locator("[name=version]").fill(str(champion))
    run = admin.starts(back, "Roll back")
    Follower(api, Progress(), time.monotonic() + 600).follow(*run)
    expect(frame.locator("#serving")).to_contain_text(f"version {champion}", timeout=PATIENCE_MS)


def _takes_care(admin: Person, settings: Settings) -> None:
    frame = admin.open("monitoring", "alerts")
    alert = frame.locator(".card", has_text="somebody should have a look").first
    admin.take_picture("alerts")
    alert.get_by_role("button", name="I take care of it").click()
    expect(frame.locator("main")).to_contain_text(f"{ADMIN} takes care of it", timeout=PATIENCE_MS)
    assert [each.acknowledged_by for each in open_episodes(settings) if each.key.kind == SHOWN_ALERT] == [ADMIN]


def _registers_an_experiment(admin: Person) -> None:
    frame = admin.open("experiments")
    layer = frame.locator("form[data-post=layers]")
    layer.locator("[name=name]").fill("accounts")
    layer.get_by_role("button").click()
    create = frame.locator("#create")
    expect(create.locator("[name=layer] option", has_text="accounts")).to_have_count(1, timeout=PATIENCE_MS)
    create.locator("summary").click()
    create.locator("[name=name]").fill("smaller_orders")
    create.locator("[name=owner]").fill("desk")
    create.locator("[name=hypothesis]").fill("Smaller orders cost less, since they move the price less.")
    create.locator("[data-metric]").first.locator("[data-part=name]").fill("cost_bps")
    create.locator("[data-metric]").first.locator("[data-part=smallest_effect]").fill("0.5")
    create.get_by_role("button", name="Register").click()
    expect(create.locator("output")).to_contain_text("Registered", timeout=PATIENCE_MS)
    frame = admin.open("experiments", "smaller_orders")
    expect(frame.locator("#summary")).to_contain_text("Smaller orders cost less")
    admin.take_picture("experiment")


def test_a_crashed_service_comes_back(calm, first_run):
    """The keeper starts it again, and all is well."""
    name = "airflow-dag-processor"
    before = running_pid(calm.settings, name)
    os.kill(before, signal.SIGKILL)
    assert wait_for(lambda: running_pid(calm.settings, name) not in (0, before), 60)
    assert wait_for(lambda: not unhealthy(calm.settings, read_credentials(calm.settings)), 120)


def running_pid(settings: Settings, name: str) -> int:
    return next((s.pid for s in keeper.service_states(settings) if s.name == name and s.state == "RUNNING"), 0)


def test_the_end_leaves_nothing_of_ours_and_everything_else(calm, first_run):
    """The last test of this stack: its keeper is killed, which the services outlive, and `make down` finds them all,
    those too that have renamed themselves, and nobody else's process."""
    record = keeper.read_record(calm.settings)
    assert record.keeper is not None
    env = {k: v for k, v in os.environ.items() if k != STACK_ID}
    with subprocess.Popen(["sleep", "600"], env=env, start_new_session=True) as stranger:
        os.kill(record.keeper.pid, signal.SIGKILL)
        time.sleep(0.5)
        own = own_processes(record.stack_id, record.keeper)
        assert len(own) >= 10
        calm.down()
        assert stranger.poll() is None
        stranger.kill()
    assert own_processes(record.stack_id, record.keeper) == []
    assert not [process for process in own if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not keeper.is_running(calm.settings)
