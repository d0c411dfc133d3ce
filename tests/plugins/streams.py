"""The event stream as a client of the tests uses it, and rows that it tells of."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

from mlops_tasks.state.rollouts import Rollout, RolloutPlan
from mlops_tasks.state.tables import Deployment
from mlops_tasks.states import RolloutState, Strategy
from tests.plugins.api_server import Airflow

OPEN_S, ANSWER_S = 120, 60
_MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
WAITING = Rollout(
    "0123456789abcdef",
    2**20,
    "k",
    "d" * 64,
    Strategy.CANARY,
    RolloutPlan((0.1,), 60.0, 3600.0),
    RolloutState.WAITING,
    asked_at=_MONDAY,
    at=_MONDAY,
)


def deployment(state: str) -> Deployment:
    """A step of an attempt to deploy a version that nobody has."""
    return Deployment(
        model_version=2**20, training_key="k", data_version="v1", strategy="immediate", state=state, attempt="a"
    )


def address(airflow: Airflow) -> str:
    """Of the event stream."""
    return f"{airflow.url.replace('http', 'ws', 1)}/mlops/v1/stream"


def bearer(airflow: Airflow, user: str = "viewer") -> dict[str, str]:
    """A user's header."""
    return {"Authorization": f"Bearer {airflow.token(user)}"}


def run_topic(run_id: str) -> str:
    """The topic of a training run."""
    return f"runs/{run_id}"


class Stream:
    """An open stream. Heartbeats are skipped."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def ask(self, kind: str, topic: str, **about: Any) -> Self:
        """Send a message."""
        self.connection.send(json.dumps({"type": kind, "topic": topic, **about}))
        return self

    def subscribe(self, topic: str, after: int = 0) -> Self:
        """Subscribe, and wait until it is so."""
        self.ask("subscribe", topic, after=after)
        answer = self.message()
        assert (answer["type"], answer["topic"], answer["after"]) == ("subscribed", topic, after), answer
        return self

    def message(self) -> dict[str, Any]:
        """The next one."""
        while (message := json.loads(self.connection.recv(timeout=ANSWER_S)))["type"] == "heartbeat":
            pass
        found: dict[str, Any] = message
        return found

    def events(self, topic: str) -> Iterator[dict[str, Any]]:
        """Events of a topic up to its end; another message is an error."""
        while (message := self.message())["type"] == "events":
            assert message["topic"] == topic
            yield from message["events"]
        assert (message["type"], message["topic"]) == ("ended", topic)

    def take(self, topic: str, count: int) -> list[dict[str, Any]]:
        """So many events of a topic, and no more, in as many messages as they come in."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            message = self.message()
            assert (message["type"], message["topic"]) == ("events", topic), message
            found += message["events"]
        assert len(found) == count
        return found


@contextmanager
def open_stream(airflow: Airflow, user: str = "viewer", **headers: str) -> Iterator[Stream]:
    """A stream of a user's, or with these headers."""
    given = headers or bearer(airflow, user)
    with connect(address(airflow), additional_headers=given, open_timeout=OPEN_S) as connection:
        yield Stream(connection)
