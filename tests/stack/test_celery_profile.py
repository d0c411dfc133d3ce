"""The profile `celery`: what is checked before anything starts, its processes, and what each of them is given."""

import json
import shutil
import socket
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import make_url

from mlops_tasks.config import CelerySettings, Settings, StackSettings, load_settings
from mlops_tasks.errors import ConfigError, StackError
from mlops_tasks.operators.worker_guard import DiskGuard
from mlops_tasks.process import QUEUES
from mlops_tasks.secret_variables import without_secrets
from mlops_tasks.stack.broker import check_broker, living_workers
from mlops_tasks.stack.credentials import ensure_credentials
from mlops_tasks.stack.environment import client_environment, pool_slots, tasks_at_once, worker_environment
from mlops_tasks.stack.postgresql import DATABASES, connections_needed, prepare_databases
from mlops_tasks.stack.services import service_named, services, worker_names
from tests.brokers import own_broker
from tests.operation import free_ports
from tests.postgres import own_postgres

SECRET = "correct-horse"


def celery(home: Path, part: str = "all", **changes: object) -> Settings:
    """Settings with the profile; nothing answers at its addresses unless a test says so."""
    server, broker = free_ports(2)
    addresses = {
        "database_url": f"postgresql://desk:{SECRET}@127.0.0.1:{server}",
        "broker_url": f"redis://:{SECRET}@127.0.0.1:{broker}/0",
    }
    stack = StackSettings.model_validate({"profile": "celery", "part": part})
    return Settings(home=home, stack=stack, celery=CelerySettings.model_validate({**addresses, **changes}))


def test_nothing_starts_without_its_services(tmp_path: Path) -> None:
    """Each missing one is told with its address, without the password, and with what to do."""
    settings = celery(tmp_path)
    for check in (check_broker, lambda settings: prepare_databases(settings, 8)):
        with pytest.raises(StackError, match="does not answer") as told:
            check(settings)
        assert "127.0.0.1" in str(told.value) and "celery." in str(told.value) and SECRET not in str(told.value)
    nothing = celery(tmp_path, database_url="", broker_url="")
    with pytest.raises(StackError, match=r"set celery\.broker_url"):
        check_broker(nothing)
    with pytest.raises(StackError, match=r"set celery\.database_url"):
        prepare_databases(nothing, 8)
    assert living_workers(settings) == set()


@pytest.mark.parametrize(
    ("key", "value"), [("database_url", "mysql://db"), ("broker_url", "kafka://mq"), ("queues", ["other"])]
)
def test_a_wrong_address_is_a_wrong_setting(tmp_path: Path, key: str, value: object) -> None:
    """It is told before anything is asked for it."""
    (tmp_path / "settings.yaml").write_text(json.dumps({"celery": {key: value}}))
    with pytest.raises(ConfigError, match=key):
        load_settings({"MLOPS_HOME": str(tmp_path)})


def test_databases_are_made_once_and_connections_counted(tmp_path: Path) -> None:
    """On a real server: those that are there are left alone; too few connections are refused before any is made."""
    with own_postgres() as server:
        settings = celery(
            tmp_path, database_url=f"postgresql://postgres@127.0.0.1:{server.port}", database_prefix="mine"
        )
        with pytest.raises(StackError, match="raise max_connections"):
            prepare_databases(settings, 1000)

        def made() -> set[str]:
            engine = create_engine(make_url(server.url), poolclass=NullPool)
            with engine.connect() as connection:
                return set(connection.scalars(text("select datname from pg_database"))) - {"template0", "template1"}

        assert made() == {"postgres"}
        found = prepare_databases(settings, 8)
        assert made() == {"postgres", *(f"mine_{name}" for name in DATABASES)}
        assert (found.needed, found.allowed) == (connections_needed(8), 97)
        engine = create_engine(settings.state_database, poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text("create table kept (id int)"))
        prepare_databases(settings, 8)
        with engine.connect() as connection:
            assert connection.scalar(text("select count(*) from kept")) == 0


def test_who_may_not_create_databases_is_told_their_names(tmp_path: Path) -> None:
    """A server on which somebody else creates them."""
    with own_postgres() as server:
        engine = create_engine(make_url(server.url), poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text("create role desk login"))
        settings = celery(tmp_path, database_url=f"postgresql://desk@127.0.0.1:{server.port}")
        with pytest.raises(StackError, match="alphaops_airflow, alphaops_results, alphaops_mlflow, alphaops_state"):
            prepare_databases(settings, 8)


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_a_broker_that_answers_is_accepted(tmp_path: Path, kind: str) -> None:
    """Redis and RabbitMQ; nobody works yet."""
    with own_broker(kind) as broker:
        settings = celery(tmp_path, broker_url=broker.url)
        check_broker(settings)
        assert living_workers(settings) == set()


def test_workers_are_services_with_room_for_all_tasks(tmp_path: Path) -> None:
    """Each under a name of its own, for the chosen queues; on a machine of workers nothing else runs."""
    settings = celery(tmp_path, workers=3)
    assert worker_names(settings) == ["worker-1", "worker-2", "worker-3"]
    command = service_named("worker-2", settings).command
    assert command[command.index("--celery-hostname") + 1] == f"worker-2@{socket.gethostname()}"
    assert command[command.index("--queues") + 1].split(",") == list(QUEUES)
    assert int(command[command.index("--concurrency") + 1]) * 3 >= tasks_at_once(settings)
    others = {service.name for service in services(celery(tmp_path, part="workers"))} - {"stages"}
    assert others == {"worker-1", "worker-2"}
    two = celery(tmp_path, hosts=2)
    assert tasks_at_once(two) == 2 * (sum(pool_slots().values()) + 2)
    assert worker_names(Settings(home=tmp_path)) == []


def test_a_worker_has_neither_airflows_database_nor_its_keys(tmp_path: Path) -> None:
    """It reaches the API server with the token that comes with each task; no password is on a command line."""
    settings = celery(tmp_path)
    made = ensure_credentials(settings)
    held = worker_environment(settings, made)
    assert not {made.airflow_jwt_secret, made.airflow_fernet_key, made.airflow_secret_key} & set(held.values())
    assert not any(name.startswith("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN") for name in held)
    assert not any(SECRET in word for service in services(settings) for word in service.command)


def test_a_stage_that_needs_no_state_gets_no_password(tmp_path: Path) -> None:
    """The address of the state database is among the secrets that stages are given by name."""
    settings = celery(tmp_path)
    variables = client_environment(settings, ensure_credentials(settings))
    variables |= {"MLOPS_CELERY__DATABASE_URL": settings.celery.database_url, "MLOPS_HOME": str(tmp_path)}
    without = without_secrets(variables, ())
    assert SECRET not in json.dumps(without)
    with pytest.raises(ConfigError, match="withheld"):
        prepared = load_settings(without)
        from mlops_tasks.state.database import engine

        engine(prepared.state_database)
    given = load_settings(without_secrets(variables, ("MLOPS_STATE_URL",)))
    assert given.state_database == settings.state_database


def test_a_full_disk_holds_a_worker_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, until there is space."""

    class Consumer:
        def __init__(self) -> None:
            self.queues = set(QUEUES)

        def cancel_task_queue(self, name: str) -> None:
            self.queues.remove(name)

        def add_task_queue(self, name: str) -> None:
            self.queues.add(name)

    consumer = Consumer()
    settings = Settings(home=tmp_path)
    guard = DiskGuard(settings, consumer)
    usage = shutil.disk_usage(tmp_path)
    free = settings.celery.least_disk_mb * 2**20
    for left, queues in ((free, set(QUEUES)), (free - 1, set()), (free - 2, set()), (free, set(QUEUES))):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, left=left: usage._replace(free=left))
        guard.look()
        assert consumer.queues == queues
