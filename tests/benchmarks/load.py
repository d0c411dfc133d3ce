"""Requests over a few connections that stay open, each sent as soon as the one before is answered.

    python -m tests.benchmarks.load <port> <path> <connections> <seconds> <folder> '<headers as JSON>'

Every file of the folder is a body; a connection sends them in turn. The last line is the seconds of each answered
request and how many were not answered with 200, as JSON.
"""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlops_tasks.config import PROJECT

WARM_UP_S = 1.0


@dataclass(frozen=True)
class Load:
    """What clients saw that sent as fast as they were answered."""

    seconds: Sequence[float]
    """Of each answered request."""
    failed: int
    wall_s: float

    @property
    def requests_per_s(self) -> float:
        """Of all connections together."""
        return len(self.seconds) / self.wall_s

    def percentile_ms(self, share: float) -> float:
        """Of the latencies."""
        return float(np.percentile(self.seconds, share) * 1000)

    def summary(self) -> dict[str, float]:
        """For a benchmark's line."""
        return {
            "requests_per_s": round(self.requests_per_s, 1),
            "p50_ms": round(self.percentile_ms(50), 2),
            "p99_ms": round(self.percentile_ms(99), 2),
            "failed": self.failed,
        }


@dataclass(frozen=True)
class Target:
    """Where requests go."""

    port: int
    path: str
    headers: Mapping[str, str]


def load(target: Target, bodies: Sequence[bytes], seconds: float, folder: Path, connections: int = 4) -> Load:
    """Ask for so long, from a process of its own."""
    folder.mkdir()
    for number, body in enumerate(bodies):
        (folder / f"{number:04d}").write_bytes(body)
    headers = json.dumps(dict(target.headers))
    arguments = [str(target.port), target.path, str(connections), str(seconds), str(folder), headers]
    command = [sys.executable, "-m", __name__, *arguments]
    said = subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Load(**json.loads(said.splitlines()[-1]))


def _ask(target: Target, bodies: Sequence[bytes], until: float, found: list[tuple[float, float, int]]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=120)
    turn = 0
    while (began := time.perf_counter()) < until:
        connection.request("POST", target.path, bodies[turn % len(bodies)], dict(target.headers))
        answer = connection.getresponse()
        answer.read()
        found.append((began, time.perf_counter() - began, answer.status))
        turn += 1


def main(arguments: Sequence[str]) -> None:
    """Warm up, ask, and print."""
    port, path, connections, seconds, folder, headers = arguments
    target = Target(int(port), path, json.loads(headers))
    bodies = [file.read_bytes() for file in sorted(Path(folder).iterdir())]
    found: list[tuple[float, float, int]] = []
    begin = time.perf_counter() + WARM_UP_S
    turned = [bodies[number :: int(connections)] or bodies for number in range(int(connections))]
    threads = [threading.Thread(target=_ask, args=(target, own, begin + float(seconds), found)) for own in turned]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counted = [each for each in found if each[0] >= begin]
    wall_s = max(began + took for began, took, _ in counted) - begin
    good = [took for _, took, status in counted if status == 200]
    print("\n" + json.dumps({"seconds": good, "failed": len(counted) - len(good), "wall_s": wall_s}))


if __name__ == "__main__":
    main(sys.argv[1:])
