"""# Analyze A/B tests

Every running experiment, each day: the effect of each arm on the primary metric and on the guards, with an interval
that holds over all planned looks, and whether the arms have the units that were planned.

* **Runs** daily; by hand: `alphaops experiments analyze NAME`, which changes nothing.
* **Stops by itself** an experiment of which an arm does harm, and pauses one whose arms do not have their shares. Both
  raise an alert. A winner, and the end of the planned days, are told; a person decides
  (`alphaops experiments decide`).
* **Where the arms are models**, a winner is named without a person, and `judge_winners` hands it to the gate, on the
  look that the experiment has reserved. What the gate promotes may serve. It is not deployed: that is for a person, by
  `deploy_model`.
* **Look at** the tasks' links: the report with its plots, and the run in MLflow. `GET /mlops/v1/experiments` has the
  experiments.
* **Safe to run again,** and to kill, at any point: an equal analysis is recorded once, and a winner is judged once.
"""

from datetime import timedelta

from airflow.sdk import DAG

from dag_shared.default_args import DEFAULT_ARGS
from mlops_tasks.operators.failures import tell_failed_run
from mlops_tasks.operators.stage import StageOperator

with DAG(
    dag_id="analyze_ab_test",
    doc_md=__doc__,
    schedule=timedelta(days=1),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=tell_failed_run,
    tags=["experiments"],
) as dag:
    analyze = StageOperator(task_id="analyze_experiments", stage="experiments.analyze")
    judge = StageOperator(task_id="judge_winners", stage="experiments.judge_winners")
    analyze >> judge
