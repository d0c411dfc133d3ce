"""Secrets are made once, for their owner's eyes only."""

import base64
import configparser
import dataclasses
import json
import stat

import pytest

from mlops_tasks.config import Settings
from mlops_tasks.errors import StackError
from mlops_tasks.stack.credentials import airflow_users_file, ensure_credentials, mlflow_auth_file, read_credentials


def test_are_the_same_at_every_start(settings: Settings) -> None:
    """A second start makes nothing new, and what was read equals what was made."""
    first = ensure_credentials(settings)
    assert ensure_credentials(settings) == first == read_credentials(settings)


def test_differ_from_home_to_home(settings: Settings) -> None:
    """No secret of one home is one of another."""
    first = dataclasses.asdict(ensure_credentials(settings))
    other = dataclasses.asdict(ensure_credentials(Settings(home=settings.home / "other")))
    assert not set(first.values()) & set(other.values())
    assert len(set(first.values())) == len(first)


def test_only_the_owner_can_read_them(settings: Settings) -> None:
    """The folder is 0700 and each file 0600, also where somebody had opened them."""
    ensure_credentials(settings)
    settings.secrets_dir.chmod(0o755)
    for path in settings.secrets_dir.iterdir():
        path.chmod(0o644)
    ensure_credentials(settings)
    assert stat.S_IMODE(settings.secrets_dir.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in settings.secrets_dir.iterdir()} == {0o600}


def test_have_the_lengths_that_their_users_ask_for(settings: Settings) -> None:
    """Fernet takes 32 bytes, HS512 wants 64 or more, MLflow refuses passwords under 12 characters."""
    made = ensure_credentials(settings)
    assert len(base64.urlsafe_b64decode(made.airflow_fernet_key)) == 32
    assert len(made.airflow_jwt_secret) >= 64
    assert len(made.mlflow_password) >= 12


def test_are_never_shown(settings: Settings) -> None:
    """The repr of the secrets, which a log line may hold, has none of them."""
    made = ensure_credentials(settings)
    assert not any(secret in repr(made) for secret in dataclasses.asdict(made).values())


def test_reach_airflow_and_mlflow_in_their_own_files(settings: Settings) -> None:
    """Airflow's password file names the admin; MLflow's holds none, and survives a percent sign."""
    odd = Settings(home=settings.home / "50%")
    made = ensure_credentials(odd)
    assert json.loads(airflow_users_file(odd).read_text()) == {"admin": made.airflow_password}
    parser = configparser.ConfigParser()
    parser.read(mlflow_auth_file(odd))
    assert parser["mlflow"]["database_uri"] == f"sqlite:///{odd.home}/mlflow/auth.db"
    assert made.mlflow_password not in mlflow_auth_file(odd).read_text()


def test_an_empty_or_missing_secret_is_named(settings: Settings) -> None:
    """The message names the file and what to do."""
    with pytest.raises(StackError, match=r"airflow_password.*make up"):
        read_credentials(settings)
    ensure_credentials(settings)
    (settings.secrets_dir / "scoring_token").write_text("")
    with pytest.raises(StackError, match=r"scoring_token.*is empty; restore it"):
        ensure_credentials(settings)
