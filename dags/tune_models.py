"""# Tune models

Search the hyper-parameters of one model on the vintage in use, train the best configuration, and let the gate judge it.

* **Runs** by hand, with the form: the model (or `auto` for the algorithm selector's choice), how to search, budgets.
* **The search sees train and validation days only.** The test segment decides at the end, once.
* **Workers** (`tuning.workers`) share one study in PostgreSQL; with SQLite there is only one.
* **Look at** `finish_study` for the best trial, MLflow's experiment `tune_models` for all of them, and
  `gate_challenger` for what is left of the gain after correcting for the search's selection bias.
* **Safe to run again** at any point: the same settings continue the same study, and so does a larger budget.
* **Nothing is deployed.** The right to search is not the right to put a model into service: what the gate promotes is
  registered and may serve, and an operator deploys it, or enters the best hyper-parameters in the form of
  `daily_retraining`.
"""

from airflow.sdk import DAG, Param, task

from dag_shared.default_args import DEFAULT_ARGS, SETTINGS, TRAINING_TASK_LIMIT_S
from dag_shared.forms import (
    MODELS,
    SEE_MODELS,
    feature_set_param,
    horizon_param,
    machine_params,
    seed_param,
    segment_params,
)
from mlops_tasks.machine.queue_state import TUNING
from mlops_tasks.operators.failures import tell_failed_run
from mlops_tasks.operators.stage import StageOperator
from mlops_tasks.process import EVALUATION_POOL, HEAVY_POOL, TRAINING_POOL
from mlops_tasks.tuning.study import AUTO, OBJECTIVES, PRUNERS, SAMPLERS


def budget_param(title: str, description: str) -> Param:
    """A positive number; empty for no limit."""
    return Param(
        None,
        type=["null", "number"],
        exclusiveMinimum=0,
        title=title,
        section="Budget",
        description_md=description,
    )


FORM = {
    "model": Param(
        AUTO,
        type="string",
        enum=[AUTO, *MODELS],
        title="Model",
        section="Search",
        description_md=f"`{AUTO}`: the most promising one, as measured on the training segment. {SEE_MODELS}",
    ),
    "objectives": Param(
        list(SETTINGS.tuning.objectives),
        type="array",
        items={"type": "string", "enum": list(OBJECTIVES)},
        examples=list(OBJECTIVES),
        minItems=1,
        title="Objectives",
        section="Search",
        description_md="On the validation segment. Several give a Pareto front; the first decides what is trained.",
    ),
    "sampler": Param(
        None,
        type=["null", "string"],
        enum=[None, *SAMPLERS],
        title="Sampler",
        section="Search",
        description_md="Bayesian: `tpe`, `gp`; genetic: `nsga2`, `cmaes` (numbers only, one objective). Empty: "
        f"`{SETTINGS.tuning.sampler}`, and `nsga2` for several objectives.",
    ),
    "pruner": Param(
        None,
        type=["null", "string"],
        enum=[None, *PRUNERS],
        title="Pruner",
        section="Search",
        description_md="`median`, `hyperband`: by the iterations of one training; `wilcoxon`: by walk-forward folds. "
        f"Empty: `{SETTINGS.tuning.pruner}`, `wilcoxon` for folds, `none` for several objectives.",
    ),
    "folds": Param(
        1,
        type="integer",
        minimum=1,
        maximum=20,
        title="Walk-forward folds",
        section="Search",
        description_md="Blocks of the validation segment, each scored by a model that learned from all before it.",
    ),
    "seed": seed_param("Search"),
    "trials": Param(
        SETTINGS.tuning.trials,
        type="integer",
        minimum=1,
        title="Trials",
        section="Budget",
        description_md=f"In total, over {SETTINGS.tuning.workers} workers with PostgreSQL or one with SQLite. What a "
        "search varies for each model: *Browse > Zoo*.",
    ),
    "time_s": budget_param("Time (seconds)", "Training seconds of all trials together."),
    "memory_mb": budget_param("Memory of a trial (MB)", "A trial whose estimate is larger is refused and recorded."),
    "feature_set": feature_set_param("Data"),
    "horizon": horizon_param("Data"),
    **segment_params(),
}
MACHINE = machine_params(TUNING)

with DAG(
    dag_id="tune_models",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=tell_failed_run,
    tags=["training"],
) as dag:
    asked = StageOperator(task_id="plan_search", stage="tuning.plan", run_params=tuple(FORM))
    plan, search = asked.output["plan"], asked.output["search"]

    features = StageOperator(
        task_id="compute_features",
        stage="features.compute",
        arguments={"data_version": asked.output["data_version"], "feature_set": asked.output["feature_set"]},
        pool=HEAVY_POOL,
        queue=HEAVY_POOL,
    )
    certificate = StageOperator(
        task_id="certify_learning_data",
        stage="training.certify",
        arguments={"plan": plan, "features": features.output},
        pool=HEAVY_POOL,
        queue=HEAVY_POOL,
    )
    given = {"plan": plan, "features": features.output}
    choice = StageOperator(
        task_id="choose_algorithm",
        stage="tuning.choose_algorithm",
        arguments={**given, "search": search},
        pool=HEAVY_POOL,
        queue=HEAVY_POOL,
    )
    study = StageOperator(
        task_id="create_study",
        stage="tuning.create_study",
        arguments={**given, "search": search, "choice": choice.output},
    )

    @task
    def list_workers(plan: dict, features: dict, study: dict) -> list:
        """Arguments of each worker; Airflow can only map over a task's whole result."""
        return [{"plan": plan, "features": features, "study": study["study"], "worker": n} for n in study["workers"]]

    workers = StageOperator.partial(
        task_id="run_worker",
        stage="tuning.run_worker",
        run_params=tuple(MACHINE),
        map_index_template="worker {{ task.arguments.worker }}",
        time_limit_s=SETTINGS.tuning.time_limit_s,
        pool=TRAINING_POOL,
        queue=TRAINING_POOL,
    ).expand(arguments=list_workers(plan, features.output, study.output))
    finish = StageOperator(
        task_id="finish_study", stage="tuning.finish_study", arguments={"plan": plan, "study": study.output["study"]}
    )
    log_study = StageOperator(
        task_id="log_study", stage="registry.log_study", arguments={"study": finish.output["study"]}
    )
    train = StageOperator(
        task_id="train_model",
        stage="training.train",
        arguments={
            "plan": finish.output["plan"],
            "features": features.output,
            "model": finish.output["model"],
            "certificate": certificate.output,
        },
        run_params=tuple(MACHINE),
        time_limit_s=TRAINING_TASK_LIMIT_S,
        pool=TRAINING_POOL,
        queue=TRAINING_POOL,
    )
    evaluate = StageOperator(
        task_id="evaluate_model",
        stage="evaluation.evaluate",
        arguments={name: train.output[name] for name in ("training_key", "topk", "n_drop")},
        pool=EVALUATION_POOL,
        queue=EVALUATION_POOL,
    )
    log_run = StageOperator(
        task_id="log_run", stage="registry.log_run", arguments={"training_key": evaluate.output["training_key"]}
    )
    register = StageOperator(
        task_id="register_challenger", stage="registry.register_challenger", arguments={"candidates": log_run.output}
    )
    StageOperator(
        task_id="gate_challenger", stage="registry.gate_challenger", arguments={"challenger": register.output}
    )
    certificate >> choice
    workers >> finish >> log_study

# Set after the tasks: a task created while the DAG has params gets a copy of all of them, in every parse.
dag.params.update({**FORM, **MACHINE})
