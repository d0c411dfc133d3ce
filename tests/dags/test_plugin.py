"""The plugin shows its pages and MLflow in Airflow's navigation and loads nothing heavy."""

import json
import os
import subprocess
import sys

from mlops_tasks.config import PROJECT
from mlops_tasks.links import NAVIGATION
from tests.dags.test_dags import HEAVY

LOAD = """
import json, sys
import airflow
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
from mlops_plugin import MlopsPlugin
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(json.dumps({"views": MlopsPlugin.external_views, "new": sorted(new)}))
"""


def test_the_navigation_leads_to_the_pages_and_to_the_stacks_own_mlflow(tmp_path):
    """The pages are below the path that Airflow is served at, inside its frame; MLflow's links follow its port. The
    apps are not made: Airflow loads the plugin in every process."""
    environ = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "MLOPS_HOME": str(tmp_path),
        "MLOPS_STACK__MLFLOW_PORT": "5511",
        "AIRFLOW__API__BASE_URL": "https://example.org/airflow",
    }
    command = [sys.executable, "-c", LOAD, str(PROJECT / "plugins")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    views = {view["name"]: view for view in loaded["views"]}
    assert {name: view["href"] for name, view in views.items()} == {
        **{title: f"/airflow/mlops/ui/{page}" for title, page in NAVIGATION},
        "Trainings": "/airflow/mlops/ui/dag-run/{DAG_ID}/{RUN_ID}",
        "MLflow runs": "/airflow/mlops/ui/mlflow",
        "MLflow models": "http://127.0.0.1:5511/#/models?workflowType=machine_learning",
    }
    framed = [view["url_route"] for view in loaded["views"] if "url_route" in view]
    assert framed == [*(page for _, page in NAVIGATION), "trainings"]
    assert [name for name, view in views.items() if view.get("nav_top_level")] == ["Today"]
    assert views["Trainings"]["destination"] == "dag_run"
    assert not set(loaded["new"]) & {*HEAVY, "fastapi", "jinja2"}
