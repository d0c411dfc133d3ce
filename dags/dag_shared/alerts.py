"""Who is told when a run fails: one of these is `on_failure_callback` of every DAG."""

from airflow.sdk import Context


def tell_failed_run(context: Context) -> None:
    """Raise an alert, once per run and day.

    For a DAG whose runs do not follow each other within minutes. Airflow's DAG processor calls this. It works while the
    state database is away: the webhook and the log have it then.
    """
    _tell(context, f"{context['dag'].dag_id} {context['run_id']}")


def tell_failing_dag(context: Context) -> None:
    """As `tell_failed_run`, once a day for all runs of a DAG: one that runs every few minutes."""
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
