"""A hostile client with a valid token slows no honest one down and fills no memory; each answer is logged."""

import os

import pytest

from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.state.predictions import PredictionFilter, lost_predictions, prediction_counts
from tests.benchmarks.soak import ask_newest_day, peak_memory, running_service, under_attack
from tests.operation import make_champion
from tests.registry.conftest import Operation, migrated_mlflow, operation, settings, vintage_template
from tests.registry.trainings import DAYS, Spec
from tests.serving.test_requests import metrics_of

__all__ = ["migrated_mlflow", "operation", "settings", "vintage_template"]


def soak(operation: Operation, quiet_s: float, attack_s: float) -> None:
    """The service in a process of its own, as in operation; both clients at it."""
    make_champion(operation.settings, operation.register(Spec(key="a" * 16)))
    environ, days = dict(os.environ), [str(day.date()) for day in DAYS[60:-1]]
    with running_service(operation.settings, environ) as service, peak_memory(service.pid) as peak:
        quiet = ask_newest_day(operation.settings, quiet_s)
        attacked, counts = under_attack(operation.settings, environ, attack_s, days)
        with ScoringClient(operation.settings) as client:
            seen = metrics_of(client._http)
    assert (quiet.failed, attacked.failed) == ([], [])
    assert attacked.p99_ms < 5 * quiet.p99_ms + 150, "the slack is for machines that run other tests beside"
    assert peak[0] < 2000
    assert not [kind for kind in counts if kind.endswith(" 500")], counts
    assert {kind for kind in counts if kind.startswith("bad")} == {"bad 422"}
    logged = sum(each.answers for each in prediction_counts(operation.settings, PredictionFilter()))
    assert logged == seen['alphaops_requests_total{route="/v1/score",status="200"}']
    assert logged == seen["alphaops_predictions_logged_total"] > len(quiet.seconds) + len(attacked.seconds)
    assert lost_predictions(operation.settings) == seen["alphaops_predictions_dropped_total"] == 0


def test_an_honest_client_is_answered_beside_a_hostile_one(operation: Operation) -> None:
    """For a few seconds."""
    soak(operation, 1, 4)


@pytest.mark.slow
def test_an_honest_client_is_answered_beside_a_hostile_one_for_long(operation: Operation) -> None:
    """For two minutes."""
    soak(operation, 20, 120)
