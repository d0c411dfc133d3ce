"""# Daily retraining

From a new vintage to scores: features, training of every model, evaluation, registration, the gate against the
champion, deployment, scores for the newest date, drift, the paired comparison of champion and challenger, and a
report of what moves the model's scores. Features that nothing needs any more are removed from the store.

* **Runs** when `sync_market_data` publishes a vintage; by hand with the form (features, models, their
  hyper-parameters, dates, strategy).
* **Look at** the task `gate_challenger` for the decision and its reasons, `check_drift` for what moved, MLflow's
  experiment `daily_retraining` to compare the runs.
* **Safe to run again** at any point: on an unchanged vintage nothing is computed twice and nothing changes.
* **When `certify_learning_data` fails**, a feature, label or processor looks ahead: its log names the column,
  instrument, date and remedy, and nothing is logged or promoted. When `train_model` fails this way, the model's
  scores look ahead.
* **A canary or a shadow** only begins here, or is queued; `monitor_champion` takes it to its decision.
* **Where the form or `deployment.approval` asks for an approval**, `deploy_model` waits for a person's answer under
  *Required actions* and occupies no worker meanwhile; the day's scores wait too. Without an answer nothing is
  deployed.
* **When a task fails**, its log ends with the error and the remedy; the champion in service stays as it is.
"""

from airflow.sdk import DAG, Param, task, task_group

from dag_shared.assets import MARKET_DATA
from dag_shared.default_args import DEFAULT_ARGS, SETTINGS, TRAINING_TASK_LIMIT_S
from dag_shared.forms import (
    MODELS,
    SEE_MODELS,
    STRATEGIES,
    approval_param,
    feature_set_param,
    horizon_param,
    hyperparameters_param,
    machine_params,
    seed_param,
    segment_params,
    stopping_param,
)
from dag_shared.task_groups import deployment
from mlops_tasks.machine.queue_state import DAILY
from mlops_tasks.operators.failures import tell_failed_run
from mlops_tasks.operators.stage import StageOperator
from mlops_tasks.process import EVALUATION_POOL, HEAVY_POOL, TRAINING_POOL
from mlops_tasks.states import Strategy

FORM = {
    "feature_set": feature_set_param("Model"),
    "models": Param(
        list(SETTINGS.training.models),
        type="array",
        items={"type": "string", "enum": MODELS},
        examples=MODELS,
        minItems=1,
        title="Models",
        section="Model",
        description_md=f"All are trained; the best on validation days challenges the champion. {SEE_MODELS}",
    ),
    "horizon": horizon_param("Model"),
    "seed": seed_param("Model"),
    **segment_params(),
    "topk": Param(SETTINGS.portfolio.topk, type="integer", minimum=1, title="Names held", section="Strategy"),
    "n_drop": Param(
        SETTINGS.portfolio.n_drop, type="integer", minimum=0, title="Names replaced per day", section="Strategy"
    ),
    "deployment_strategy": Param(
        SETTINGS.deployment.strategy.value,
        enum=[each.value for each in Strategy],
        title="Deployment",
        section="Strategy",
        description_md=STRATEGIES,
    ),
    "hyperparameters": hyperparameters_param(),
    "stopping": stopping_param(),
}
MACHINE = machine_params(DAILY)
APPROVAL = {"approval": approval_param(section="Strategy")}

with DAG(
    dag_id="daily_retraining",
    doc_md=__doc__,
    schedule=[MARKET_DATA],
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=tell_failed_run,
    tags=["training"],
) as dag:
    plan = StageOperator(task_id="plan_run", stage="training.plan", run_params=tuple(FORM))
    features = StageOperator(
        task_id="compute_features",
        stage="features.compute",
        arguments={"data_version": plan.output["data_version"], "feature_set": plan.output["feature_set"]},
        pool=HEAVY_POOL,
        queue=HEAVY_POOL,
    )

    certificate = StageOperator(
        task_id="certify_learning_data",
        stage="training.certify",
        arguments={"plan": plan.output, "features": features.output},
        pool=HEAVY_POOL,
        queue=HEAVY_POOL,
    )

    @task_group
    def build_model(model: str):
        """Train, evaluate and log one model of the plan; each task is labelled with the model's name."""
        named = {"subject": model, "map_index_template": "{{ task.subject }}"}
        train = StageOperator(
            task_id="train_model",
            stage="training.train",
            arguments={
                "plan": plan.output,
                "features": features.output,
                "model": model,
            },
            run_params=tuple(MACHINE),
            time_limit_s=TRAINING_TASK_LIMIT_S,
            pool=TRAINING_POOL,
            queue=TRAINING_POOL,
            **named,
        )
        evaluate = StageOperator(
            task_id="evaluate_model",
            stage="evaluation.evaluate",
            arguments={name: train.output[name] for name in ("training_key", "topk", "n_drop")},
            pool=EVALUATION_POOL,
            queue=EVALUATION_POOL,
            **named,
        )
        log_run = StageOperator(
            task_id="log_run",
            stage="registry.log_run",
            arguments={"training_key": evaluate.output["training_key"]},
            **named,
        )
        certificate >> log_run  # MLflow and the gate want it, the training does not
        return log_run.output

    @task
    def list_models(models: list) -> list:
        """The models to map over; Airflow can only map over a task's whole result."""
        return models

    candidates = build_model.expand(model=list_models(plan.output["models"]))
    register = StageOperator(
        task_id="register_challenger", stage="registry.register_challenger", arguments={"candidates": candidates}
    )
    gate = StageOperator(
        task_id="gate_challenger", stage="registry.gate_challenger", arguments={"challenger": register.output}
    )
    # Beside the deployment. `check_drift`, which needs the profile, waits for it, or makes it where it is missing.
    StageOperator(task_id="profile_training", stage="monitoring.profile_training", arguments={"gate": gate.output})
    deploy = deployment({"gate": gate.output, "strategy": plan.output["deployment_strategy"]})
    vintage = {"data_version": plan.output["data_version"]}
    score = StageOperator(task_id="score_newest_date", stage="serving.score_newest_date", arguments=vintage)
    drift = StageOperator(task_id="check_drift", stage="monitoring.check_drift", arguments=vintage)
    compare = StageOperator(
        task_id="compare_models", stage="experiments.compare_models", arguments={**vintage, "gate": gate.output}
    )
    explain = StageOperator(task_id="explain_model", stage="registry.explain_model", arguments={"gate": gate.output})
    prune = StageOperator(task_id="prune_features", stage="registry.prune_features")
    deploy >> [score, drift]
    # These hold the feature store's lock, for which the day's scores must not wait. What is pruned, they do not need.
    score >> [compare, prune, explain]

# Set after the tasks: a task created while the DAG has params gets a copy of all of them, in every parse.
dag.params.update({**FORM, **APPROVAL, **MACHINE})
