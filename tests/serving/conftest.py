"""The registry's fixtures, and a running scoring service."""

import threading
import time
from collections.abc import Iterator

import pytest

from mlops_tasks.config import Settings
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.registry.models import load_version
from mlops_tasks.serving.app import create_app
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.server import make_server
from mlops_tasks.serving.service import ScoringService
from tests.registry.conftest import Operation, migrated_mlflow, operation, settings, vintage_template

__all__ = ["migrated_mlflow", "operation", "settings", "vintage_template"]


class RunningService:
    """A real server in a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        app = create_app(settings)
        self.scoring: ScoringService = app.state.service
        self.server = make_server(app, settings)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        until = time.monotonic() + 60
        while not self.server.started and time.monotonic() < until:
            time.sleep(0.01)
        assert self.server.started

    def stop(self) -> None:
        """End it, as a signal would."""
        self.server.should_exit = True
        self.thread.join(20)


@pytest.fixture
def service(operation: object, settings: Settings) -> Iterator[RunningService]:
    """The scoring service over the operation's home."""
    running = RunningService(settings)
    yield running
    running.stop()


@pytest.fixture
def client(service: RunningService, settings: Settings) -> Iterator[ScoringClient]:
    """A client of the running service."""
    with ScoringClient(settings) as made:
        yield made


def scores_here(operation: Operation, version: int, day: str = "2020-06-30") -> dict[str, float]:
    """Scores of a day from the artefact, by instrument."""
    features = FeatureStore(operation.settings).load(operation.feature_version, start=day, end=day)
    scores = load_version(operation.settings, version).artefact.predict(features.droplevel("datetime"))
    return {str(name): float(score) for name, score in scores.items()}
