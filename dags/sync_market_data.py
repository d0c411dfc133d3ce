"""# Sync market data

Reads the bars from the configured source, validates them, keeps what is rejected in quarantine, compares the rest
with the vintage in use, and publishes it as a new vintage.

* **Runs** after each session of the exchange in `calendar.schedule`, `calendar.delay_min` minutes after its close,
  half days and daylight saving included; by hand with another source or universe.
* **Emits** the asset `market_data` with `data_version` and `last_date`, when the vintage differs from the one in use.
* **On bad input** the failing task's log names the file, the row or column, the rule and the remedy. The last good
  vintage stays in use; rejected rows are in `data/quarantine/`.
* **The data docs** are rendered in parallel, for a rejected vintage too; nothing waits for them.
* **On changed history** `compare_vintages` accepts, warns or blocks as `vintage_policy` says; its log and
  `alphaops diff` name what changed, `alphaops approve` lets a blocked vintage pass.
* **Safe to run again** at any point: every output is named by its content and written atomically.
"""

from airflow.sdk import DAG, Metadata, Param, TriggerRule, task
from airflow.sdk.exceptions import AirflowSkipException

from dag_shared.assets import MARKET_DATA
from dag_shared.default_args import DEFAULT_ARGS, SETTINGS
from mlops_tasks.config import SYNTHETIC
from mlops_tasks.operators.failures import tell_failed_run
from mlops_tasks.operators.stage import StageOperator
from mlops_tasks.operators.timetable import SessionTimetable

FORM = {
    "source": Param(
        None,
        type=["null", "string"],
        maxLength=1000,
        examples=[SYNTHETIC, *SETTINGS.data.sources],
        title="Source",
        description_md="`synthetic`, a name in `data.sources`, or a parquet or CSV file or folder below the "
        "folders of `data.allowed_folders` (by default, the folder of the configured source). Empty: the configured "
        "source.",
    ),
    "universe": Param(
        None,
        type=["null", "string"],
        maxLength=1000,
        title="Universe",
        description_md="A point-in-time membership file (instrument, first day, last day) below these folders. "
        "Empty: as configured.",
    ),
    "approve_version": Param(
        None,
        type=["null", "string"],
        pattern="^[0-9a-f]{16}$",
        title="Approve a blocked vintage",
        description_md="The data version that `compare_vintages` blocked although it is right. It comes into use "
        "if the source still yields exactly this version.",
    ),
    "approve_reason": Param(
        None, type=["null", "string"], title="Why it is right", description_md="Recorded with your name."
    ),
}

with DAG(
    dag_id="sync_market_data",
    doc_md=__doc__,
    schedule=SessionTimetable(SETTINGS.calendar.schedule, SETTINGS.calendar.delay_min),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    on_failure_callback=tell_failed_run,
    tags=["data"],
) as dag:
    read = StageOperator(
        task_id="read_source",
        stage="data.read_source",
        run_params=("source", "universe"),
    )
    validate = StageOperator(
        task_id="validate_bars", stage="data.validate_bars", arguments={"staging": read.output["staging"]}
    )
    docs = StageOperator(
        task_id="render_docs",
        stage="data.render_docs",
        arguments={"staging": read.output["staging"]},
        trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS,
    )
    snapshot = StageOperator(
        task_id="version_snapshot", stage="data.version_snapshot", arguments={"staging": validate.output["staging"]}
    )
    compare = StageOperator(
        task_id="compare_vintages",
        stage="data.compare_vintages",
        arguments={"data_version": snapshot.output["data_version"]},
        run_params=("approve_version", "approve_reason"),
        triggered_by="approved_by",
    )
    store = StageOperator(
        task_id="write_qlib_store",
        stage="data.write_qlib_store",
        arguments={"data_version": compare.output["data_version"]},
    )
    publish = StageOperator(
        task_id="publish_vintage",
        stage="data.publish_vintage",
        arguments={"data_version": store.output["data_version"]},
    )

    @task(inlets=[MARKET_DATA], outlets=[MARKET_DATA])
    def emit_market_data(published: dict, *, inlet_events):
        """Announce a new vintage; skipped if this one was announced already."""
        told = [event.extra.get("data_version") for event in inlet_events[MARKET_DATA]]
        if told and told[-1] == published["data_version"]:
            raise AirflowSkipException(f"the vintage did not change: {told[-1]}")
        extra = {"data_version": published["data_version"], "last_date": published["last_date"]}
        yield Metadata(MARKET_DATA, extra)

    validate >> docs
    emit_market_data(publish.output)

# Set after the tasks: a task created while the DAG has params gets a copy of all of them, in every parse.
dag.params.update(FORM)
