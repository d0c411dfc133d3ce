"""# Monitor champion

Leads the rollouts of candidates to their decisions: the next step when a hold is over, back to the champion when a rule
is broken, and the end when the deadline has come.

* **Runs** every `deployment.evaluate_every_min` minutes; a moment where no rollout is under way.
* **Look at** the task's result: the steps that were taken, and what is under way. `alphaops abort --reason ...` ends a
  rollout at any step.
* **Safe to run again,** and to be killed, at any point: what was not recorded, the next run does.
* **When the task fails** its log ends with the error and the remedy; the rollout stays at its step, and the scoring
  service serves on.
"""

from datetime import timedelta

from airflow.sdk import DAG

from dag_shared.alerts import tell_failing_dag
from dag_shared.default_args import DEFAULT_ARGS, SETTINGS
from mlops_tasks.operators.stage import StageOperator

with DAG(
    dag_id="monitor_champion",
    doc_md=__doc__,
    schedule=timedelta(minutes=SETTINGS.deployment.evaluate_every_min),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=tell_failing_dag,
    tags=["serving"],
) as dag:
    StageOperator(task_id="advance_rollout", stage="serving.advance_rollout")
