"""Defaults of every task."""

from datetime import timedelta

from mlops_tasks.config import load_settings
from mlops_tasks.error_policy import MOST_RETRIES
from mlops_tasks.operators.failures import ErrorPolicy, tell_failed_task

SETTINGS = load_settings()

DEFAULT_ARGS = {
    "owner": "mlops",
    "retries": MOST_RETRIES,
    "retry_policy": ErrorPolicy(),
    "retry_delay": timedelta(seconds=SETTINGS.stack.retry_delay_s),
    "retry_exponential_backoff": 2,
    "max_retry_delay": timedelta(minutes=10),
    "on_failure_callback": tell_failed_task,
}

TRAINING_TASK_LIMIT_S = SETTINGS.training.time_limit_s + SETTINGS.training.wait_limit_s + 600
"""Timeout of a task that trains. The engine itself ends a training after `training.time_limit_s` and says why; this
ends a task that hangs."""
