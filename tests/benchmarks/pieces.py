"""Pieces of a long benchmark, each kept once it is measured, so that a run that was ended goes on where it stopped.

A piece is kept below `var/bench/pieces/`, under a digest of the code that it measures: after a change of that code, all
of them are measured again.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_tasks.config import PROJECT
from mlops_tasks.files import read_json, write_json

FOLDER = PROJECT / "var" / "bench" / "pieces"


@dataclass(frozen=True)
class Pieces:
    """The pieces of one benchmark."""

    folder: Path

    @classmethod
    def of(cls, benchmark: str, code: Iterable[Path]) -> "Pieces":
        """Those measured with these files as they are now."""
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(code))).hexdigest()[:12]
        return cls(FOLDER / f"{benchmark}-{digest}")

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """A piece, JSON-able; it is measured now unless it is kept."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            started = time.perf_counter()
            found = measure()
            write_json(path, found)
            print(f"{path.parent.name}: {name} after {time.perf_counter() - started:.0f} s", file=sys.stderr)
        return read_json(path)
