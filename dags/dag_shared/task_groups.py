"""Groups of tasks that several DAGs have."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import TaskGroup

from dag_shared.default_args import SETTINGS
from mlops_tasks.operators.deployment import DeploymentOperator


def deployment(arguments: Mapping[str, Any], **given: Any) -> DeploymentOperator:
    """Deploy a candidate, once it is approved where the DAG param `approval` asks for that: a canary or a shadow
    begins, or waits, and the task is done.

    Parameters
    ----------
    arguments
        Of the stage `serving.deploy`: what is to be deployed, and how.
    given
        For the operator.
    """
    wait = timedelta(hours=SETTINGS.deployment.approval_h)
    with TaskGroup("deployment", prefix_group_id=False, tooltip="By the strategy of the form"):
        return DeploymentOperator(task_id="deploy_model", wait=wait, arguments=arguments, **given)
