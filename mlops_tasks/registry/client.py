"""The connection to MLflow, and the names under which this project is known there."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from mlops_tasks.config import Settings
from mlops_tasks.errors import RegistryError
from mlops_tasks.files import folder_lock
from mlops_tasks.roles import AB_TEST_DAG

# Read by mlflow when it is imported: no telemetry, no progress bars in task logs, an unreachable server is an
# error within seconds instead of minutes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

EXPERIMENT = "daily_retraining"
TUNING_EXPERIMENT = "tune_models"
AB_TEST_EXPERIMENT = AB_TEST_DAG
MODEL_NAME = "alphaops"
CHAMPION = "champion"
CHALLENGER = "challenger"

SQLITE = "sqlite:///"
SERVED_ARTIFACTS = "mlflow-artifacts:/"
"""Where a server stores the artifacts that it serves itself."""

P = ParamSpec("P")
R = TypeVar("R")


def connect(settings: Settings) -> MlflowClient:
    """A client of the configured registry; creates the folder of a SQLite one.

    A server's user and password come from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.

    Raises
    ------
    RegistryError
        The registry cannot be reached or opened.
    """
    uri = settings.registry_uri
    # MLflow's SQLite registry resolves `models:/<id>` through its global address, whatever the client's is.
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return _client(uri)


@functools.lru_cache(maxsize=8)
def _client(uri: str) -> MlflowClient:
    try:
        if not uri.startswith(SQLITE):
            return MlflowClient(tracking_uri=uri, registry_uri=uri)
        # The first client creates the tables; two at once would conflict.
        with folder_lock(Path(uri.removeprefix(SQLITE)).parent):
            return MlflowClient(tracking_uri=uri, registry_uri=uri)
    except Exception as error:  # any driver's error: sqlalchemy, sqlite3, psycopg2
        raise RegistryError(f"MLflow at {uri} cannot be opened: {error}; check mlflow_tracking_uri") from error


def experiment_id(settings: Settings, name: str = EXPERIMENT) -> str:
    """Id of an experiment, which is created if it does not exist."""
    client = connect(settings)
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = artifact_root(settings) if settings.registry_uri.startswith(SQLITE) else None
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:  # another task has just created it
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def artifact_root(settings: Settings) -> str:
    """The location that holds all models of this project, as MLflow names it."""
    uri = settings.registry_uri
    own = str(Path(uri.removeprefix(SQLITE)).parent / "artifacts") if uri.startswith(SQLITE) else SERVED_ARTIFACTS
    return settings.mlflow_artifact_root or own


def registry_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Turn MLflow's own errors into a RegistryError that says what was tried and what to check."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except MlflowException as error:
            raise RegistryError(
                f"{function.__name__.replace('_', ' ')}: MLflow at {mlflow.get_tracking_uri()} answered: {error}; "
                "check that the server is up, and check its user and password"
            ) from error

    return wrapped


def quoted(value: Any) -> str:
    """A value quoted for MLflow's search filters."""
    return "'" + str(value).replace("'", "''") + "'"
