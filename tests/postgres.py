"""The databases that tests use: SQLite, and the PostgreSQL server, or one of their own that they stop."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mlops_tasks.config import Settings
from tests.operation import free_ports

DATABASES = ("sqlite", "postgresql")


@contextmanager
def settings_on(database: str, home: Path, **changes: Any) -> Iterator[Settings]:
    """Settings of an empty state database of its own, on one of `DATABASES`."""
    if database == "sqlite":
        yield Settings(home=home, **changes)
        return
    with postgres_schema() as address:
        yield Settings(home=home, state_url=address, **changes)


@contextmanager
def postgres_schema() -> Iterator[str]:
    """SQLAlchemy address of an empty schema of the configured server, or of a local one that lets us in; it is dropped
    at the end. Without a server the test is skipped."""
    url = _reachable()
    schema = f"mlops_{uuid.uuid4().hex[:12]}"
    admin = sa.create_engine(url, poolclass=sa.NullPool)
    with admin.begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema))
    joiner = "&" if "?" in url else "?"
    yield f"{url}{joiner}options=-csearch_path%3D{schema}"
    with admin.begin() as connection:
        connection.execute(sa.schema.DropSchema(schema, cascade=True))


def _reachable() -> str:
    configured = os.environ.get("MLOPS_TEST_POSTGRES")
    url = configured or "postgresql+psycopg2://postgres@127.0.0.1:5432/test"
    try:
        with sa.create_engine(url, connect_args={"connect_timeout": 2}).connect():
            return url
    except sa.exc.OperationalError:
        if configured:
            raise
    return pytest.skip("no PostgreSQL server answers; set MLOPS_TEST_POSTGRES")


@dataclass(frozen=True)
class OwnPostgres:
    """A server that a test stops and starts."""

    folder: Path
    port: int
    programs: Path
    user: str | None
    """Who runs it: root may not."""
    address: str = "127.0.0.1"

    @property
    def url(self) -> str:
        """SQLAlchemy address of its database."""
        return f"postgresql+psycopg2://postgres@{self.address}:{self.port}/postgres"

    def make(self) -> None:
        """An empty cluster; whoever reaches it is let in."""
        self._run("initdb", "--username=postgres", "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8")
        with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {self.address}/24 trust\n")

    def start(self) -> None:
        """Returns once it answers."""
        options = (
            f"-p {self.port} -c listen_addresses={self.address} -c unix_socket_directories='' -c max_connections=100"
        )
        self._run("pg_ctl", "start", "-w", "-s", "-o", options, "-l", str(self.folder / "log"))

    def stop(self, mode: str = "immediate") -> None:
        """`immediate`: as by a crash, in the middle of whatever it does."""
        self._run("pg_ctl", "stop", "-w", "-s", "-m", mode)

    def _run(self, program: str, *options: str) -> None:
        command = [str(self.programs / program), "-D", str(self.folder / "data"), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, user=self.user)


@contextmanager
def own_postgres(address: str = "127.0.0.1") -> Iterator[OwnPostgres]:
    """A server of that address that runs, with an empty database. Without PostgreSQL's programs the test is skipped."""
    found = [Path(at).resolve().parent for at in (shutil.which("initdb"),) if at]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if not found:
        pytest.skip("PostgreSQL's programs are not installed")
    folder = Path(tempfile.mkdtemp(prefix="alphaops_postgres_"))
    user = None
    if os.getuid() == 0:
        user = next(name for name in ("postgres", "nobody") if name in {each.pw_name for each in pwd.getpwall()})
        shutil.chown(folder, user)
    server = OwnPostgres(folder, free_ports(1)[0], found[0], user, address)
    try:
        server.make()
        server.start()
        yield server
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            server.stop()
        shutil.rmtree(folder)
