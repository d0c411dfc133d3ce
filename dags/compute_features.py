"""# Compute features

Computes a feature set of a vintage and stores it, without training on it: to look at a new set, or to have it ready.

* **Runs** by hand, with the form; `alphaops features compute` does the same.
* **Look at** the task's result: the feature version, its rows, and how many of them were computed now.
* **Safe to run again** at any point: what is stored already is not computed again.
* **When the task fails**, its log names the set, the column and the place in its expression.
"""

from airflow.sdk import DAG, Param

from dag_shared.default_args import DEFAULT_ARGS
from dag_shared.forms import feature_set_param
from mlops_tasks.operators.failures import tell_failed_run
from mlops_tasks.operators.stage import StageOperator
from mlops_tasks.process import HEAVY_POOL

FORM = {
    "feature_set": feature_set_param("Features"),
    "data_version": Param(
        None,
        type=["null", "string"],
        pattern="^[0-9a-f]{16}$",
        title="Vintage",
        section="Features",
        description_md="Its data version, as *Browse > Data* lists it. Empty: the vintage in use.",
    ),
}

with DAG(
    dag_id="compute_features",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=tell_failed_run,
    tags=["data"],
) as dag:
    StageOperator(
        task_id="compute_features",
        stage="features.compute",
        run_params=tuple(FORM),
        pool=HEAVY_POOL,
        queue=HEAVY_POOL,
    )

# Set after the tasks: a task created while the DAG has params gets a copy of all of them, in every parse.
dag.params.update(FORM)
