"""`sync_market_data` as Airflow runs it, on a fresh database: `python -m tests.operators.lineage_in_airflow`, in an
environment that names an Airflow, a home and a service that collects lineage."""

from airflow.cli.cli_parser import get_parser
from airflow.dag_processing.dagbag import DagBag


def main() -> None:
    """Print the states of its tasks."""
    parser = get_parser()
    for words in (("db", "migrate"), ("dags", "reserialize")):
        arguments = parser.parse_args(words)
        arguments.func(arguments)
    run = DagBag().dags["sync_market_data"].test()
    print("=", {str(task.state) for task in run.get_task_instances()})


if __name__ == "__main__":
    main()
