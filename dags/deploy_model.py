"""# Deploy model

Puts a registered version into service by hand, with the strategy chosen in the form.

* **Runs** by hand, or by `alphaops deploy <version> --strategy canary`, which does the same.
* **Look at** the task's result: the version serves, its rollout has begun, or it waits for another one;
  `alphaops status` has a line `rollout`, and `monitor_champion` takes the rollout to its decision.
* **Only** a version that the gate has promoted, or a person has approved (`alphaops approve-model`), may serve.
* **Where the form asks for an approval**, the task waits in Airflow's state `awaiting_input`, which occupies no worker:
  answer under *Required actions*. The approver is recorded with the deployment. Without an answer nothing is deployed.
* **Safe to run again** at any point: a rollout under way is picked up again.
* **When the task fails**, its log ends with the error and the remedy; the champion in service stays as it is.
"""

from airflow.sdk import DAG, Param

from dag_shared.default_args import DEFAULT_ARGS, SETTINGS
from dag_shared.forms import STRATEGIES, approval_param
from dag_shared.task_groups import deployment
from mlops_tasks.operators.failures import tell_failed_run
from mlops_tasks.states import Strategy

STAGE_FORM = {
    "version": Param(None, type=["null", "integer"], minimum=1, title="Version", description_md="The number in MLflow"),
    "strategy": Param(
        SETTINGS.deployment.strategy.value,
        enum=[each.value for each in Strategy],
        title="Deployment",
        description_md=STRATEGIES,
    ),
}

with DAG(
    dag_id="deploy_model",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=tell_failed_run,
    tags=["serving"],
) as dag:
    deployment({}, run_params=tuple(STAGE_FORM), triggered_by="asked_by")

# Set after the tasks: a task created while the DAG has params gets a copy of all of them, in every parse.
dag.params.update({**STAGE_FORM, "approval": approval_param()})
