"""Tasks, and groups of them, that need more than a line of wiring."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import TaskGroup, XComArg

from dag_shared.default_args import SETTINGS
from mlops_tasks.operators.deployment import DeploymentOperator


def deployment(arguments: Mapping[str, Any], **given: Any) -> DeploymentOperator:
    """Deploy a candidate, after an approval where the DAG param `approval` asks for one. For a canary or a shadow the
    task is done once the rollout has begun or is queued.

    Parameters
    ----------
    arguments
        Arguments of the stage `serving.deploy`: what to deploy, and how.
    given
        Further arguments of the operator.
    """
    wait = timedelta(hours=SETTINGS.deployment.approval_h)
    with TaskGroup("deployment", prefix_group_id=False, tooltip="Uses the strategy chosen in the form"):
        return DeploymentOperator(task_id="deploy_model", wait=wait, arguments=arguments, **given)


def start_retraining(run_id: XComArg, form: XComArg) -> None:
    """Start the run of `daily_retraining` for which drift asks, if it asks for one."""
    # Imported here: a home where drift starts nothing parses its DAG files without it.
    from mlops_tasks.operators.retraining import RetrainingOperator

    RetrainingOperator(task_id="start_retraining", trigger_dag_id="daily_retraining", trigger_run_id=run_id, conf=form)
