"""What the service tells Prometheus.

The counts of several workers are summed. Each counts in files of its own, by which whoever takes its place goes on, so
that no count ever falls. A gauge says in `multiprocess_mode` what becomes of the values of the workers that are alive.
"""

import math
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
MODEL_INFO = "alphaops_model_info"
UNKNOWN = math.inf
"""Of a gauge whose smallest value counts: a worker that starts has not looked at it yet."""
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def count_for_worker(number: int, folder: Path) -> None:
    """From now on this process counts as one of several workers, whose files lie in a folder.

    Before its `ServiceMetrics` are made.
    """
    folder.mkdir(exist_ok=True)
    os.environ[_FOLDER] = str(folder)  # where the library looks for it
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]


def forget_gauges(number: int, folder: Path) -> None:
    """Of a worker that is no more."""
    mark_process_dead(number, str(folder))  # type: ignore[no-untyped-call]


def _files(folder: Path) -> Collector:
    """What all workers have counted."""
    found: Collector = MultiProcessCollector(None, str(folder))  # type: ignore[no-untyped-call]
    return found


class _Shown(Collector):
    """What is counted, without models that are in service no more, and what workers have not looked at yet.

    The files of workers keep every series.
    """

    def __init__(self, counted: Collector) -> None:
        self._counted = counted

    def collect(self) -> Iterator[Metric]:
        """All series."""
        for metric in self._counted.collect():
            if metric.name == MODEL_INFO:
                metric.samples = [each for each in metric.samples if each.value]
            metric.samples = [each for each in metric.samples if each.value != UNKNOWN]
            yield metric


class ServiceMetrics:
    """The service's own registry of metrics, so that two apps in one process do not share any.

    `folder` is where the workers' files lie; None: the process is alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        self._shown = _Shown(self.registry if folder is None else _files(folder))
        self.requests = Counter(
            "alphaops_requests", "Requests by route and status", ["route", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "alphaops_request_seconds",
            "Seconds from request to response",
            ["route"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.errors = Counter("alphaops_errors", "Responses with status 5xx", ["route"], registry=self.registry)
        self.scored_rows = Counter("alphaops_scored_rows", "Rows scored", registry=self.registry)
        self.model = Gauge(
            MODEL_INFO,
            "The model in service: always 1",
            ["version", "training_key", "slot", "standing"],
            multiprocess_mode="livemax",
            registry=self.registry,
        )
        self._model: Gauge | None = None
        """The series of the model in service."""
        self.model_version = Gauge(
            "alphaops_model_version",
            "Version in service, 0 while none; of several that workers serve for a moment the smallest",
            multiprocess_mode="livemin",
            registry=self.registry,
        )
        self.load_failures = Gauge(
            "alphaops_model_load_failures",
            "Failed looks at the champion alias since the start",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.data_date = Gauge(
            "alphaops_data_date_seconds",
            "Newest date that is served, midnight UTC as Unix time, 0 while none",
            multiprocess_mode="livemin",
            registry=self.registry,
        )
        self.vintage_date = Gauge(
            "alphaops_vintage_date_seconds",
            "Last date of the vintage in use, midnight UTC as Unix time, 0 while none",
            multiprocess_mode="livemin",
            registry=self.registry,
        )
        self.connections = Gauge(
            "alphaops_connections", "Open connections", multiprocess_mode="livesum", registry=self.registry
        )
        self.cut_connections = Counter(
            "alphaops_cut_connections",
            "Connections that the service ended: headers, body, idle, answer (out of time), crowded (too many), "
            "oversized (headers, or more than a body may have), malformed (no HTTP)",
            ["reason"],
            registry=self.registry,
        )
        self.busy = Counter(
            "alphaops_busy",
            "Requests refused because too many of their kind were in progress: large, features, cold_date, refresh",
            ["kind"],
            registry=self.registry,
        )
        self.predictions_logged = Counter(
            "alphaops_predictions_logged", "Answers that are in the log of predictions", registry=self.registry
        )
        self.predictions_dropped = Counter(
            "alphaops_predictions_dropped",
            "Answers that the log of predictions had no room for",
            registry=self.registry,
        )
        self.predictions_torn = Counter(
            "alphaops_predictions_torn",
            "Files of ended processes' logs of predictions with a torn end",
            registry=self.registry,
        )
        self.predictions_shipped = Counter(
            "alphaops_predictions_shipped",
            "Logged answers that were brought to the state database, those of ended processes included",
            registry=self.registry,
        )
        self.prediction_backlog = Gauge(
            "alphaops_prediction_backlog",
            "Logged answers that the state database does not have yet",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.prediction_disk = Gauge(
            "alphaops_prediction_disk_bytes",
            "What the logs of predictions take of the disk, those of other processes included",
            multiprocess_mode="livemax",
            registry=self.registry,
        )
        self.prediction_failures = Counter(
            "alphaops_prediction_ship_failures",
            "Times that the state database did not take logged answers",
            registry=self.registry,
        )
        self.state_database = Gauge(
            "alphaops_state_database_bytes",
            "What the state database takes of the disk, as it was seen within the last hour",
            multiprocess_mode="livemax",
            registry=self.registry,
        )
        self.key_requests = Counter(
            "alphaops_key_requests", "Requests by the name of the key", ["key"], registry=self.registry
        )
        self.limited = Counter(
            "alphaops_limited",
            "Requests refused because their key exceeded its rate",
            ["key"],
            registry=self.registry,
        )
        self.switches = Gauge(
            "alphaops_model_switches",
            "Model switches since the start",
            multiprocess_mode="livemax",
            registry=self.registry,
        )

        if folder is not None:
            for gauge in (self.model_version, self.data_date, self.vintage_date):
                gauge.set(UNKNOWN)

    def set_model(self, version: int, *labels: str) -> None:
        """Version, training key, slot and standing of the model in service; 0 and no more where there is none."""
        model = self.model.labels(str(version), *labels) if version else None
        if self._model not in (None, model):
            self._model.set(0)
        if model is not None:
            model.set(1)
        self._model = model
        self.model_version.set(version)

    def set_dates(self, served: date | None, vintage: date | None) -> None:
        """How new the data are."""
        self.data_date.set(_unix_seconds(served))
        self.vintage_date.set(_unix_seconds(vintage))

    def render(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._shown)


def _unix_seconds(day: date | None) -> float:
    return 0.0 if day is None else datetime.combine(day, time(), UTC).timestamp()
