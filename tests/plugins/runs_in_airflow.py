"""Runs in Airflow's own database, scheduled as its scheduler does, but for what tasks do: they are given their ends.

`python -m tests.plugins.runs_in_airflow` reads a JSON list of `[dag_id, run_id, failing, notes]`: of the DAG's tasks
`failing` fails, in its first element where it is mapped, the others succeed; `notes` are what tasks leave for the run's
note, and `PERSON` what a person writes there while it runs. It prints each run's state.
"""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

MAPPED_OVER = ("list_models", "list_workers")
PERSON = "a person"
ELEMENTS = 2
"""Of what these tasks return, over which others are mapped."""
ROUNDS = 100
"""Looks of the scheduler at a run; each of our runs needs less than fifty."""


def walk(session: Any, asked: tuple[str, str, str | None, Mapping[str, str]]) -> str:
    """One run from its beginning to its end; its state."""
    from airflow.models.dag_version import DagVersion
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.models.taskmap import TaskMap
    from airflow.models.xcom import XComModel
    from airflow.utils.state import DagRunState, TaskInstanceState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    dag_id, run_id, failing, notes = asked
    dag = SerializedDagModel.get(dag_id, session=session).dag
    version = DagVersion.get_latest_version(dag_id, session=session)
    run = dag.create_dagrun(
        run_id=run_id,
        run_after=datetime.now(UTC),
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state=DagRunState.RUNNING,
        session=session,
    )
    run.dag, run.start_date = dag, datetime.now(UTC)
    if PERSON in notes:
        run.note = (notes[PERSON], "ann")
    assert version is not None
    for _ in range(ROUNDS):
        ready, _ = run.update_state(session=session, execute_callbacks=False)
        if run.state != DagRunState.RUNNING:
            break
        for task in ready:
            fails = task.task_id == failing and task.map_index <= 0
            task.state = TaskInstanceState.FAILED if fails else TaskInstanceState.SUCCESS
            task.start_date = task.end_date = datetime.now(UTC)
            for name in (task.task_id,) if task.task_id in notes else ():
                where = {"dag_id": dag_id, "task_id": name, "run_id": run_id, "map_index": task.map_index}
                XComModel.set("run_note", notes[name], **where, session=session)
            if task.task_id in MAPPED_OVER:
                where = {"dag_id": dag_id, "task_id": task.task_id, "run_id": run_id, "map_index": -1}
                session.add(TaskMap(**where, length=ELEMENTS, keys=None))
        session.flush()
    session.commit()
    return str(run.state)


def main() -> None:
    """All runs, in one process."""
    from airflow.utils.session import create_session

    with create_session() as session:
        print(json.dumps([walk(session, asked) for asked in json.loads(sys.argv[1])]))


if __name__ == "__main__":
    main()
