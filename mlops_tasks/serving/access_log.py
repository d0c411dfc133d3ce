"""A line for each request with a valid key, a JSON object, in the service's log.

Strangers have none: they could fill a disk with theirs. The line has no query and no body: what was answered is in the
log of predictions, under the same request id.
"""

import logging
import sys
from datetime import UTC, datetime

from pydantic_core import to_json
from starlette.types import Scope

from mlops_tasks.config import ServingSettings
from mlops_tasks.serving.caller import SCOPE, Caller

log = logging.getLogger(__name__)

_MOST_PATH = 200
"""Characters of a path that are told."""


class AccessLog:
    """Writes the lines that the settings ask for."""

    def __init__(self, settings: ServingSettings) -> None:
        self.least = {"none": 1000, "errors": 400, "all": 0}[settings.access_log]
        """Status from which on there is a line."""

    def tell(self, scope: Scope, status: int) -> None:
        """One request that is over."""
        if status < self.least:
            return
        caller: Caller = scope[SCOPE]
        line = {
            "at": datetime.now(UTC),
            "request_id": caller.request_id,
            "key": caller.holder.name,
            "method": scope["method"],
            "path": scope["path"][:_MOST_PATH],
            "status": status,
            "ms": round(caller.seconds * 1000, 3),
        }
        log.info("%s", to_json(line).decode())


def write_lines_alone() -> None:
    """From now on the lines bear no level and no time but their own, so that each is JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.propagate = False
