"""The broker of the profile `celery`: whether it answers, and which workers do."""

import socket
from typing import Any

from sqlalchemy import make_url

from mlops_tasks.config import Settings
from mlops_tasks.errors import StackError

_WAIT_S = 2.0
"""How long workers may take to answer."""


def host_name(worker: str) -> str:
    """The name under which a worker of this machine answers."""
    return f"{worker}@{socket.gethostname()}"


def check_broker(settings: Settings) -> None:
    """Refuse to start without a broker.

    Raises
    ------
    StackError
        None is named, or it does not answer.
    """
    if not settings.celery.broker_url:
        raise StackError(
            "the profile celery needs a broker: set celery.broker_url in settings.yaml, e.g. "
            "redis://127.0.0.1:6379/0 or amqp://guest@127.0.0.1:5672//"
        )
    try:
        with _application(settings).connection_for_write(connect_timeout=5) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.2)
    except Exception as error:  # each transport has errors of its own
        shown = make_url(settings.celery.broker_url).render_as_string(hide_password=True)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StackError(
            f"the broker at {shown} does not answer: {reason}; start it, or correct celery.broker_url"
        ) from None


def living_workers(settings: Settings) -> set[str]:
    """Names of the workers that answer within two seconds; none if the broker does not answer."""
    try:
        answers = _application(settings).control.ping(timeout=_WAIT_S)
    except Exception:  # each transport has errors of its own; check_broker tells which
        return set()
    return {name for answer in answers or () for name in answer}


def _application(settings: Settings) -> Any:
    from celery import Celery  # a third of a second, for who uses it

    made = Celery(
        "airflow.providers.celery.executors.celery_executor", broker=settings.celery.broker_url, set_as_current=False
    )
    made.conf.update(broker_connection_timeout=5, broker_transport_options={"socket_connect_timeout": 5})
    return made
