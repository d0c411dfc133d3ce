"""`monitor_champion` as Airflow runs it, twice, on a fresh database; prints the runs of `daily_retraining` after each.

`python -m tests.dags.retraining_in_airflow`, in an environment that names an Airflow and a home.
"""

import json

from airflow.cli.cli_parser import get_parser
from airflow.dag_processing.dagbag import DagBag


def main() -> None:
    """Between both, what is asked for is what it was: the run has not begun, since nothing schedules it."""
    parser = get_parser()
    for words in (("db", "migrate"), ("dags", "reserialize")):
        arguments = parser.parse_args(words)
        arguments.func(arguments)
    dag = DagBag().dags["monitor_champion"]
    print("=", json.dumps([[_ended(dag), _runs()] for _ in range(2)]))


def _ended(dag) -> dict[str, str]:
    run = dag.test()
    return {task.task_id: str(task.state) for task in run.get_task_instances()}


def _runs() -> list[list[object]]:
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        runs = session.query(DagRun).filter(DagRun.dag_id == "daily_retraining")
        return [[run.run_id, run.conf, str(run.state)] for run in runs]


if __name__ == "__main__":
    main()
