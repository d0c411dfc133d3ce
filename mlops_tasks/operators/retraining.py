"""The operator that starts the retraining for which drift asks."""

from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException


class RetrainingOperator(TriggerDagRunOperator):
    """Start a run of a DAG under the identifier that an earlier stage has recorded; skipped where it asks for none.

    A run that exists is not started again, so the task may be killed, or run again, at any point.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(skip_when_already_exists=True, logical_date=None, **given)

    def execute(self, context: Context) -> None:
        """Start it; Airflow does so once this has raised what says which run."""
        if self.trigger_run_id is None:
            raise AirflowSkipException("drift asks for no retraining")
        super().execute(context)
