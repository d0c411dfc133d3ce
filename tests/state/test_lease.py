"""The lease that dies with its owner, on SQLite and on PostgreSQL."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_tasks.config import Settings
from mlops_tasks.errors import StoreError
from mlops_tasks.state.lease import lease
from tests import programs
from tests.postgres import DATABASES, settings_on


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty database of its own."""
    with settings_on(request.param, tmp_path) as made:
        yield made


OWNER = """
import sys, time
from pathlib import Path
from mlops_tasks.config import Settings
from mlops_tasks.state.lease import lease

with lease(Settings(home=Path(sys.argv[1]), state_url=sys.argv[2]), "deployment") as taken:
    print(taken, flush=True)
    time.sleep(600)
"""


def is_free(settings: Settings, name: str = "deployment") -> bool:
    with lease(settings, name) as taken:
        return taken


def test_a_lease_has_one_owner_and_is_free_when_that_is_killed(settings: Settings) -> None:
    """Nobody waits and nobody else has it, until its owner ends, by SIGKILL too."""
    owner = programs.start(OWNER, settings.home, settings.state_database)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "True\n"
    assert not is_free(settings)
    assert is_free(settings, "another")
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert any(is_free(settings) for _ in range(200))


def test_two_of_one_process_are_two(settings: Settings) -> None:
    """A thread of the owner's process does not have what the owner has."""
    with lease(settings, "deployment") as taken:
        assert taken
        assert not is_free(settings)
    assert is_free(settings)


def test_a_database_that_is_away_is_a_clear_error(tmp_path: Path) -> None:
    """Without the database nobody knows whether the lease is free."""
    away = Settings(home=tmp_path, state_url="postgresql+psycopg2://x@127.0.0.1:1/x")
    with pytest.raises(StoreError, match="does not answer"), lease(away, "deployment"):
        pass
