"""Which environment variables hold secrets, and what is left of an environment for a process that needs few of them."""

import re
from collections.abc import Collection, Mapping

from mlops_tasks.config import ENV_PREFIX, WITHHELD

_AIRFLOWS = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_")
"""Airflow's configuration, connections and variables: keys, passwords and addresses with passwords."""
_NAMES = frozenset({"MLFLOW_TRACKING_USERNAME", "MLOPS_ALERTS__WEBHOOK_URL"})
_LIKE_A_SECRET = re.compile(
    r"(PASSWORD|PASSWD|PASSPHRASE|SQL_ALCHEMY_CONN)$|SECRET|(^|_)(PASS|TOKENS?|KEYS?|KEY_ID|DSN|CREDENTIALS?)$"
)
_ADDRESS_WITH_PASSWORD = re.compile(r"\w://[^/\s@:]*:[^\s@]+@|[?&](ssl)?password=", re.IGNORECASE)


def is_secret(name: str, value: str) -> bool:
    """Whether a variable holds a secret, by its name or because its value is an address with a password."""
    return (
        name in _NAMES
        or name.startswith(_AIRFLOWS)
        or _LIKE_A_SECRET.search(name.upper()) is not None
        or _ADDRESS_WITH_PASSWORD.search(value) is not None
    )


def without_secrets(
    environ: Mapping[str, str], given: Collection[str], also_secret: Collection[str] = ()
) -> dict[str, str]:
    """An environment without its secrets but those of the names `given`.

    Settings among what is left out are named in `MLOPS_WITHHELD`: whoever needs one all the same finds it unusable,
    instead of its default, which may be another database.

    Parameters
    ----------
    also_secret
        Names of further variables that hold a secret.
    """
    left_out = {
        name for name, value in environ.items() if name not in given and (name in also_secret or is_secret(name, value))
    }
    kept = {name: value for name, value in environ.items() if name not in left_out}
    settings = {name for name in left_out if name.startswith(ENV_PREFIX)}
    withheld = sorted(settings.union(environ.get(WITHHELD, "").split()))
    return {**kept, WITHHELD: " ".join(withheld)} if withheld else kept
