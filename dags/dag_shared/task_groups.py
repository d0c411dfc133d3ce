"""Task groups shared by several DAGs."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import TaskGroup

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
