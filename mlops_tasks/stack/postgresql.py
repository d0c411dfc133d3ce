"""The PostgreSQL server of the profile `celery`: whether it answers, its databases, and its connections."""

from dataclasses import dataclass

from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from mlops_tasks.config import Settings
from mlops_tasks.errors import StackError
from mlops_tasks.state.database import reason_of

DATABASES = ("airflow", "results", "mlflow", "state")
"""Airflow's own, the results of Celery's tasks, MLflow's, and the operation's."""
POOL_SIZE, POOL_OVERFLOW = 3, 4
"""Connections of each pool that a service keeps, and opens beyond that while it is busy."""
_POOLS = 7
"""Pools of the services: one each of the scheduler and the DAG processor, a second one for asynchronous access of the
API server and the triggerer, and MLflow's."""
_BESIDE = 8
"""Connections without a pool: of the API server's pages, the scoring service, and a person's commands."""


@dataclass(frozen=True)
class Connections:
    """Connections that the server allows, and that this stack opens at most."""

    allowed: int
    needed: int

    def __str__(self) -> str:
        return f"this stack opens {self.needed} connections at most, the server allows {self.allowed}"


def connections_needed(tasks: int) -> int:
    """Connections at most, with so many tasks at once: each has one for its result and one for its state."""
    return _POOLS * (POOL_SIZE + POOL_OVERFLOW) + _BESIDE + 2 * tasks


def prepare_databases(settings: Settings, tasks: int) -> Connections:
    """Create the databases that do not exist, and count connections; harmless if all is there.

    Raises
    ------
    StackError
        No server is named, it does not answer, it allows too few connections, or a database cannot be created. Nothing
        else is changed.
    """
    server = settings.celery.database_url
    if not server:
        raise StackError(
            "the profile celery needs a PostgreSQL server: set celery.database_url in settings.yaml, e.g. "
            "postgresql://alphaops@127.0.0.1:5432, with its password in PGPASSWORD"
        )
    maintenance = make_url(settings.postgresql_database("state")).set(database="postgres")
    engine = create_engine(maintenance, poolclass=NullPool, hide_parameters=True, isolation_level="AUTOCOMMIT")
    shown = engine.url.set(database=None, query={}).render_as_string(hide_password=True)
    try:
        with engine.connect() as connection:
            allowed = connection.execute(
                text(
                    "SELECT setting::int - (SELECT setting::int FROM pg_settings WHERE name = :kept) "
                    "FROM pg_settings WHERE name = 'max_connections'"
                ),
                {"kept": "superuser_reserved_connections"},
            ).scalar_one()
            known = set(connection.scalars(text("SELECT datname FROM pg_database")))
            found = Connections(allowed, connections_needed(tasks))
            if found.needed > found.allowed:
                raise StackError(
                    f"{shown}: {found}; raise max_connections of the server, or lower "
                    "celery.concurrency or celery.hosts"
                )
            for name in (f"{settings.celery.database_prefix}_{each}" for each in DATABASES):
                if name not in known:
                    connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    except OperationalError as error:
        raise StackError(
            f"PostgreSQL at {shown} does not answer: {reason_of(error)}; start it, correct celery.database_url, or set "
            "PGPASSWORD"
        ) from None
    except ProgrammingError as error:
        raise StackError(
            f"PostgreSQL at {shown}: {reason_of(error)}; let the user create databases (ALTER ROLE ... CREATEDB), or "
            f"create them: {', '.join(f'{settings.celery.database_prefix}_{each}' for each in DATABASES)}"
        ) from None
    return found
