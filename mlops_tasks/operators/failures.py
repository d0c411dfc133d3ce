"""What Airflow does about a task or a run that has failed: the error policy, for every operator."""

from airflow.sdk import Context, RetryDecision, RetryPolicy

from mlops_tasks.error_policy import DECISIONS, RUN_FAILED, kind_of
from mlops_tasks.errors import ErrorKind
from mlops_tasks.roles import AB_TEST_DAG, ROLLOUT_DAG

OFTEN = (ROLLOUT_DAG, AB_TEST_DAG)
"""DAGs whose runs share one alert a day: they run every few minutes, or by themselves for as long as something runs."""
_MOST_TOLD = 1000
"""Characters of an error that an alert repeats; the log has all of it."""


class ErrorPolicy(RetryPolicy):
    """Whether a task is tried again: the kind of its error says so.

    A task whose process is killed outright reaches no policy: Airflow itself tries it again, as one that a transient
    error has ended.
    """

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Try again, after the task's pause and at most `retries` times, or not."""
        kind = kind_of(exception)
        if DECISIONS[kind].retries:
            return RetryDecision.retry(reason=f"the error is {kind}")
        return RetryDecision.fail(f"the error is {kind}: another try would end like this one")


def tell_failed_task(context: Context) -> None:
    """Raise the alert of a task that has failed for good, once per run and day.

    Every task has this as its `on_failure_callback`. While the state database is unavailable, the alert still goes to
    the webhook and the log.
    """
    ti, error = context["ti"], context.get("exception")
    kind = kind_of(error) if isinstance(error, BaseException) else ErrorKind.BUG
    decision, said = DECISIONS[kind], str(error or "") or type(error).__name__
    where = f"task {ti.task_id} of run {ti.run_id} of {ti.dag_id}"
    message = f"{where}, {kind}: {said[:_MOST_TOLD].rstrip('. ')}. {decision.kept} {decision.remedy}"
    _tell(decision.alert, subject_of(ti.dag_id, ti.run_id), message)


def tell_failed_run(context: Context) -> None:
    """Raise the alert of a run that has failed, unless one of its tasks has told it: its process may have been killed.

    Every DAG has this as its `on_failure_callback`. Airflow's DAG processor calls it.
    """
    dag_id, run_id = context["dag"].dag_id, context["run_id"]
    subject, last = subject_of(dag_id, run_id), context.get("ti")
    if _was_told(subject):
        return
    where = f", last task {last.task_id}" if last is not None else ""
    message = (
        f"run {run_id} of {dag_id} failed ({context.get('reason')}{where}); its log in Airflow ends with the remedy"
    )
    _tell(RUN_FAILED, subject, message)


def subject_of(dag_id: str, run_id: str) -> str:
    """What the alert of a failed run is about."""
    return dag_id if dag_id in OFTEN else f"{dag_id} {run_id}"


# Imported there, not above: DAG files are parsed all the time, and their runs seldom fail.


def _was_told(subject: str) -> bool:
    """Whether a task of the run has told within a day that it failed; no, while the state database is unavailable."""
    from datetime import timedelta

    from sqlalchemy.exc import SQLAlchemyError

    from mlops_tasks.config import load_settings
    from mlops_tasks.errors import StoreError
    from mlops_tasks.state.alerts.episodes import Key
    from mlops_tasks.state.alerts.journal import episode_of
    from mlops_tasks.state.tables import now

    settings = load_settings()
    try:
        found = [episode_of(settings, Key(each.alert, subject)) for each in DECISIONS.values()]
    except (StoreError, SQLAlchemyError):
        return False
    return any(each is not None and now() - each.updated < timedelta(days=1) for each in found)


def _tell(kind: str, subject: str, message: str) -> None:
    from mlops_tasks.config import load_settings
    from mlops_tasks.state.alerts import raise_daily_alert
    from mlops_tasks.state.alerts.delivery import finish

    settings = load_settings()
    raise_daily_alert(settings, kind=kind, cause=subject, message=message)
    finish(settings.alerts.timeout_s)  # Airflow ends the process that called this as soon as it returns
