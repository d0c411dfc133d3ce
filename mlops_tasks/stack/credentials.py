"""Secrets: made once, kept below `<home>/secrets` (0700, files 0600), never printed, never on a command line."""

import base64
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from mlops_tasks.config import Settings
from mlops_tasks.errors import StackError
from mlops_tasks.files import write_text

ADMIN = "admin"
"""The user name in Airflow and in MLflow."""


@dataclass(frozen=True)
class Credentials:
    """Every secret of one home; `repr` shows none of them."""

    airflow_password: str = field(repr=False)
    airflow_fernet_key: str = field(repr=False)
    airflow_jwt_secret: str = field(repr=False)
    airflow_secret_key: str = field(repr=False)
    mlflow_password: str = field(repr=False)
    mlflow_flask_key: str = field(repr=False)
    scoring_token: str = field(repr=False)


_MAKERS: Mapping[str, Callable[[], str]] = {
    "airflow_password": lambda: secrets.token_urlsafe(18),
    "airflow_fernet_key": lambda: base64.urlsafe_b64encode(os.urandom(32)).decode(),
    "airflow_jwt_secret": lambda: secrets.token_urlsafe(96),  # Airflow signs with HS512: 64 bytes or more
    "airflow_secret_key": lambda: secrets.token_urlsafe(48),
    "mlflow_password": lambda: secrets.token_urlsafe(18),
    "mlflow_flask_key": lambda: secrets.token_urlsafe(48),
    "scoring_token": lambda: secrets.token_urlsafe(32),
}


def ensure_credentials(settings: Settings) -> Credentials:
    """Read the secrets of `settings.home`; make those that are missing.

    Raises
    ------
    StackError
        A secret's file is empty, damaged or cannot be read; names it.
    """
    folder = private_folder(settings.secrets_dir)
    values = {item.name: _ensure(folder / item.name, _MAKERS[item.name]) for item in fields(Credentials)}
    credentials = Credentials(**values)
    users = {**_airflow_users(settings), ADMIN: credentials.airflow_password}
    _write_private(airflow_users_file(settings), json.dumps(users) + "\n")
    _write_private(mlflow_auth_file(settings), _mlflow_auth(settings))
    return credentials


def read_credentials(settings: Settings) -> Credentials:
    """The secrets that are there.

    Raises
    ------
    StackError
        One is missing: nothing was started from this home yet.
    """
    return Credentials(**{item.name: _read(settings.secrets_dir / item.name) for item in fields(Credentials)})


def airflow_users_file(settings: Settings) -> Path:
    """Where Airflow's SimpleAuthManager reads its passwords."""
    return settings.secrets_dir / "airflow_users.json"


def mlflow_auth_file(settings: Settings) -> Path:
    """The configuration of MLflow's basic-auth app."""
    return settings.secrets_dir / "mlflow_auth.ini"


def private_folder(folder: Path) -> Path:
    """Make `folder` readable by its owner only."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    return folder


def _airflow_users(settings: Settings) -> dict[str, str]:
    """The passwords of the accounts that are there, those that somebody added to Airflow's list of users among them."""
    path = airflow_users_file(settings)
    if not path.exists() or not path.read_text().strip():
        return {}
    try:
        users = json.loads(path.read_text())
    except ValueError:
        users = None
    if not isinstance(users, dict):
        raise StackError(f"{path}: no JSON object of names and passwords; correct it, or delete it for the admin alone")
    return users


def _ensure(path: Path, make: Callable[[], str]) -> str:
    if not path.exists():
        _write_private(path, make() + "\n")
    path.chmod(0o600)
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


def _write_private(path: Path, text: str) -> None:
    """Replace the file unless it holds `text`; temporary files are born with mode 0600, so `path` has it too."""
    if not path.exists() or path.read_text() != text:
        write_text(path, text)
    path.chmod(0o600)


def _mlflow_auth(settings: Settings) -> str:
    database = str(settings.home / "mlflow" / "auth.db").replace("%", "%%")
    return (
        "[mlflow]\n"
        "default_permission = READ\n"
        f"database_uri = sqlite:///{database}\n"
        f"admin_username = {ADMIN}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        # A password check costs 50 ms of PBKDF2; one login makes thousands of requests in a training.
        "auth_cache_ttl_seconds = 60\n"
    )
