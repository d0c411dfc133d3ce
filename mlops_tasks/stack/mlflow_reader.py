"""MLflow's account for people: it can read everything and change nothing (`registry/mlflow_access.py`)."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping

from mlops_tasks.config import Settings
from mlops_tasks.errors import StackError
from mlops_tasks.stack.credentials import ADMIN, MLFLOW_READER, Credentials
from mlops_tasks.stack.environment import mlflow_url
from mlops_tasks.stack.health import Reply, basic_authorization, get

_USERS = "/api/2.0/mlflow/users"


def ensure_reader(settings: Settings, credentials: Credentials) -> None:
    """Create the account, or reset its password and rights to what they should be; harmless if they are.

    Raises
    ------
    StackError
        MLflow refuses.
    """
    own = basic_authorization(MLFLOW_READER, credentials.mlflow_reader_password)
    reply = get(f"{mlflow_url(settings)}{_USERS}/current", own)
    if reply.status == 200 and json.loads(reply.body)["user"]["is_admin"] is False:
        return
    admin = basic_authorization(ADMIN, credentials.mlflow_password)
    login = {"username": MLFLOW_READER, "password": credentials.mlflow_reader_password}
    made = _send(settings, "POST", "create", login, admin)
    if made.status == 400 and "RESOURCE_ALREADY_EXISTS" in made.body:
        made = _send(settings, "PATCH", "update-password", login, admin)
        if made.status == 200:
            made = _send(settings, "PATCH", "update-admin", {"username": MLFLOW_READER, "is_admin": False}, admin)
    if made.status != 200:
        raise StackError(
            f"MLflow's account {MLFLOW_READER} could not be created: HTTP {made.status}: {made.body[:300]}; see its log"
        )


def _send(settings: Settings, method: str, what: str, body: Mapping[str, object], headers: Mapping[str, str]) -> Reply:
    request = urllib.request.Request(  # noqa: S310 - our own http address
        f"{mlflow_url(settings)}{_USERS}/{what}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **headers},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return Reply(answer.status, answer.read().decode(errors="replace"))
    except urllib.error.HTTPError as error:
        return Reply(error.code, error.read().decode(errors="replace"))
    except OSError as error:
        return Reply(0, str(error))
