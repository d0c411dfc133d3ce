"""Drift starts a run of daily_retraining in a real Airflow."""

import json
import os
import subprocess
import sys

import pytest

from mlops_tasks.config import PROJECT
from mlops_tasks.state.history import record_drift_report
from mlops_tasks.state.tables import DriftReport
from tests.operation import make_champion
from tests.registry.conftest import Operation, migrated_mlflow, operation, settings, vintage_template
from tests.registry.trainings import Spec

__all__ = ["migrated_mlflow", "operation", "settings", "vintage_template"]

RULES = "drift: {retraining: {enabled: true, confirmed_days: 1, form: {seed: 7}}}\n"


@pytest.mark.slow
def test_drift_starts_one_run_however_often_it_is_asked_for(operation: Operation) -> None:
    """With the identifier that is recorded and the form of the settings; the second time the task is skipped.

    That the task is there where the settings say so, `test_dags.py` checks at less expense.
    """
    home = operation.settings.home
    make_champion(operation.settings, operation.register(Spec()))
    day = operation.vintage.calendar()[-1].date()
    row = DriftReport(date=day, model_version=1, data_version="d", psi_max=0.4, n_warn=0, n_alert=3, path="p")
    record_drift_report(operation.settings, row)
    (home / "settings.yaml").write_text(RULES)
    environ = {
        **os.environ,
        "MLOPS_HOME": str(home),
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    command = [sys.executable, "-m", "tests.dags.retraining_in_airflow"]
    done = subprocess.run(command, cwd=PROJECT, env=environ, capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if line.startswith("= ")]
    assert done.returncode == 0 and told, done.stdout + done.stderr
    runs = [[f"drift__{day}__v1", {"seed": 7}, "queued"]]
    first, second = json.loads(told[-1].removeprefix("= "))
    assert first == [{"monitor": "success", "start_retraining": "success"}, runs]
    assert second == [{"monitor": "success", "start_retraining": "skipped"}, runs]
