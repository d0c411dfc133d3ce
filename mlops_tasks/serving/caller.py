"""Who asks, by which request, since when: what the guard knows of a request, and those behind it need."""

import re
import time
from dataclasses import dataclass, field
from uuid import uuid4

from mlops_tasks.serving.keys import Holder

_NAME = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
REQUEST_ID = b"x-request-id"
UNIT = b"x-unit"
SCOPE = "caller"
"""Its key in the scope of a request."""


@dataclass(frozen=True)
class Caller:
    """Of one request."""

    holder: Holder
    request_id: str
    unit: str = ""
    """Which is answered by the same model all through a step of a rollout; empty: by the champion."""
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since the request's headers."""
        return time.perf_counter() - self.started


def request_id(given: bytes | None) -> str:
    """The client's own, where it is one of up to 64 letters, digits and `._:-`; else a new one."""
    if given is not None and _NAME.fullmatch(given):
        return given.decode()
    return uuid4().hex


def unit_of(holder: Holder, given: bytes | None) -> str:
    """What the client calls itself, where that is like a request id; else the name of its key.

    The operation's own token has none: stages and deployments speak to the champion.
    """
    if given is not None and _NAME.fullmatch(given):
        return f"unit {given.decode()}"
    return "" if holder.is_admin else f"key {holder.name}"
