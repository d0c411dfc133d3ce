"""What is said on the event stream, by both sides; each message is one JSON object."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

LONGEST_ASKED = 2000
"""Characters of a message that a client may send."""
FRAME_CHARACTERS = 256 * 1024
"""A message with events is not made longer, unless a single event is."""

Topic = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00]+$")]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    topic: Topic


class Subscribe(_Asked):
    """Send the events of a topic above a number, and new ones as they are recorded."""

    type: Literal["subscribe"]
    after: int = Field(0, ge=0, le=2**63 - 1)


class Unsubscribe(_Asked):
    """Send no more of a topic."""

    type: Literal["unsubscribe"]


ASKED: TypeAdapter[Subscribe | Unsubscribe] = TypeAdapter(
    Annotated[Subscribe | Unsubscribe, Field(discriminator="type")]
)


class DeploymentEvent(BaseModel):
    """One step of a deployment."""

    id: int
    model_version: int
    training_key: str
    data_version: str
    strategy: str
    state: str
    reason: str
    proven_version: int | None
    attempt: str
    at: datetime


class RolloutEvent(BaseModel):
    """One step of a rollout."""

    id: int
    rollout_id: str
    sequence: int
    model_version: int
    champion_version: int | None
    strategy: str
    state: str
    step: int
    reason: str
    asked_by: str
    at: datetime


@dataclass(frozen=True)
class Message:
    """An event as it is sent."""

    sequence: int
    terminal: bool
    text: str


@dataclass(frozen=True)
class Frame:
    """Consecutive events of a topic in one text."""

    last: int
    """Number of the newest one."""
    ended: bool
    text: str

    @classmethod
    def of(cls, topic: str, messages: Sequence[Message]) -> "Frame":
        """The first of these, as many as a frame holds."""
        taken, size = 0, 0
        for message in messages:
            size += len(message.text)
            if taken and size > FRAME_CHARACTERS:
                break
            taken += 1
        events = ",".join(message.text for message in messages[:taken])
        newest = messages[taken - 1]
        text = f'{{"type":"events","topic":{json.dumps(topic)},"last":{newest.sequence},"events":[{events}]}}'
        return cls(newest.sequence, newest.terminal, text)


def said(kind: str, topic: str | None = None, **about: Any) -> str:
    """A message about the stream itself."""
    return json.dumps({"type": kind, **({} if topic is None else {"topic": topic}), **about})
