"""The processes of the stack: what each runs, with which environment, and how its health is checked."""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.errors import StackError
from mlops_tasks.files import digest_of
from mlops_tasks.secret_variables import without_secrets
from mlops_tasks.stack.broker import host_name
from mlops_tasks.stack.credentials import MLFLOW_READER, Credentials
from mlops_tasks.stack.environment import (
    base_environment,
    client_environment,
    full_environment,
    health_url,
    mlflow_environment,
    tasks_at_once,
    worker_environment,
)


@dataclass(frozen=True)
class Service:
    """A process under the keeper.

    Attributes
    ----------
    command
        Its arguments, without secrets.
    environment
        Builds its whole environment; only the process itself ever has it.
    stop_s
        Seconds between the request to end and the kill.
    after
        Address that has to answer before it starts; empty: none.
    """

    name: str
    command: tuple[str, ...]
    environment: Callable[[Settings, Credentials], Mapping[str, str]]
    stop_s: int = 10
    after: str = ""


SCHEDULER = "airflow-scheduler"
MLFLOW = "mlflow"
SCORING = "scoring"
STAGES = "stages"


def services(settings: Settings) -> tuple[Service, ...]:
    """Every service, in the order in which they start."""
    airflow = _binary("airflow")
    stage_server = [_STAGE_SERVER] if sys.platform == "linux" else []
    workers = _workers(settings) if settings.stack.profile == "celery" else []
    if settings.stack.part == "workers":
        return *stage_server, *workers
    return (
        *stage_server,
        Service(MLFLOW, _mlflow_command(settings), _mlflow_environment),
        # The API server waits two minutes for open connections, including those of browsers.
        Service("airflow-api-server", (airflow, "api-server"), full_environment, stop_s=5),
        # Without --skip-serve-logs each would listen on one more port; the API server reads the log files itself.
        Service(SCHEDULER, (airflow, "scheduler", "--skip-serve-logs"), full_environment),
        Service("airflow-dag-processor", (airflow, "dag-processor"), full_environment),
        Service("airflow-triggerer", (airflow, "triggerer", "--skip-serve-logs"), full_environment, stop_s=5),
        Service(SCORING, (sys.executable, "-m", "mlops_tasks.serving"), _scoring_environment),
        *workers,
    )


def worker_names(settings: Settings) -> list[str]:
    """The services that are Celery workers."""
    return [service.name for service in _workers(settings)] if settings.stack.profile == "celery" else []


def service_named(name: str, settings: Settings) -> Service:
    """The service called `name`.

    Raises
    ------
    StackError
        There is no such service.
    """
    by_name = {service.name: service for service in services(settings)}
    if name not in by_name:
        raise StackError(f"unknown service {name!r}; known: {', '.join(by_name)}")
    return by_name[name]


def configuration_digest(settings: Settings, credentials: Credentials) -> str:
    """A digest that changes if a running stack must be restarted to apply the settings."""
    relevant = ("MLOPS_", "MLFLOW_", "AIRFLOW_", "OMP_", "GOMP_")
    content = {
        service.name: {
            "command": service.command,
            "environment": {
                name: value
                for name, value in service.environment(settings, credentials).items()
                if name.startswith(relevant)
            },
        }
        for service in services(settings)
    }
    return digest_of(content)


def _workers(settings: Settings) -> list[Service]:
    """Celery workers; together they have room for all tasks of this machine."""
    celery = settings.celery
    here = math.ceil(tasks_at_once(settings) / celery.hosts / max(1, celery.workers))
    # The API server reads the logs of its own machine's workers from their files; those of others it asks for.
    logs = () if settings.stack.part == "workers" else ("--skip-serve-logs",)
    return [
        Service(
            name,
            (
                *(_binary("airflow"), "celery", "worker", "--celery-hostname", host_name(name)),
                *("--queues", ",".join(celery.queues), "--concurrency", str(celery.concurrency or here)),
                *("--without-mingle", "--without-gossip", *logs),
            ),
            worker_environment,
            # A task that cannot tell the API server that it begins has failed.
            after=health_url(settings),
        )
        for name in (f"worker-{number}" for number in range(1, celery.workers + 1))
    ]


def _binary(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _mlflow_environment(settings: Settings, credentials: Credentials) -> dict[str, str]:
    return {**base_environment(settings), **mlflow_environment(settings, credentials)}


def _stages_environment(settings: Settings, credentials: Credentials) -> dict[str, str]:
    """No secrets: a stage receives its secrets with the request."""
    return {**without_secrets(base_environment(settings), ()), "PYTHONHASHSEED": "0"}


def _scoring_environment(settings: Settings, credentials: Credentials) -> dict[str, str]:
    """The service only reads MLflow."""
    login = {"MLFLOW_TRACKING_USERNAME": MLFLOW_READER, "MLFLOW_TRACKING_PASSWORD": credentials.mlflow_reader_password}
    return {**base_environment(settings), **client_environment(settings, credentials), **login}


def _mlflow_command(settings: Settings) -> tuple[str, ...]:
    port = settings.stack.mlflow_port
    hosts = dict.fromkeys(["localhost", "127.0.0.1", settings.stack.local_host, settings.stack.host])
    return (
        *(_binary("mlflow"), "server", "--app-name", "basic-auth", "--workers", "1"),
        *("--host", settings.stack.host, "--port", str(port)),
        *("--serve-artifacts", "--artifacts-destination", _artifacts(settings)),
        # A DNS-rebinding page sends a foreign Host header. Any port is allowed: a container maps its own.
        *("--allowed-hosts", ",".join(f"{host},{host}:*" for host in hosts)),
    )


def _artifacts(settings: Settings) -> str:
    """Where the server keeps what it serves; only it needs the credentials of a shared store in a bucket for that."""
    shared = settings.shared.store
    return f"{shared}/mlflow" if shared else str(settings.home / "mlflow" / "artifacts")


_STAGE_SERVER = Service(STAGES, (sys.executable, "-m", "mlops_tasks.stage_server"), _stages_environment, stop_s=2)
"""Whether the stage server is available, which needs Linux; elsewhere each stage is a fresh interpreter."""
