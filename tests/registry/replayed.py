"""A home in which the daily chain's own stages have registered versions of four families; it takes seconds to make."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlops_tasks.config import Settings, load_settings
from mlops_tasks.process import stage_function
from tests.operation import define_own_set

FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "lightgbm": {"num_leaves": 7, "num_boost_round": 8, "lambda_l1": 0.0, "lambda_l2": 1.0},
    "xgboost": {"num_boost_round": 8},
    "linear": {},
    "patchtst": {"window": 8, "patch_length": 4, "stride": 2, "epochs": 2},
}
"""Models, and what makes them small."""


@dataclass(frozen=True)
class Chained:
    """A home, and the version of each model in it."""

    settings: Settings
    versions: Mapping[str, int]
    data_version: str


def chain(home: Path, mlflow: Path, patch: pytest.MonkeyPatch, form: Mapping[str, Any], days: int = 200) -> Chained:
    """Sync a synthetic market, and train, evaluate, log and register each model, by the stages that the DAGs name."""
    environ = {
        "MLOPS_HOME": str(home),
        "MLOPS_DATA__SUITE_PAGES": "false",
        "MLOPS_SYNTHETIC__INSTRUMENTS": "20",
        "MLOPS_SYNTHETIC__DAYS": str(days),
        "MLOPS_SYNTHETIC__SIGNAL_STRENGTH": "0.3",
    }
    for name, value in environ.items():
        patch.setenv(name, value)
    (home / "mlflow").mkdir(parents=True)
    shutil.copy(mlflow, home / "mlflow" / "mlflow.db")
    settings = load_settings()
    define_own_set(settings)
    run = stage_function
    staging = run("data.read_source")()["staging"]
    run("data.validate_bars")(staging=staging)
    data_version = run("data.version_snapshot")(staging=staging)["data_version"]
    run("data.write_qlib_store")(data_version=data_version)
    run("data.publish_vintage")(data_version=data_version)
    plan = run("training.plan")(**form)
    features = run("features.compute")(data_version=data_version, feature_set=plan["feature_set"])
    run("training.certify")(plan=plan, features=features)
    versions = {}
    for model in plan["models"]:
        trained = run("training.train")(plan=plan, features=features, model=model)
        run("evaluation.evaluate")(training_key=trained["training_key"], topk=5, n_drop=1)
        logged = run("registry.log_run")(training_key=trained["training_key"])
        versions[model] = run("registry.register_challenger")(candidates=logged)["version"]
    return Chained(settings, versions, data_version)
