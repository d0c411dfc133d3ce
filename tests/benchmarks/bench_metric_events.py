"""A million metric events are stored; then their sums, against SQLite's own GROUP BY over all events.

`seconds` and `peak_mb` are of the ingest, `grown_mb` how much memory the second half of it took beyond the first,
`assignment_s` the processor time to assign a million units, `assignment_wall_s` the time on the clock, both of the
quickest of three and without what the first call compiles; `equal`: the sums are those of SQLite, to the last digit.
"""

import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, select

from mlops_tasks.config import Settings
from mlops_tasks.experiments.lifecycle import history_of, running_traffic
from mlops_tasks.experiments.metric_events import ingest_events
from mlops_tasks.state.database import reading
from mlops_tasks.state.metric_events import DAY, metric_sums
from mlops_tasks.state.tables import MetricEvent
from mlops_tasks.states import ExperimentState
from tests.experiments.designs import running

EVENTS, UNITS, READS = 1_000_000, 20_000, 20


def run() -> dict[str, Any]:
    """Measure both."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder))
        running(settings)
        assignment, on_the_clock = _assignment(settings)
        first = next(step.at for step in history_of(settings, "orders") if step.state == ExperimentState.RUNNING)
        values = np.random.default_rng(1).normal(3, 10, EVENTS).round(9).tolist()

        def events(numbers: range) -> Iterator[dict[str, Any]]:
            for number in numbers:
                yield _event(number, values[number], first)

        began = time.perf_counter()
        told = ingest_events(settings, "orders", events(range(EVENTS // 2)))
        half = _peak_mb()
        again = ingest_events(settings, "orders", events(range(EVENTS // 2, EVENTS)))
        seconds = time.perf_counter() - began
        assert told.new + again.new == EVENTS
        ours, sums = _timed(lambda: _ours(settings))
        peer, scanned = _timed(lambda: _scanned(settings))
        return {
            "name": "metric_events",
            "ours": ours,
            "peer": peer,
            "unit": "ms",
            "ratio": round(peer / ours, 1),
            "equal": sums == scanned,
            "seconds": round(seconds, 1),
            "peak_mb": round(_peak_mb()),
            "grown_mb": round(_peak_mb() - half),
            "assignment_s": round(assignment, 2),
            "assignment_wall_s": round(on_the_clock, 2),
        }


def _assignment(settings: Settings) -> tuple[float, float]:
    """Processor time and time on the clock to assign a million units, in seconds."""
    traffic, units = running_traffic(settings), [f"account-{number}" for number in range(EVENTS)]
    traffic.assign("orders", units[:1])
    spent, passed = [], []
    for _ in range(3):
        began, clock = time.process_time(), time.perf_counter()
        traffic.assign("orders", units)
        spent.append(time.process_time() - began)
        passed.append(time.perf_counter() - clock)
    return min(spent), min(passed)


def _event(number: int, value: float, first: datetime) -> dict[str, Any]:
    at = (first + timedelta(microseconds=number)).isoformat()
    return {
        "event_id": str(number),
        "unit": f"account-{number % UNITS}",
        "metric": "cost_bps",
        "value": value,
        "at": at,
    }


def _timed(read: Any) -> tuple[float, Any]:
    """The median of `READS` readings in ms, and what was read."""
    times = []
    for _ in range(READS):
        began = time.perf_counter()
        found = read()
        times.append(1000 * (time.perf_counter() - began))
    return round(float(np.median(times)), 2), found


def _ours(settings: Settings) -> dict[tuple[str, str], tuple[int, int]]:
    return {key: (each.n, each.total) for key, each in metric_sums(settings, "orders", "cost_bps", DAY).items()}


def _scanned(settings: Settings) -> dict[tuple[str, str], tuple[int, int]]:
    columns = (MetricEvent.arm, MetricEvent.day, func.count(), func.sum(MetricEvent.value))
    wanted = (MetricEvent.experiment == "orders", MetricEvent.metric == "cost_bps", MetricEvent.counted)
    with reading(settings) as active:
        rows = active.execute(select(*columns).where(*wanted).group_by(MetricEvent.arm, MetricEvent.day)).all()
    return {(arm, day.isoformat()): (n, int(total)) for arm, day, n, total in rows}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
