"""# Replay models

Trains registered versions again from what is recorded of them, and compares the scores with those of then: so it is
known, not hoped, that a model can be reproduced.

* **Runs** after each session, `replay.delay_min` minutes after the sync, for a sample: the champion, and the
  `replay.sample` versions that were never replayed, or longest ago. By hand, with the form, for one version;
  `alphaops replay <version>` does the same.
* **Look at** the tasks' results: `equal`, `within_tolerance`, `different` and where first, or `refused` with the
  reason. `alphaops replay` lists all of them; each is in the version's MLflow run, below `replays/`.
* **A difference** raises the alert `replay_different`, something that is lost or was changed `replay_impossible`. The
  task is green all the same: it has done its work.
* **Gives way:** a replay of the sample takes its turn only while no training waits for the machine, ends it when one
  does, and continues later, `replay.time_limit_s` seconds in all. One by hand waits in the queue like a training.
* **Safe to run again,** and to kill, at any point: it works in a folder of its own, which the next one removes.
"""

from airflow.sdk import DAG, Param, task

from dag_shared.default_args import DEFAULT_ARGS, SETTINGS
from mlops_tasks.operators.failures import tell_failed_run
from mlops_tasks.operators.stage import StageOperator
from mlops_tasks.operators.timetable import SessionTimetable
from mlops_tasks.process import TRAINING_POOL

FORM = {
    "version": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Version",
        description_md="The number in MLflow. Empty: the sample that the schedule replays.",
    ),
    "anyway": Param(
        False,
        type="boolean",
        title="In another environment, too",
        description_md="Replay what was trained with other libraries, engines or hardware; the report names them.",
    ),
}

with DAG(
    dag_id="replay_models",
    doc_md=__doc__,
    schedule=SessionTimetable(SETTINGS.calendar.schedule, SETTINGS.calendar.delay_min + SETTINGS.replay.delay_min),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=tell_failed_run,
    tags=["registry"],
) as dag:
    choose = StageOperator(task_id="choose_replays", stage="registry.choose_replays", run_params=tuple(FORM))

    @task
    def list_replays(chosen: dict) -> list:
        """Arguments of each replay; Airflow can only map over a task's whole result."""
        return chosen["replays"]

    StageOperator.partial(
        task_id="replay_model",
        stage="registry.replay",
        triggered_by="asked_by",
        map_index_template="version {{ task.arguments.version }}",
        time_limit_s=SETTINGS.replay.time_limit_s + 600,
        pool=TRAINING_POOL,
        queue=TRAINING_POOL,
        max_active_tis_per_dag=1,
    ).expand(arguments=list_replays(choose.output))

# Set after the tasks: a task created while the DAG has params gets a copy of all of them, in every parse.
dag.params.update(FORM)
