"""Defaults of every task."""

from datetime import timedelta

from mlops_tasks.config import load_settings

SETTINGS = load_settings()

DEFAULT_ARGS = {
    "owner": "mlops",
    "retries": 2,
    "retry_delay": timedelta(seconds=SETTINGS.stack.retry_delay_s),
}
