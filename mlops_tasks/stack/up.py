"""`make up`: from nothing to a running stack and one day of the operation."""

import subprocess
import sys
from pathlib import Path

from sqlalchemy import make_url

from mlops_tasks.config import PROJECT, Settings
from mlops_tasks.errors import StackError
from mlops_tasks.kernels import compile_kernels
from mlops_tasks.links import MlflowPages
from mlops_tasks.private import make_private
from mlops_tasks.process import EVALUATION_POOL, HEAVY_POOL, TRAINING_POOL
from mlops_tasks.stack import keeper, overlay, ports
from mlops_tasks.stack.airflow_api import AirflowApi
from mlops_tasks.stack.broker import check_broker
from mlops_tasks.stack.chain import run_chain
from mlops_tasks.stack.console import Progress
from mlops_tasks.stack.credentials import ADMIN, MLFLOW_READER, Credentials, ensure_credentials
from mlops_tasks.stack.environment import (
    airflow_url,
    full_environment,
    mlflow_database,
    pool_slots,
    scoring_url,
    tasks_at_once,
)
from mlops_tasks.stack.health import wait_until_healthy
from mlops_tasks.stack.mlflow_reader import ensure_reader
from mlops_tasks.stack.postgresql import prepare_databases
from mlops_tasks.stack.services import configuration_digest
from mlops_tasks.stack.users import Desk

POOLS = {
    HEAVY_POOL: "tasks that use several cores",
    TRAINING_POOL: "trainings, including those that wait in the machine's queue",
    EVALUATION_POOL: "evaluations of models, one core each",
}


def start_services(settings: Settings, choice: overlay.Choice, progress: Progress) -> tuple[Settings, Credentials]:
    """Start every service, with databases, secrets and pools; harmless if they are running.

    Returns
    -------
    The settings after `choice`, and the secrets.

    Raises
    ------
    MlopsError
        A bad choice, a taken port, or a service that does not come up; nothing is started in the first two cases.
    """
    chosen = overlay.resolve(choice, Path.cwd(), settings.data.sources)
    if closed := make_private(settings.home):
        progress.say(f"{settings.home} was open to other users: closed, with {closed} files and folders in it")
    ports.check_ports(settings.stack, keeper.own_pids(settings))
    with keeper.exclusive(settings):
        settings = overlay.apply(chosen, settings)
        progress.say(f"home {settings.home}; source {settings.data.source}")
        if settings.stack.profile == "celery":
            check_broker(settings)
            progress.say(f"PostgreSQL: {prepare_databases(settings, tasks_at_once(settings))}")
        compile_kernels(progress.say)
        credentials = ensure_credentials(settings)
        configuration = configuration_digest(settings, credentials)
        if keeper.is_running(settings) and keeper.read_record(settings).configuration != configuration:
            progress.say("the settings of the services have changed: restarting them")
            keeper.stop(settings)
        fresh = not keeper.is_running(settings)
        if not fresh:
            revived = keeper.revive(settings)
            progress.say("the services are already running" + (f"; started {', '.join(revived)}" if revived else ""))
        else:
            keeper.stop(settings)  # a killed keeper leaves its services behind
            if settings.stack.part == "all":
                migrate_databases(settings, credentials, progress)
            keeper.start(settings, configuration)
            progress.say("services are starting")
    try:
        wait_until_healthy(settings, credentials, progress)
    except StackError:
        if fresh:  # a half-started stack helps nobody; the logs stay
            keeper.stop(settings)
        raise
    if settings.stack.part == "workers":
        return settings, credentials
    ensure_reader(settings, credentials)
    hosts = settings.celery.hosts if settings.stack.profile == "celery" else 1
    for pool, slots in ((pool, slots * hosts) for pool, slots in pool_slots().items()):
        if connect(settings, credentials).ensure_pool(pool, slots, POOLS[pool]):
            progress.say(f"created the pool {pool} with {slots} slot(s)")
    return settings, credentials


def run_day(settings: Settings, credentials: Credentials, progress: Progress) -> None:
    """Run the chain once, and show its result."""
    run_chain(settings, connect(settings, credentials), progress)
    command = [sys.executable, "-m", "mlops_tasks", "status"]
    status = subprocess.run(command, env=full_environment(settings, credentials), cwd=PROJECT, check=False)
    if status.returncode:
        raise StackError("the chain has succeeded, but its result table could not be created: see above")


def addresses(settings: Settings) -> str:
    """The addresses of everything, and where the passwords are."""
    secret = settings.secrets_dir
    reader = f"user {MLFLOW_READER}, password: cat {secret / 'mlflow_reader_password'}"
    return "\n".join(
        [
            f"Airflow   {airflow_url(settings)}   user {ADMIN}, password: cat {secret / 'airflow_password'}",
            f"MLflow    {MlflowPages.of(settings).models}   {reader}",
            f"Scoring   {scoring_url(settings)}   Bearer token: cat {secret / 'scoring_token'}",
            f"Logs      {keeper.logs_dir(settings)}",
            f"Commands  {PROJECT / 'bin' / 'alphaops'} --help",
            "Stop      make down",
        ]
    )


def connect(settings: Settings, credentials: Credentials) -> AirflowApi:
    """A client of this stack's Airflow."""
    return AirflowApi(airflow_url(settings), ADMIN, credentials.airflow_password)


def migrate_databases(settings: Settings, credentials: Credentials, progress: Progress) -> None:
    """Create the databases of Airflow, MLflow and the operation, or upgrade them to this version.

    Raises
    ------
    StackError
        A migration failed; shows the end of its output.
    """
    from mlops_tasks.state.database import upgrade

    binaries = Path(sys.executable).parent
    for folder in ("airflow", "mlflow", "state"):
        (settings.home / folder).mkdir(parents=True, exist_ok=True)
    environment = full_environment(settings, credentials)
    commands = {"Airflow": [str(binaries / "airflow"), "db", "migrate"]}
    # The server itself creates a new SQLite database.
    if (settings.home / "mlflow" / "mlflow.db").exists() or settings.stack.profile == "celery":
        database = make_url(mlflow_database(settings))
        if database.password:  # a command line is for everybody to see
            environment["PGPASSWORD"] = str(database.password)
        shown = database.set(password=None).render_as_string()
        commands["MLflow"] = [str(binaries / "mlflow"), "db", "upgrade", shown]
    running = {
        name: subprocess.Popen(
            command,
            env=environment,
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for name, command in commands.items()
    }
    upgrade(settings)
    for name, process in running.items():
        output, _ = process.communicate()
        if process.returncode:
            tail = "\n".join(f"    {line}" for line in output.splitlines()[-20:])
            raise StackError(f"the {name} database could not be migrated:\n{tail}")
    if settings.stack.login == "fab":
        Desk(settings, credentials).prepare()
    progress.say("databases are ready")
