"""# Monitor champion

All that is looked at between two retrainings, also by hand as `alphaops monitor`:

* **Rank ICs** of a candidate in its rollout, and of a new champion in its probation, on the days whose labels are
  there, against the model that it is to replace, or has replaced. The looks are planned and recorded.
* **The champion:** rolled back to the one before where a look has found it worse, or a rule is broken in its first
  hours.
* **Rollouts:** the next step when a hold is over, back to the champion when a rule is broken or a look has found the
  candidate worse, and the end when the deadline has come.
* **Performance** of what was answered, once a vintage, and the rules of alerts.
* **Drift** that is confirmed starts a run of `daily_retraining`, where `drift.retraining.enabled` is set; not again
  before its cool-down is over, and not while a rollout is undecided.

* **Runs** every `deployment.evaluate_every_min` minutes; a moment where nothing is due.
* **Look at** the task's result: what was found, taken and rolled back, and what is under way. `alphaops abort --reason
  ...` ends a rollout at any step.
* **Safe to run again,** and to be killed, at any point: what was not recorded, the next run does; nothing is told
  twice.
* **When the task fails** its log ends with the parts that failed and the remedy. The other parts have done their work,
  and the scoring service serves on.
"""

from datetime import timedelta

from airflow.sdk import DAG

from dag_shared.alerts import tell_failing_dag
from dag_shared.default_args import DEFAULT_ARGS, SETTINGS
from dag_shared.task_groups import start_retraining
from mlops_tasks.operators.stage import StageOperator

with DAG(
    dag_id="monitor_champion",
    doc_md=__doc__,
    schedule=timedelta(minutes=SETTINGS.deployment.evaluate_every_min),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=tell_failing_dag,
    tags=["serving", "monitoring"],
) as dag:
    monitor = StageOperator(task_id="monitor", stage="monitoring.monitor")
    if SETTINGS.drift.retraining.enabled:
        start_retraining(monitor.output["retraining"], monitor.output["retraining_form"])
