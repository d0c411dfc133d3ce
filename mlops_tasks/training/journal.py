"""Appending to the journal of a training run (`events.py`), which is all that the training process does with events."""

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class Journal:
    """Appends events to a run's journal; several processes may do so at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._complained = False

    def append(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Append one event, in one write. A full disk costs the event, never the training."""
        record = {"kind": kind, "at": time.time(), "payload": payload}
        try:
            line = json.dumps(record, allow_nan=False)
        except ValueError:
            line = json.dumps(_finite(record), allow_nan=False)
        try:
            # This ends a line that a kill or a full disk cut off; such a line is not an event.
            left = f"\n{line}\n".encode()
            while left:  # a disk that is nearly full takes a part, and then raises
                left = left[os.write(self._file, left) :]
        except OSError as error:
            if not self._complained:
                log.warning("%s: events are being lost: %s; free disk space", self.path, error)
            self._complained = True

    @property
    def silent_s(self) -> float:
        """Seconds since the last event, whoever appended it."""
        return time.time() - os.fstat(self._file).st_mtime

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
