"""The scoring service under load while workers, database and disk fail, champions change and canaries are rejected.

Two workers, a PostgreSQL of its own, a small disk for the log of predictions, five clients with keys that ask again
where they are told to. Each round has, in random order: a worker killed; blue to green or back; a canary that breaks a
rule; the database crashed, a worker killed meanwhile, the database back; the disk full, a worker killed meanwhile, room
again. At the end database and disk are away at once, until answers cannot be logged. `ours`: p99 of all requests,
`peer`: of those before the first round. SOAK_S of the environment says how long the rounds take (120).

`failed`, `wrong`: requests without an answer, or whose scores are not exactly those of the version that it names.
`missing`, `doubled`: answers that the log lacks or has twice; `misnamed`: answers of which it names another version;
`unseen`: rows about answers that no client got, since their worker was killed, at most five per kill. `dropped` answers
could not be logged in the rounds; at the end `not_logged` could not, which `missing` and, by the log's own numbers,
`lost` confirm.
"""

import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.outages import stage
from tests.benchmarks.soak import peak_memory

COUNT = 150
"""Requests answered in each state."""


def run() -> dict[str, Any]:
    """Quiet, then rounds until the time is over, then the end."""
    lasts_s, chance, rounds = float(os.environ.get("SOAK_S", "120")), random.Random(1), 0
    with (
        tempfile.TemporaryDirectory() as home,
        stage(Path(home)) as service,
        peak_memory(service.supervisor.pid) as peak,
    ):
        service.answer(1000)
        quiet = list(service.seen.seconds)
        events = [service.lose_a_worker, service.switch, service.reject_a_canary]
        events += [service.lose_the_database, service.fill_the_disk]
        until = time.monotonic() + lasts_s
        while time.monotonic() < until:
            for event in chance.sample(events, len(events)):
                event(COUNT)
            rounds += 1
        dropped, requests = service.metrics()["alphaops_predictions_dropped_total"], len(service.seen.answered)
        not_logged = service.lose_both()
        found, seen = service.log(not_logged), service.seen
    ours, peer = (float(np.percentile(each, 99) * 1000) for each in (seen.seconds[:requests], quiet))
    return {
        "name": "scoring_outages",
        "ours": round(ours, 1),
        "peer": round(peer, 1),
        "unit": "ms",
        "ratio": round(peer / ours, 3),
        "rounds": rounds,
        "kills": service.kills,
        "requests": requests,
        "slowest_s": round(max(seen.seconds), 1),
        "failed": len(seen.failed),
        "wrong": len(seen.wrong),
        "dropped": int(dropped),
        "not_logged": not_logged,
        **vars(found),
        "peak_mb": round(peak[0]),
    }
