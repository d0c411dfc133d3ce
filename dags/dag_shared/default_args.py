"""Defaults of every task."""

from datetime import timedelta

from mlops_tasks.config import load_settings

SETTINGS = load_settings()

DEFAULT_ARGS = {
    "owner": "mlops",
    "retries": 2,
    "retry_delay": timedelta(seconds=SETTINGS.stack.retry_delay_s),
}

TRAINING_TASK_LIMIT_S = SETTINGS.training.time_limit_s + SETTINGS.training.wait_limit_s + 600
"""Timeout of a task that trains. The engine itself ends a training after `training.time_limit_s` and says why; this
ends a task that hangs."""
