"""Groups of tasks that several DAGs have."""

from collections.abc import Mapping
from typing import Any

from airflow.sdk import TaskGroup

from mlops_tasks.operators.stage import StageOperator


def deployment(arguments: Mapping[str, Any], **given: Any) -> StageOperator:
    """Deploy a candidate: a canary or a shadow begins, or waits, and the task is done.

    Parameters
    ----------
    arguments
        Of the stage `serving.deploy`: what is to be deployed, and how.
    given
        For the operator.
    """
    with TaskGroup("deployment", prefix_group_id=False, tooltip="By the strategy of the form"):
        return StageOperator(task_id="deploy_model", stage="serving.deploy", arguments=arguments, **given)
