"""Secrets: generated once, stored below `<home>/secrets` (0700, files 0600), never printed or put on a command line."""

import base64
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.errors import StackError
from mlops_tasks.private import private_folder
from mlops_tasks.secret_files import make_once, write_private
from mlops_tasks.signing import ensure_signing_key

ADMIN = "admin"
"""The user name in Airflow; in MLflow the account with which the stack itself writes."""
MLFLOW_READER = "reader"
"""The account with which people read MLflow."""
AUTHORIZATION = "mlops_tasks.registry.mlflow_access:authorize"
"""The function that decides who may do what in MLflow; MLflow's server imports it."""


@dataclass(frozen=True)
class Credentials:
    """Every secret of one home; `repr` shows none of them."""

    airflow_password: str = field(repr=False)
    airflow_fernet_key: str = field(repr=False)
    airflow_jwt_secret: str = field(repr=False)
    airflow_secret_key: str = field(repr=False)
    mlflow_password: str = field(repr=False)
    mlflow_reader_password: str = field(repr=False)
    mlflow_flask_key: str = field(repr=False)
    scoring_token: str = field(repr=False)


_MAKERS: Mapping[str, Callable[[], str]] = {
    "airflow_password": lambda: secrets.token_urlsafe(18),
    "airflow_fernet_key": lambda: base64.urlsafe_b64encode(os.urandom(32)).decode(),
    "airflow_jwt_secret": lambda: secrets.token_urlsafe(96),  # Airflow signs with HS512: at least 64 bytes
    "airflow_secret_key": lambda: secrets.token_urlsafe(48),
    "mlflow_password": lambda: secrets.token_urlsafe(18),
    "mlflow_reader_password": lambda: secrets.token_urlsafe(18),
    "mlflow_flask_key": lambda: secrets.token_urlsafe(48),
    "scoring_token": lambda: secrets.token_urlsafe(32),
}


def ensure_credentials(settings: Settings) -> Credentials:
    """Read the secrets of `settings.home`; generate those that are missing.

    The key that signs artefacts is generated too, but is not returned: only processes that train read it, from its
    file.

    Raises
    ------
    StackError, ConfigError
        The file of a secret is empty, damaged or unreadable; the message names it.
    """
    folder = private_folder(settings.secrets_dir)
    values = {item.name: _ensure(folder / item.name, _MAKERS[item.name]) for item in fields(Credentials)}
    credentials = Credentials(**values)
    ensure_signing_key(settings)
    users = {**_airflow_users(settings), ADMIN: credentials.airflow_password}
    write_private(airflow_users_file(settings), json.dumps(users) + "\n")
    write_private(mlflow_auth_file(settings), _mlflow_auth(settings))
    return credentials


def read_credentials(settings: Settings) -> Credentials:
    """The existing secrets.

    Raises
    ------
    StackError
        One is missing: the stack of this home was never started.
    """
    return Credentials(**{item.name: _read(settings.secrets_dir / item.name) for item in fields(Credentials)})


def airflow_users_file(settings: Settings) -> Path:
    """The file from which Airflow's SimpleAuthManager reads its passwords."""
    return settings.secrets_dir / "airflow_users.json"


def mlflow_auth_file(settings: Settings) -> Path:
    """The configuration of MLflow's basic-auth app."""
    return settings.secrets_dir / "mlflow_auth.ini"


def _airflow_users(settings: Settings) -> dict[str, str]:
    """The passwords of the existing accounts, including those that somebody added to Airflow's list of users."""
    path = airflow_users_file(settings)
    if not path.exists() or not path.read_text().strip():
        return {}
    try:
        users = json.loads(path.read_text())
    except ValueError:
        users = None
    if not isinstance(users, dict):
        raise StackError(
            f"{path}: not a JSON object of names and passwords; correct it, or delete it to keep only the admin"
        )
    return users


def _ensure(path: Path, make: Callable[[], str]) -> str:
    make_once(path, make)
    return _read(path)


def _read(path: Path) -> str:
    try:
        text = path.read_text().strip()
    except OSError as error:
        raise StackError(
            f"{path}: cannot read the secret ({error.strerror}); start the stack once with `make up`"
        ) from None
    if not text:
        raise StackError(f"{path}: the secret is empty; restore it from a backup, or delete the file for a new one")
    return text


def _mlflow_auth(settings: Settings) -> str:
    database = str(settings.home / "mlflow" / "auth.db").replace("%", "%%")
    return (
        "[mlflow]\n"
        "default_permission = READ\n"
        f"database_uri = sqlite:///{database}\n"
        f"admin_username = {ADMIN}\n"
        f"authorization_function = {AUTHORIZATION}\n"
        # A password check costs 50 ms of PBKDF2; one login makes thousands of requests in a training.
        "auth_cache_ttl_seconds = 60\n"
    )
