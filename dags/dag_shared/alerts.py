"""Alerts on failed runs: every DAG has one of these as its `on_failure_callback`."""

from airflow.sdk import Context


def tell_failed_run(context: Context) -> None:
    """Raise an alert, once per run and day.

    For a DAG that does not run every few minutes. Airflow's DAG processor calls this. While the state database is
    unavailable, the alert still goes to the webhook and the log.
    """
    _tell(context, f"{context['dag'].dag_id} {context['run_id']}")


def tell_failing_dag(context: Context) -> None:
    """Like `tell_failed_run`, but once a day for all runs of a DAG that runs every few minutes."""
    _tell(context, context["dag"].dag_id)


def _tell(context: Context, cause: str) -> None:
    # Imported here: a DAG file is parsed all the time, and its runs seldom fail.
    from mlops_tasks.config import load_settings
    from mlops_tasks.state.alerts import raise_daily_alert
    from mlops_tasks.state.alerts.delivery import finish

    dag_id, run_id = context["dag"].dag_id, context["run_id"]
    last = context.get("ti")
    where = f", last task {last.task_id}" if last is not None else ""
    message = (
        f"run {run_id} of {dag_id} failed ({context.get('reason')}{where}); its log in Airflow ends with the remedy"
    )
    settings = load_settings()
    raise_daily_alert(settings, kind="run_failed", cause=cause, message=message)
    finish(settings.alerts.timeout_s)  # Airflow kills the process that called this as soon as it returns
