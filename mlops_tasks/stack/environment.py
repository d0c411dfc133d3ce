"""The environment of every process of the stack, made from the settings and secrets, not from the caller's shell."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.process import EVALUATION_POOL, HEAVY_POOL, TRAINING_POOL
from mlops_tasks.signing import PRIVATE
from mlops_tasks.stack.credentials import ADMIN, Credentials, airflow_users_file, mlflow_auth_file

STACK_ID = "MLOPS_STACK_ID"
"""Names the home to which a process belongs, so that `make down` ends only these processes."""

_LEAST_JWT_S = 14_400
_FOREIGN = (
    *(
        "MAKEFLAGS",
        "MAKELEVEL",
        "MFLAGS",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "SUPERVISOR_",
        "AIRFLOW_HOME",
        "AIRFLOW_CONFIG",
        STACK_ID,
        PRIVATE.variable,
    ),
    *(
        "MLFLOW_TRACKING_",
        "MLFLOW_REGISTRY_",
        "MLFLOW_BACKEND_",
        "MLFLOW_AUTH_",
        "MLFLOW_EXPERIMENT_",
        "MLFLOW_RUN_",
    ),
)
_LOGINS: Mapping[str, Mapping[str, str]] = {
    # Set explicitly, so that a variable of the caller does not choose another one.
    "simple": {
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
    },
    "fab": {
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        # A session ends after half a day, even if it is active; the default never ends an active one.
        "AIRFLOW__FAB__SESSION_MAX_LIFETIME_MINUTES": "720",
    },
}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_WAITING = {"GOMP_SPINCOUNT": "10000"}
"""How often an OpenMP thread polls for the others before it sleeps: about a tenth of a millisecond. By default it holds
its core for several milliseconds. If stages run beside a training, the thread that it waits for needs that core, and
boosting takes three times the processor time. The results are the same."""


def airflow_url(settings: Settings) -> str:
    """Base address of Airflow's API server."""
    return settings.airflow_url


def mlflow_url(settings: Settings) -> str:
    """Base address of the MLflow server."""
    return f"http://{settings.stack.local_host}:{settings.stack.mlflow_port}"


def scoring_url(settings: Settings) -> str:
    """Base address of the scoring service."""
    return f"http://{settings.stack.local_host}:{settings.stack.scoring_port}"


def base_environment(settings: Settings, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What every process gets: the caller's variables, except those that would mislead it, and the home."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_FOREIGN)}
    binaries = str(Path(sys.executable).parent)
    threads = {name: str(settings.training.threads) for name in _THREADS}
    return {
        **threads,
        **_WAITING,
        **kept,
        "PATH": os.pathsep.join([binaries, kept.get("PATH", os.defpath)]),
        "HOME": kept.get("HOME") or str(settings.home),
        "MLOPS_HOME": str(settings.home),
        "PYTHONUNBUFFERED": "1",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def client_environment(settings: Settings, credentials: Credentials) -> dict[str, str]:
    """What a stage needs to reach MLflow and the scoring service."""
    return {
        "MLOPS_MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri or mlflow_url(settings),
        "MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri or mlflow_url(settings),
        "MLFLOW_TRACKING_USERNAME": ADMIN,
        "MLFLOW_TRACKING_PASSWORD": credentials.mlflow_password,
        "MLOPS_SCORING_TOKEN": credentials.scoring_token,
    }


def pool_slots() -> dict[str, int]:
    """Slots of Airflow's pools on this machine.

    A heavy task runs two threads. Trainings are limited by the machine's queue: more of them wait there than can run,
    so that owners and priorities decide which is next, not the order of arrival at the pool. Each evaluation keeps a
    core busy; without a pool, those of many models would occupy the workers of all other tasks.
    """
    cores = len(os.sched_getaffinity(0))
    return {HEAVY_POOL: max(1, cores // 2), TRAINING_POOL: max(3, cores), EVALUATION_POOL: cores}


def mlflow_environment(settings: Settings, credentials: Credentials) -> dict[str, str]:
    """What the MLflow server needs."""
    endpoint = settings.shared.endpoint_url
    return {
        **({"MLFLOW_S3_ENDPOINT_URL": endpoint} if endpoint else {}),
        "MLFLOW_AUTH_CONFIG_PATH": str(mlflow_auth_file(settings)),
        "MLFLOW_AUTH_ADMIN_PASSWORD": credentials.mlflow_password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": credentials.mlflow_flask_key,
        # A route that MLflow has no rule for is refused.
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
        # Its job runner is for evaluations of language models: two more processes that we do not need.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def airflow_environment(settings: Settings, credentials: Credentials) -> dict[str, str]:
    """What Airflow's processes need beyond `airflow.cfg`: the secrets, and settings that depend on home and ports.

    A database URL from the caller's environment is kept, so that PostgreSQL can be used.
    """
    home = settings.home / "airflow"
    database = os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{home / 'airflow.db'}?timeout=30")
    training, tuning = settings.training, settings.tuning
    longest_s = max(training.time_limit_s + training.wait_limit_s, tuning.time_limit_s)
    jwt_s = max(_LEAST_JWT_S, int(longest_s) + 3600)
    given_key = {name: os.environ[name] for name in (PRIVATE.variable,) if name in os.environ}  # trainings run here
    return {
        **given_key,
        **_pause_of_another_executor(os.environ),
        **_LOGINS[settings.stack.login],
        "AIRFLOW_HOME": str(PROJECT),
        "AIRFLOW__API__BASE_URL": airflow_url(settings),
        "AIRFLOW__API__HOST": settings.stack.host,
        "AIRFLOW__API__PORT": str(settings.stack.airflow_port),
        "AIRFLOW__API__SECRET_KEY": credentials.airflow_secret_key,
        "AIRFLOW__API_AUTH__JWT_SECRET": credentials.airflow_jwt_secret,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{airflow_url(settings)}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": credentials.airflow_fernet_key,
        # A worker for every slot of a pool, and two for tasks without a pool; each uses 120 MB from the start.
        "AIRFLOW__CORE__PARALLELISM": str(sum(pool_slots().values()) + 2),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(airflow_users_file(settings)),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "bundles"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME": str(jwt_s),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(home / "logs" / "dag_processor"),
    }


def _pause_of_another_executor(environ: Mapping[str, str]) -> dict[str, str]:
    """Airflow's own pause between two loops of the scheduler, where the caller chooses an executor.

    `airflow.cfg` has next to none, since its executor waits; with another one the scheduler would never rest.
    """
    pause = "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"
    return {pause: environ.get(pause, "1")} if "AIRFLOW__CORE__EXECUTOR" in environ else {}


def full_environment(settings: Settings, credentials: Credentials) -> dict[str, str]:
    """What Airflow's processes, their tasks and a person's command (`stack run --`) get."""
    return {
        **base_environment(settings),
        **client_environment(settings, credentials),
        **airflow_environment(settings, credentials),
    }
