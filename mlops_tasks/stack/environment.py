"""The environment of every process of the stack, made from the settings and secrets, not from the caller's shell."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.process import EVALUATION_POOL, HEAVY_POOL, LIGHT_QUEUE, TRAINING_POOL
from mlops_tasks.signing import PRIVATE
from mlops_tasks.stack.credentials import ADMIN, Credentials, airflow_users_file, mlflow_auth_file
from mlops_tasks.stack.postgresql import POOL_OVERFLOW, POOL_SIZE

STACK_ID = "MLOPS_STACK_ID"
"""Names the home to which a process belongs, so that `make down` ends only these processes."""

WORKER_GUARD = "mlops_tasks.operators.worker_guard"
"""The module that a worker imports beside Airflow's tasks; by its name, for it imports Celery."""

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
_NOT_FOR_WORKERS = frozenset(
    {
        "AIRFLOW__API__SECRET_KEY",
        "AIRFLOW__API_AUTH__JWT_SECRET",
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC",
    }
)
_MLFLOW_POOL = {
    "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": str(POOL_SIZE),
    "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": str(POOL_OVERFLOW),
}
_WAITING = {"GOMP_SPINCOUNT": "10000"}
"""How often an OpenMP thread polls for the others before it sleeps: about a tenth of a millisecond. By default it holds
its core for several milliseconds. If stages run beside a training, the thread that it waits for needs that core, and
boosting takes three times the processor time. The results are the same."""


def airflow_url(settings: Settings) -> str:
    """Base address of Airflow's API server."""
    return settings.airflow_url


def health_url(settings: Settings) -> str:
    """Where Airflow's API server tells how its parts are."""
    return f"{airflow_url(settings)}/api/v2/monitor/health"


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
    shared = {"MLOPS_STATE_URL": settings.state_database} if settings.stack.profile == "celery" else {}
    return {
        **shared,
        "MLOPS_MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri or mlflow_url(settings),
        "MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri or mlflow_url(settings),
        "MLFLOW_TRACKING_USERNAME": ADMIN,
        "MLFLOW_TRACKING_PASSWORD": credentials.mlflow_password,
        "MLOPS_SCORING_TOKEN": credentials.scoring_token,
    }


def pool_slots() -> dict[str, int]:
    """Slots of Airflow's pools for one machine, this one.

    A heavy task runs two threads. Trainings are limited by the machine's queue: more of them wait there than can run,
    so that owners and priorities decide which is next, not the order of arrival at the pool. Each evaluation keeps a
    core busy; without a pool, those of many models would occupy the workers of all other tasks.
    """
    cores = len(os.sched_getaffinity(0))
    return {HEAVY_POOL: max(1, cores // 2), TRAINING_POOL: max(3, cores), EVALUATION_POOL: cores}


def tasks_at_once(settings: Settings) -> int:
    """Tasks that all machines work on at once: those of every slot of a pool, and two without a pool on each."""
    slots = sum(pool_slots().values()) + 2
    if settings.stack.profile == "local":
        return slots
    celery = settings.celery
    return (celery.concurrency * celery.workers or slots) * celery.hosts


def mlflow_environment(settings: Settings, credentials: Credentials) -> dict[str, str]:
    """What the MLflow server needs."""
    endpoint = settings.shared.endpoint_url
    return {
        "MLFLOW_BACKEND_STORE_URI": mlflow_database(settings),
        **({} if settings.stack.profile == "local" else _MLFLOW_POOL),
        **({"MLFLOW_S3_ENDPOINT_URL": endpoint} if endpoint else {}),
        "MLFLOW_AUTH_CONFIG_PATH": str(mlflow_auth_file(settings)),
        "MLFLOW_AUTH_ADMIN_PASSWORD": credentials.mlflow_password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": credentials.mlflow_flask_key,
        # A route that MLflow has no rule for is refused.
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
        # Its job runner is for evaluations of language models: two more processes that we do not need.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def mlflow_database(settings: Settings) -> str:
    """SQLAlchemy URL of the MLflow server's database."""
    if settings.stack.profile == "celery":
        return settings.postgresql_database("mlflow")
    return f"sqlite:///{settings.home / 'mlflow' / 'mlflow.db'}"


def worker_environment(settings: Settings, credentials: Credentials) -> dict[str, str]:
    """What a Celery worker and its tasks need: not Airflow's database, nor what Airflow signs and encrypts with."""
    given = full_environment(settings, credentials)
    return {name: value for name, value in given.items() if name not in _NOT_FOR_WORKERS}


def airflow_environment(settings: Settings, credentials: Credentials) -> dict[str, str]:
    """What Airflow's processes need beyond `airflow.cfg`: the secrets, and settings that depend on home and ports.

    A database URL from the caller's environment is kept, so that PostgreSQL can be used without workers.
    """
    home = settings.home / "airflow"
    database = os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{home / 'airflow.db'}?timeout=30")
    on_workers = _celery_environment(settings) if settings.stack.profile == "celery" else {}
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
        # Of the local executor, each is a process that uses 120 MB from the start.
        "AIRFLOW__CORE__PARALLELISM": str(tasks_at_once(settings)),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(airflow_users_file(settings)),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "bundles"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME": str(jwt_s),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(home / "logs" / "dag_processor"),
        **on_workers,
    }


def _celery_environment(settings: Settings) -> dict[str, str]:
    celery = settings.celery
    database = settings.postgresql_database("airflow")
    return {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        # asyncpg does not know libpq's parameters.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": database.partition("?")[0].replace("+psycopg2", "+asyncpg", 1),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": str(POOL_SIZE),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_MAX_OVERFLOW": str(POOL_OVERFLOW),
        "AIRFLOW__OPERATORS__DEFAULT_QUEUE": LIGHT_QUEUE,
        "AIRFLOW__CELERY__BROKER_URL": celery.broker_url,
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{settings.postgresql_database('results')}",
        "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
        "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": json.dumps({"imports": [WORKER_GUARD]}),
        "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": str(celery.visibility_timeout_s),
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": str(celery.queued_timeout_s),
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "15",
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
