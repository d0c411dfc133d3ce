"""# Monitor champion

Everything that is checked between two retrainings, also by hand with `alphaops monitor`:

* **Rank ICs** of a candidate in its rollout, and of a new champion on probation, on the days whose labels are known,
  against the model that it is to replace or has replaced. The looks are planned and recorded.
* **The champion:** rolled back to its predecessor if a look finds it worse, or if it breaks a rule in its first
  hours.
* **Rollouts:** the next step when a hold is over, back to the champion if a rule is broken or a look finds the
  candidate worse, and the end at the deadline.
* **Performance** of the scores served, once per vintage, and the alert rules.
* **Drift** that is confirmed starts a run of `daily_retraining` if `drift.retraining.enabled` is set; not again before
  its cool-down is over, and not while a rollout is undecided.

* **Runs** every `deployment.evaluate_every_min` minutes; takes a moment when nothing is due.
* **Look at** the task's result: what was found, taken and rolled back, and what is under way. `alphaops abort --reason
  ...` ends a rollout at any step.
* **Safe to run again,** and to kill, at any point: the next run does what was not recorded, and nothing is reported
  twice.
* **When the task fails**, its log ends with the parts that failed and the remedy. The other parts have done their work,
  and the scoring service stays up.
"""

from datetime import timedelta

from airflow.sdk import DAG

from dag_shared.default_args import DEFAULT_ARGS, SETTINGS
from dag_shared.task_groups import start_retraining
from mlops_tasks.operators.failures import tell_failed_run
from mlops_tasks.operators.stage import StageOperator

with DAG(
    dag_id="monitor_champion",
    doc_md=__doc__,
    schedule=timedelta(minutes=SETTINGS.deployment.evaluate_every_min),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=tell_failed_run,
    tags=["serving", "monitoring"],
) as dag:
    monitor = StageOperator(task_id="monitor", stage="monitoring.monitor")
    if SETTINGS.drift.retraining.enabled:
        start_retraining(monitor.output["retraining"], monitor.output["retraining_form"])
