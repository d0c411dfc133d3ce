"""A DAG whose tasks fail with errors of several kinds, as Airflow runs it on a fresh database; prints how they ended.

`python -m tests.dags.failing_in_airflow`, in an environment that names an Airflow, whose DAG folder is to be made, and
a home. Each task counts its tries in a file of the home, `tries/<task>`.
"""

import json
import os
from pathlib import Path

from mlops_tasks.config import PROJECT, load_settings

DAG_FILE = f"""
import sys
sys.path.insert(0, {str(PROJECT / "dags")!r})
from airflow.sdk import DAG
from dag_shared.default_args import DEFAULT_ARGS, SETTINGS
from mlops_tasks.operators.stage import StageOperator

FAIL = "tests.example_stages:fail_and_count"

def given(error, name):
    return {{"error": error, "message": "rename it", "tries": str(SETTINGS.home / "tries" / name)}}

with DAG("failing", schedule=None, default_args=DEFAULT_ARGS) as dag:
    for error in ("ConfigError", "RegistryError", "KeyError"):
        StageOperator(task_id=error, stage=FAIL, arguments=given(error, error))
    StageOperator.partial(task_id="mapped", stage=FAIL).expand(arguments=[given("SourceError", "mapped")])
"""


def main() -> None:
    """One run."""
    from airflow.cli.cli_parser import get_parser
    from airflow.dag_processing.dagbag import DagBag

    folder, tries = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]), load_settings().home / "tries"
    folder.mkdir()
    tries.mkdir()
    (folder / "failing.py").write_text(DAG_FILE)
    for words in (("db", "migrate"), ("dags", "reserialize")):
        arguments = get_parser().parse_args(words)
        arguments.func(arguments)
    bag = DagBag()
    assert not bag.import_errors, bag.import_errors
    run = bag.dags["failing"].test()
    states = {each.task_id: str(each.state) for each in run.get_task_instances()}
    print("=", json.dumps([states, {path.name: len(path.read_text()) for path in tries.iterdir()}]))


if __name__ == "__main__":
    main()
