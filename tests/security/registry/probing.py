"""A model that, where it is unpickled, tries what a stranger's code would try; its scores say what it could do."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

REFUSED, ALLOWED = 0.0, 1.0
DIE, PRINT, FLOOD = 7.0, 8.0, 9.0
"""Values of the first feature that let it end its process, print to where answers go, or take all memory."""


def probes(home: Path, owner: int) -> dict[str, Callable[[], Any]]:
    """What is tried; each raises where it is refused."""
    return {
        "read a secret": (home / "secrets" / "signing_key").read_text,
        "list the home": lambda: list(home.iterdir()),
        "read the state database": (home / "state" / "state.db").read_bytes,
        "read the owner's variables": Path(f"/proc/{owner}/environ").read_bytes,
        "read the machine's users": Path("/etc/passwd").read_text,
        "leave a file": lambda: Path("/tmp/mark-of-a-model").write_text("here"),
        "change its own artefact": lambda: Path(sys.argv[1]).open("w"),
        "reach the network": lambda: socket.create_connection(("127.0.0.1", 1), 1),
        "reach a socket file": lambda: socket.socket(socket.AF_UNIX),
        "end its owner": lambda: os.kill(owner, 0),
        "start a program": lambda: subprocess.run(["/bin/true"], check=True),
        "make a process": lambda: os.fork() or os._exit(0),
        "have a variable of its owner": lambda: os.environ["MLOPS_SCORING_TOKEN"],
    }


class Prober:
    """Tries everything when it is unpickled; row n scores whether probe n was allowed."""

    def __init__(self, home: Path, owner: int) -> None:
        self.home, self.owner = home, owner

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.found = []
        for probe in probes(state["home"], state["owner"]).values():
            try:
                probe()
            except (OSError, KeyError, subprocess.SubprocessError):
                self.found.append(REFUSED)
            else:
                self.found.append(ALLOWED)

    def predict(self, dataset: Any, segment: str) -> Any:
        """One number a row; the first feature may ask for mischief."""
        first = dataset.prepare(segment, col_set="feature").to_numpy()[:, 0]
        if first[0] == DIE:
            os._exit(3)
        if first[0] == FLOOD:
            np.ones(10**10).sum()
        if first[0] == PRINT:
            print("x" * 10_000, flush=True)
        return np.resize(np.array(self.found), len(first))
