"""What can be followed: `runs/<run id>`, `alerts`, `deployments` and `rollouts`, and where their events are read.

The numbers of a topic ascend in the order in which its events are recorded. Those of a run are 1, 2, 3, ..., the others
are the ids of rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from mlops_api.messages.alerts import AlertEvent
from mlops_api.messages.stream import DeploymentEvent, Message, RolloutEvent
from mlops_api.messages.training import Event
from mlops_tasks.config import Settings
from mlops_tasks.state.alerts.journal import events_after, newest_events
from mlops_tasks.state.deployments import deployments_after, newest_deployment_id
from mlops_tasks.state.rollouts import newest_rollout_step_id, rollout_steps_after
from mlops_tasks.state.tables import TrainingEvent
from mlops_tasks.state.training_runs import find_training_run, new_training_events, newest_training_event
from mlops_tasks.training.events import read_events

RUN = "runs/"
RUNS_AT_ONCE = 200
"""Runs that one query asks for: databases bound the depth of a condition."""


@dataclass(frozen=True)
class Head:
    """Where a topic is."""

    sequence: int
    ended: bool = False
    """Whether that event is the last one there will ever be."""


@dataclass(frozen=True)
class Table:
    """Events that are the rows of a table."""

    newest: Callable[[Settings], int]
    after: Callable[[Settings, int, int], Sequence[Any]]
    shape: type[BaseModel]

    def messages(self, settings: Settings, after: int, limit: int) -> list[Message]:
        """The rows above an id, in order."""
        rows = self.after(settings, after, limit)
        return [
            Message(row.id, False, self.shape.model_validate(row, from_attributes=True).model_dump_json())
            for row in rows
        ]


def _newest_alert(settings: Settings) -> int:
    newest = newest_events(settings, 1)
    return newest[0].id if newest else 0


TABLES: Mapping[str, Table] = {
    "alerts": Table(_newest_alert, events_after, AlertEvent),
    "deployments": Table(newest_deployment_id, deployments_after, DeploymentEvent),
    "rollouts": Table(newest_rollout_step_id, rollout_steps_after, RolloutEvent),
}


def head_of(settings: Settings, topic: str) -> Head | None:
    """Where a topic is now. None when there is no such topic."""
    if topic in TABLES:
        return Head(TABLES[topic].newest(settings))
    run_id = topic.removeprefix(RUN)
    if run_id == topic or find_training_run(settings, run_id) is None:
        return None
    newest = newest_training_event(settings, run_id)
    return Head(newest.sequence, newest.terminal) if newest else Head(0)


def page_of(settings: Settings, topic: str, after: int, limit: int) -> list[Message]:
    """Events of a topic above a number, in order."""
    if topic in TABLES:
        return TABLES[topic].messages(settings, after, limit)
    return [_message(event) for event in read_events(settings, topic.removeprefix(RUN), after, limit)]


def new_events(settings: Settings, heads: Mapping[str, int], limit: int) -> Iterator[tuple[str, list[Message]]]:
    """Events of several topics, each above its own number and in order; some of them where a query finds `limit`."""
    for name in TABLES.keys() & heads.keys():
        yield name, TABLES[name].messages(settings, heads[name], limit)
    runs = [(topic.removeprefix(RUN), head) for topic, head in heads.items() if topic.startswith(RUN)]
    for first in range(0, len(runs), RUNS_AT_ONCE):
        found: dict[str, list[Message]] = {}
        for event in new_training_events(settings, dict(runs[first : first + RUNS_AT_ONCE]), limit):
            found.setdefault(RUN + event.run_id, []).append(_message(event))
        yield from found.items()


def _message(event: TrainingEvent) -> Message:
    return Message(event.sequence, event.terminal, Event.of(event).model_dump_json())
