"""The chain's DAGs with tasks that do nothing: what Airflow's own scheduling of them takes.

`write_empty_dags` makes a folder of DAG files that has the tasks and edges of the real ones, under other names; a
mapped task stands there once an element.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.stack.airflow_api import AirflowApi
from mlops_tasks.stack.chain import RETRAIN, SYNC
from mlops_tasks.stack.credentials import ADMIN, read_credentials
from mlops_tasks.stack.environment import airflow_url

NAMES = {SYNC: f"empty_{SYNC}", RETRAIN: f"empty_{RETRAIN}"}
PATIENCE_S = 300.0

GRAPHS = """
import json, sys
from airflow.dag_processing.dagbag import DagBag

bag = DagBag(sys.argv[1])
graphs = {}
for dag_id, count in json.loads(sys.argv[2]).items():
    dag = bag.dags[dag_id]
    mapped = {task.task_id for task in dag.tasks if task.get_closest_mapped_task_group() is not None}
    copies = lambda name: [f"{name}_{n}" for n in range(count)] if name in mapped else [name]
    edges = [
        [first, second]
        for task in dag.tasks
        for later in task.downstream_task_ids
        for first in copies(task.task_id)
        for second in copies(later)
        if not {task.task_id, later} <= mapped or first[-1] == second[-1]
    ]
    graphs[dag_id] = {"tasks": [copy for task in dag.tasks for copy in copies(task.task_id)], "edges": edges}
print(json.dumps(graphs))
"""
"""Prints tasks and edges of DAGs, those of mapped groups as often as there are models."""

DAG_FILE = """
import json
from pathlib import Path

from airflow.sdk import DAG, task

for name, graph in json.loads(Path(__file__).with_suffix(".json").read_text()).items():
    with DAG(dag_id=name, schedule=None, catchup=False) as dag:
        made = {}
        for task_id in graph["tasks"]:

            @task(task_id=task_id.replace(".", "_"))
            def do_nothing():
                return None

            made[task_id] = do_nothing()
        for first, second in graph["edges"]:
            made[first] >> made[second]
    globals()[name] = dag
"""


def write_empty_dags(folder: Path, models: int) -> dict[str, str]:
    """Write them for so many models of a run; returns the variables that make Airflow read the folder too."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", GRAPHS, str(PROJECT / "dags"), json.dumps(dict.fromkeys(NAMES, models))]
    environ = {
        **os.environ,
        "AIRFLOW_HOME": str(PROJECT),
        "MLOPS_HOME": str(folder),
        "PYTHONPATH": f"{PROJECT}:{PROJECT / 'dags'}",
    }
    done = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True)
    graphs = json.loads(done.stdout.splitlines()[-1])
    (folder / "empty_chain.json").write_text(json.dumps({NAMES[name]: graph for name, graph in graphs.items()}))
    (folder / "empty_chain.py").write_text(DAG_FILE)
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [
        {"name": "dags-folder", "classpath": local, "kwargs": {}},
        {"name": "empty", "classpath": local, "kwargs": {"path": str(folder)}},
    ]
    return {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles)}


def run_empty_chain(settings: Settings) -> None:
    """Run the one after the other, as `make up` does with the real ones.

    Raises
    ------
    TimeoutError
        One does not end in `PATIENCE_S`.
    """
    api = AirflowApi(airflow_url(settings), ADMIN, read_credentials(settings).airflow_password)
    run_id = f"empty__{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}"
    for name in NAMES.values():
        _wait(partial(_is_known, api, name), f"{name} is not parsed")
        api.unpause(name)
        api.trigger(name, run_id)
        _wait(partial(_has_succeeded, api, name, run_id), f"{name} has not succeeded")


def _is_known(api: AirflowApi, name: str) -> bool:
    return api.dag(name) is not None


def _has_succeeded(api: AirflowApi, name: str, run_id: str) -> bool:
    return api.run_state(name, run_id) == "success"


def _wait(is_done: Callable[[], bool], said: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_done():
        if time.monotonic() > deadline:
            raise TimeoutError(said)
        time.sleep(1.0)
