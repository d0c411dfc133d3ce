"""What the service tells Prometheus."""

from datetime import UTC, date, datetime, time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class ServiceMetrics:
    """The service's own registry of metrics, so that two apps in one process do not share any."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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
            "alphaops_model_info",
            "The model in service: always 1",
            ["version", "training_key", "slot", "standing"],
            registry=self.registry,
        )
        self.model_version = Gauge("alphaops_model_version", "Version in service, 0 while none", registry=self.registry)
        self.load_failures = Gauge(
            "alphaops_model_load_failures",
            "Failed looks at the champion alias since the start",
            registry=self.registry,
        )
        self.data_date = Gauge(
            "alphaops_data_date_seconds",
            "Newest date that is served, midnight UTC as Unix time, 0 while none",
            registry=self.registry,
        )
        self.vintage_date = Gauge(
            "alphaops_vintage_date_seconds",
            "Last date of the vintage in use, midnight UTC as Unix time, 0 while none",
            registry=self.registry,
        )
        self.connections = Gauge("alphaops_connections", "Open connections", registry=self.registry)
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
            "Logged answers of this process that the state database does not have yet",
            registry=self.registry,
        )
        self.prediction_disk = Gauge(
            "alphaops_prediction_disk_bytes",
            "What the logs of predictions take of the disk, those of other processes included",
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
        self.switches = Gauge("alphaops_model_switches", "Model switches since the start", registry=self.registry)

    def set_dates(self, served: date | None, vintage: date | None) -> None:
        """How new the data are."""
        self.data_date.set(_unix_seconds(served))
        self.vintage_date.set(_unix_seconds(vintage))

    def render(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


def _unix_seconds(day: date | None) -> float:
    return 0.0 if day is None else datetime.combine(day, time(), UTC).timestamp()
