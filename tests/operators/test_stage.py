"""The operator that runs a stage: which errors end a task, what it leaves for the run's note, where it leads to."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.shared_stages import serve

EXECUTE = """
import json, sys, threading, time
from datetime import datetime, timedelta, timezone
from pathlib import Path
import airflow
from airflow.sdk.exceptions import TaskAwaitingInput
from types import SimpleNamespace
import mlops_tasks.operators.deployment as deploying
from mlops_tasks.errors import ConfigError
from mlops_tasks.operators.deployment import DeploymentOperator
from mlops_tasks.operators.failures import ErrorPolicy
from mlops_tasks.operators.stage import StageOperator

def executed(stage, arguments, known):
    operator = StageOperator(task_id="the_task", stage=stage, arguments=arguments)
    pushed = {}
    context = {"ti": SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))}
    if known is not None:
        operator.made = known
        return {link.name: link.get_link(operator, ti_key=None) for link in operator.operator_extra_links}
    try:
        return [operator.execute(context), pushed]
    except Exception as error:
        return [ErrorPolicy().evaluate(error, 1, 3).action.value, str(error), pushed]

def ended(pid_file, limit_s, marked_failed):
    operator = StageOperator(
        task_id="long", stage="tests.example_stages:sleep_with_grandchild", arguments={"pid_file": pid_file},
        time_limit_s=limit_s,
    )
    def mark():
        while not Path(pid_file).exists():
            time.sleep(0.02)
        operator.on_kill()
    if marked_failed:
        threading.Thread(target=mark, daemon=True).start()
    try:
        operator.execute({"ti": SimpleNamespace(xcom_push=lambda key, value: None)})
    except Exception as error:
        return [type(error).__name__, str(error)]

def by_hand(version, **more):
    # What a deployment without a gate's decision does before anybody is asked.
    operator = DeploymentOperator(task_id="d", wait=timedelta(hours=4), run_params=["version", "strategy"])
    operator.stage, asked = "tests.example_stages:tell", {}
    deploying.upsert_hitl_detail = lambda **given: asked.update(given)
    ti = SimpleNamespace(id="the_id", xcom_push=lambda key, value: None)
    params = {"approval": "before_deploy", "version": version, "strategy": "canary"}
    run, dag = SimpleNamespace(conf={"version": version, **more}), SimpleNamespace(params=params)
    try:
        return [operator.execute({"ti": ti, "params": params, "dag_run": run, "dag": dag}), asked]
    except TaskAwaitingInput:
        return asked["subject"]
    except ConfigError as error:
        return [str(error), asked]

def deployment(approval, decision, events=()):
    # What is asked, and each answer's result.
    gate = {"decision": decision, "version": 7, "rule": "superiority", "reasons": ["a gain"]}
    noted = []
    given = {"gate": gate, "strategy": "canary"}
    operator = DeploymentOperator(task_id="d", wait=timedelta(hours=4), arguments=given)
    operator.stage, asked = "tests.example_stages:tell", {}
    deploying.upsert_hitl_detail = lambda **given: asked.update(given)
    ti = SimpleNamespace(id="the_id", xcom_push=lambda key, value: noted.append(value) if key == "run_note" else None)
    context = {"ti": ti, "params": {"approval": approval}}
    try:
        return operator.execute(context)
    except TaskAwaitingInput as waiting:
        method, wait = getattr(operator, waiting.method_name), waiting.timeout.total_seconds()
        return [asked, wait, [method(context, event) for event in events], noted]

def triggered(user):
    # What a stage is told of who triggered its run, and when.
    operator = StageOperator(
        task_id="t", stage="tests.example_stages:tell", triggered_by="asked_by", triggered_at="asked_at"
    )
    moment = datetime(2026, 3, 2, 21, 14, tzinfo=timezone.utc)
    run = SimpleNamespace(triggering_user_name=user, run_after=moment)
    return operator.execute({"ti": SimpleNamespace(xcom_push=lambda key, value: None), "dag_run": run})

ann = {"responded_by_user": {"id": "7", "name": "ann"}, "timedout": False}
answers = [
    {"chosen_options": ["Approve"], **ann},
    {"chosen_options": ["Reject"], **ann},
    {"chosen_options": ["Reject"], "responded_by_user": None, "timedout": True},
    {"chosen_options": ["Approve"], "responded_by_user": None, "timedout": False},
    {"chosen_options": ["Approve", "Reject"], **ann},
    {"error": "no answer", "error_type": "timeout"},
]
typed = {"note": "{{ 6 * 7 }}", "lines": ["{% raw %}", {"owner": "{{ dag_run.conf }}"}]}
operator = StageOperator(task_id="the_task", stage="tests.example_stages:double", arguments=typed, subject="{{ 1 }}")
operator.render_template_fields({})
found = {
    "killed": ended(sys.argv[2] + ".killed", 60, True),
    "late": ended(sys.argv[2] + ".late", 1, False),
    "unasked": [deployment("none", "promote"), deployment("before_deploy", "keep")],
    "asked": deployment("before_deploy", "promote", answers),
    "by hand": [by_hand(7), by_hand(None)],
    "triggered": [triggered("ann"), triggered(None)],
    "mistyped": by_hand(7, stratgy="direct"),
    "as typed": [operator.arguments == typed, operator.subject],
}
print(json.dumps([[executed(*case) for case in json.loads(sys.argv[1])], found]))
"""
FAIL = "tests.example_stages:fail_with"
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "well": ("tests.example_stages:double", {"number": 21}, None),
    "config": (FAIL, {"error": "ConfigError", "message": "horizon: expected 1"}, None),
    "source": (FAIL, {"error": "SourceNotFoundError", "message": "no file"}, None),
    "cancelled": (FAIL, {"error": "TrainingCancelledError", "message": "run r was cancelled by admin"}, None),
    "bug": ("tests.example_stages:talk", {}, None),
    "away": (FAIL, {"error": "RegistryError", "message": "no answer"}, None),
    "trained": ("training.train", {}, {"run_id": "gru-2026 a/b"}),
    "untrained": ("training.train", {}, {}),
    "unlogged": ("registry.log_run", {}, {}),
    "logged": ("registry.log_run", {}, {"run_id": "r1", "experiment_id": "3"}),
    "drift": ("monitoring.check_drift", {}, {"path": "reports/drift/2026-03-02-v1-ab"}),
    "no drift": ("monitoring.check_drift", {}, {"skipped": "there is no champion yet"}),
    "compared": ("experiments.compare_models", {}, {"path": "reports/comparison/2026-03-02-v1-v2-ab"}),
    "one test": ("experiments.analyze", {}, {"experiment_id": "3", "runs": {"orders": "r1"}}),
    "two tests": ("experiments.analyze", {}, {"experiment_id": "3", "runs": {"orders": "r1", "sleeves": "r2"}}),
    "no test": ("experiments.analyze", {}, {"runs": {}}),
    "rejected": ("data.validate_bars", {}, {"staging": "ab12"}),
    "plain": ("training.plan", {}, {}),
}
"""Stage and arguments to be executed; or, with what is known of it at its end, to be asked for its links."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of all cases, in one process of Airflow's; it is served below a path, and MLflow's address holds a password."""
    home = tmp_path_factory.mktemp("home")
    serve(home)
    environ = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "MLOPS_HOME": str(home),
        "AIRFLOW__API__BASE_URL": "https://example.org/airflow/",
        "MLOPS_MLFLOW_TRACKING_URI": "http://admin:secret@127.0.0.1:5511",
    }
    command = [sys.executable, "-c", EXECUTE, json.dumps(list(CASES.values())), str(home / "pids")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cases, found = json.loads(done.stdout.splitlines()[-1])
    return {**dict(zip(CASES, cases, strict=True)), **found}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("config", f"{FAIL}: ConfigError: horizon: expected 1"),
        ("source", f"{FAIL}: SourceNotFoundError: no file"),
        ("cancelled", f"{FAIL}: TrainingCancelledError: run r was cancelled by admin"),
        ("bug", "tests.example_stages:talk: KeyError: 'nothing'"),
    ],
)
def test_what_another_try_cannot_mend_fails_at_once(answers: dict[str, Any], case: str, message: str) -> None:
    """By the policy that every task has; the run's note says it too."""
    action, said, pushed = answers[case]
    assert (action, said) == ("fail", message)
    assert pushed == {"run_note": f"the_task: {'cancelled: ' if case == 'cancelled' else ''}{message}"}


def test_what_may_pass_is_tried_again(answers: dict[str, Any]) -> None:
    """An error that did not come from what was asked or given; a stage that succeeds leaves nothing to be told."""
    action, said, pushed = answers["away"]
    assert (action, said) == ("retry", f"{FAIL}: RegistryError: no answer")
    assert list(pushed) == ["run_note"]
    result, pushed = answers["well"]
    assert result == {"number": 42}
    assert list(pushed) == ["stage_span"]


def test_a_stage_ends_with_its_task_and_in_time(answers: dict[str, Any]) -> None:
    """When somebody marks the task as failed, and at the task's own limit."""
    (killed, how), (late, why) = answers["killed"], answers["late"]
    assert killed == "StageError" and "exit status -9" in how
    assert late == "StageTimeoutError" and "limit of 1 s" in why


def test_nobody_is_asked_where_nobody_is_to_be_or_nothing_is_promoted(answers: dict[str, Any]) -> None:
    """The deployment's stage runs at once, and nobody has approved it."""
    for result, decision in zip(answers["unasked"], ("promote", "keep"), strict=True):
        assert (result["gate"]["decision"], "approved_by" in result) == (decision, False)
    unversioned = [{"version": None, "strategy": "canary"}, {}]
    assert answers["by hand"] == ["Deploy version 7?", unversioned], "without one there is nothing to be asked about"


def test_nobody_is_asked_about_a_run_that_its_form_refuses(answers: dict[str, Any]) -> None:
    """It was triggered with a key that does nothing: the task fails at once, not after an answer."""
    told, asked = answers["mistyped"]
    assert "unknown keys: 'stratgy'" in told and "strategy" in told.partition(":")[2]
    assert asked == {}


def test_a_deployment_waits_for_an_answer_without_a_worker(answers: dict[str, Any]) -> None:
    """It says what it is about; who approves is handed on; without an approval nothing runs, and the task succeeds."""
    asked, wait, (approved, rejected, late, unnamed, both, failed), noted = answers["asked"]
    assert (asked["ti_id"], asked["options"], asked["defaults"]) == ("the_id", ["Approve", "Reject"], ["Reject"])
    assert (asked["subject"], wait) == ("Deploy version 7?", 4 * 3600)
    assert "canary" in asked["body"] and "superiority: a gain" in asked["body"]
    assert (approved["approved_by"], approved["gate"]["version"]) == ("ann", 7)
    assert rejected == {"deployed": False, "version": 7, "reason": "ann has rejected it"}
    assert late == failed == {"deployed": False, "version": 7, "reason": "nobody has approved it within 4:00:00"}
    assert unnamed == late, "an approval is a person's"
    assert both == rejected
    assert noted[:2] == [f"version 7 is not deployed: {each['reason']}" for each in (rejected, late)]


def test_a_stage_is_told_who_triggered_its_run_and_when(answers: dict[str, Any]) -> None:
    """By arguments that no form has; the name is empty where nobody did."""
    moment = {"asked_at": "2026-03-02T21:14:00+00:00"}
    assert answers["triggered"] == [{"asked_by": "ann", **moment}, {"asked_by": "", **moment}]


def test_no_text_of_an_argument_is_a_template(answers: dict[str, Any]) -> None:
    """What people type into a form, or a database holds, is passed on as it is, wherever it lies."""
    assert answers["as typed"] == [True, "{{ 1 }}"]


@pytest.mark.parametrize(
    ("case", "links"),
    [
        ("trained", {"Training": "/airflow/plugin/training/mlops/ui/training/gru-2026%20a%2Fb"}),
        ("untrained", {"Training": "/airflow/plugin/training/mlops/ui/training"}),
        ("unlogged", {"MLflow run": ""}),
        ("logged", {"MLflow run": "http://127.0.0.1:5511/#/experiments/3/runs/r1?workflowType=machine_learning"}),
        ("drift", {"Drift report": "/airflow/plugin/reports/mlops/ui/reports/drift/2026-03-02-v1-ab"}),
        ("no drift", {"Drift report": ""}),
        ("compared", {"Comparison": "/airflow/plugin/reports/mlops/ui/reports/comparison/2026-03-02-v1-v2-ab"}),
        (
            "one test",
            {
                "MLflow run": "http://127.0.0.1:5511/#/experiments/3/runs/r1?workflowType=machine_learning",
                "Report": "/airflow/plugin/reports/mlops/ui/reports/ab_test/orders",
            },
        ),
        (
            "two tests",
            {
                "MLflow run": "http://127.0.0.1:5511/#/experiments/3/runs?workflowType=machine_learning",
                "Report": "/airflow/plugin/reports/mlops/ui/reports",
            },
        ),
        ("no test", {"MLflow run": "", "Report": ""}),
        (
            "rejected",
            {
                "Data docs": "/airflow/plugin/reports/mlops/ui/reports/data_docs/ab12",
                "Quarantine": "/airflow/plugin/reports/mlops/ui/reports/quarantine/ab12",
            },
        ),
        ("plain", {}),
    ],
)
def test_a_task_leads_to_what_it_has_made(answers: dict[str, Any], case: str, links: dict[str, str]) -> None:
    """Below the path that Airflow is served at; no password is in an address, and what is not there has none."""
    assert answers[case] == links
