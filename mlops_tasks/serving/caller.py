"""Who asks, by which request, since when: what the guard knows of a request, and those behind it need."""

import re
import time
from dataclasses import dataclass, field
from uuid import uuid4

from mlops_tasks.serving.keys import Holder

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
REQUEST_ID = b"x-request-id"
SCOPE = "caller"
"""Its key in the scope of a request."""


@dataclass(frozen=True)
class Caller:
    """Of one request."""

    holder: Holder
    request_id: str
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since the request's headers."""
        return time.perf_counter() - self.started


def request_id(given: bytes | None) -> str:
    """The client's own, where it is one of up to 64 letters, digits and `._:-`; else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return uuid4().hex
