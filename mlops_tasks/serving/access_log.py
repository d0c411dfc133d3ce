"""The access log: one JSON object in the service's log for each request with a valid key.

Strangers have none: they could fill a disk with theirs. Nor has a request that came too often (429), and a key has
`LINES_A_SECOND` at most, of each of several workers an equal part: a further line says how many more there would have
been. A line has no query and no body: what was answered is in the log of predictions, under the same request id.
"""

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from pydantic_core import to_json
from starlette.types import Scope

from mlops_tasks.config import ServingSettings
from mlops_tasks.serving.caller import SCOPE, Caller

log = logging.getLogger(__name__)

LINES_A_SECOND = 20
_MOST_PATH = 200
"""Characters of a path that are logged."""


class AccessLog:
    """Writes the lines that the settings select."""

    def __init__(self, settings: ServingSettings, clock: Callable[[], float] = time.time) -> None:
        self.least = {"none": 1000, "errors": 400, "all": 0}[settings.access_log]
        """Status from which on there is a line."""
        self.lines = max(1, LINES_A_SECOND // settings.workers)
        self._clock = clock
        self._second = 0
        self._lines: Counter[str] = Counter()
        """Lines in the current second, by key."""

    def tell(self, scope: Scope, status: int) -> None:
        """Log one finished request."""
        if status < self.least or status == 429:
            return
        caller: Caller = scope[SCOPE]
        moment = self._clock()
        if int(moment) != self._second:
            self._tell_suppressed()
            self._second = int(moment)
        self._lines[caller.holder.name] += 1
        if self._lines[caller.holder.name] > self.lines:
            return
        line = {
            "at": datetime.fromtimestamp(moment, UTC),
            "request_id": caller.request_id,
            "key": caller.holder.name,
            "method": scope["method"],
            "path": scope["path"][:_MOST_PATH],
            "status": status,
            "ms": round(caller.seconds * 1000, 3),
        }
        log.info("%s", to_json(line).decode())

    def _tell_suppressed(self) -> None:
        for name, count in self._lines.items():
            if count > self.lines:
                at = datetime.fromtimestamp(self._second, UTC)
                log.info("%s", to_json({"at": at, "key": name, "suppressed": count - self.lines}).decode())
        self._lines.clear()


def write_lines_alone() -> None:
    """Remove level and time from the lines from now on, so that each is JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.propagate = False
