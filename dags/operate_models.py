"""# Operate models

What a person does by hand about the models that serve, or are to:

* **rollback:** the champion is withdrawn, and the one before it, or the version of the form, serves again.
* **abort:** a rollout ends before its decision: the one that has begun, or that of the version of the form.
* **advance:** the steps of rollouts that are due are taken at once; `monitor_champion` does this regularly.
* **approve:** the version may serve, although the gate has not promoted it.
* **withdraw:** the version may no longer serve, and the gate does not promote it again.

* **Runs** by hand, from the pages and the API, or by the verbs of `alphaops`, which do the same. `deploy_model` puts a
  version into service.
* **Look at** the run's note, which says what was done. The state database keeps your name and the reason.
* **Safe to run again,** and to kill, at any point: it means what stood when it was asked for. What is done is not done
  twice, and what somebody has undone since stays undone.
* **When the task fails**, its log ends with the error and the remedy; a proven champion stays in service.
"""

from airflow.sdk import DAG, Param

from dag_shared.default_args import DEFAULT_ARGS
from mlops_tasks.operators.failures import tell_failed_run
from mlops_tasks.operators.stage import StageOperator
from mlops_tasks.states import Intervention

FORM = {
    "action": Param(
        Intervention.ADVANCE.value,
        enum=[each.value for each in Intervention],
        title="Action",
        description_md="The first lines of this page say what each one does.",
    ),
    "version": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        maximum=2**31 - 1,
        title="Version",
        description_md="The number in MLflow. Needed to approve and to withdraw; empty for a rollback: the champion "
        "before; for an abort: the rollout that has begun.",
    ),
    "reason": Param(
        None,
        type=["null", "string"],
        maxLength=2000,
        pattern=r"^[^\x00]*$",
        title="Reason",
        description_md="Why; kept with your name. Needed for all but `advance`.",
    ),
}

with DAG(
    dag_id="operate_models",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=tell_failed_run,
    tags=["serving"],
) as dag:
    StageOperator(
        task_id="operate",
        stage="serving.operate",
        run_params=tuple(FORM),
        triggered_by="asked_by",
        triggered_at="asked_at",
    )

# Set after the tasks: a task created while the DAG has params gets a copy of all of them, in every parse.
dag.params.update(FORM)
