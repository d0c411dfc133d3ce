"""A half-deployed champion, and hands on the alias: attempts at having an unproven version served."""

import signal
import threading
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlops_tasks.cli import main
from mlops_tasks.config import Settings
from mlops_tasks.errors import DeploymentError
from mlops_tasks.registry.client import CHAMPION, MODEL_NAME, connect
from mlops_tasks.registry.models import claim_of, delete_alias, get_alias_version, set_alias
from mlops_tasks.serving import deployment
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.deployment import deploy_blue_green, roll_back
from mlops_tasks.serving.reconciliation import LEASE, put_right, reconcile
from mlops_tasks.state.database import reading
from mlops_tasks.state.history import newest_alerts, record_deployment
from mlops_tasks.state.lease import lease
from mlops_tasks.state.tables import Deployment
from tests import programs
from tests.registry.conftest import Operation
from tests.registry.trainings import Spec
from tests.serving.conftest import (
    RunningService,
    client,
    migrated_mlflow,
    operation,
    service,
    settings,
    vintage_template,
)

__all__ = ["client", "migrated_mlflow", "operation", "service", "settings", "vintage_template"]

KILLED_AFTER_THE_MOVE = """
import os, signal, sys
from mlops_tasks.config import load_settings
from mlops_tasks.serving.deployment import deploy_blue_green
from tests.security.faults import Edges, Fault

class AfterTheMove(Edges):
    def cross(self, edge, do):
        result = do()
        if edge == "mlflow set_registered_model_alias":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

settings = load_settings()
AfterTheMove(Fault("", 0)).install(settings)
deploy_blue_green(settings, int(sys.argv[1]))
"""


@pytest.fixture
def versions(operation: Operation, client: ScoringClient) -> tuple[int, int]:
    """A champion that was deployed, and a challenger."""
    first = operation.register(Spec(key="a" * 16))
    deploy_blue_green(operation.settings, first)
    return first, operation.register(Spec(key="b" * 16, seed=2))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Deployments that wait for nobody."""
    monkeypatch.setattr(deployment, "WAIT_S", 0.2)
    yield


def history(settings: Settings) -> list[tuple[int, str]]:
    with reading(settings) as active:
        return [(row.model_version, row.state) for row in active.query(Deployment).order_by(Deployment.id)]


def kinds(settings: Settings) -> list[str]:
    return [alert.kind for alert in newest_alerts(settings, 10)][::-1]


def test_a_kill_after_the_move_and_a_retry_without_a_service(
    operation: Operation, service: RunningService, versions: tuple[int, int]
) -> None:
    """The alias names the proven version again, and the history has both attempts."""
    (first, second), settings = versions, operation.settings
    service.scoring.slots.follow = lambda: None  # type: ignore[method-assign]  # it answers, and looks at no alias
    assert programs.run(KILLED_AFTER_THE_MOVE, second).returncode == -signal.SIGKILL
    assert get_alias_version(settings, CHAMPION) == second
    service.stop()
    with pytest.raises(DeploymentError, match="was not deployed: the scoring service"):
        deploy_blue_green(settings, second)
    assert get_alias_version(settings, CHAMPION) == first
    assert history(settings)[2:] == [(second, "started"), (second, "rolled_back"), (second, "failed")]
    assert kinds(settings) == ["deployment_undone", "deployment_failed"]
    restarted = RunningService(settings)
    restarted.scoring.refresh()
    assert (restarted.scoring.health()["model_version"], restarted.scoring.health()["status"]) == (first, "ok")
    restarted.stop()


def test_a_living_deployment_is_not_undone_and_not_joined(
    operation: Operation, client: ScoringClient, versions: tuple[int, int], quick: None
) -> None:
    """While its lease is held the service serves what it proves and a second one is refused; then it is undone."""
    (first, second), settings = versions, operation.settings
    claim = claim_of(settings, second)
    bytes_of = {"training_key": claim.training_key, "artefact_digest": claim.digest}
    row = {**bytes_of, "data_version": "d", "strategy": "blue_green", "attempt": "mine"}
    with lease(settings, LEASE) as taken:
        assert taken
        record_deployment(settings, Deployment(model_version=second, state="started", proven_version=first, **row))
        set_alias(settings, CHAMPION, second)
        assert client.refresh()["model_version"] == second
        with pytest.raises(DeploymentError, match="another deployment is at work; wait for its end"):
            deploy_blue_green(settings, second)
        with pytest.raises(DeploymentError, match="another deployment is at work"):
            roll_back(settings, first)
        assert get_alias_version(settings, CHAMPION) == second
    assert client.refresh()["model_version"] == first
    assert get_alias_version(settings, CHAMPION) == first


def test_of_two_deployments_at_once_one_ends_after_the_other(
    operation: Operation, client: ScoringClient, versions: tuple[int, int]
) -> None:
    """Both end as if they had been alone, whoever was first."""
    (first, second), settings = versions, operation.settings
    both = [threading.Thread(target=deploy_blue_green, args=(settings, version)) for version in (first, second)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    champion = get_alias_version(settings, CHAMPION)
    assert history(settings)[-1] == (champion, "serving")
    assert client.refresh()["model_version"] == champion


def test_a_way_back_that_fails_is_told(
    operation: Operation,
    service: RunningService,
    client: ScoringClient,
    versions: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MLflow takes no more once the alias was moved: both alerts say so, and the first look that it takes mends it."""
    (first, second), settings = versions, operation.settings
    honest, move, moved = service.scoring._score_day, MlflowClient.set_registered_model_alias, list[str]()

    def move_once(self: MlflowClient, name: str, alias: str, version: str) -> None:
        if moved:
            raise MlflowException("the database is read-only")
        moved.append(version)
        move(self, name, alias, version)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", move_once)
        patch.setattr(service.scoring, "_score_day", lambda plan: honest(plan) + 1e-6)
        with pytest.raises(DeploymentError, match=r"failed \(.*differ by.*\), and so did the rollback \(.*read-only"):
            deploy_blue_green(settings, second)
        assert get_alias_version(settings, CHAMPION) == second
        with pytest.raises(DeploymentError, match="was not deployed: the alias champion could not be corrected"):
            deploy_blue_green(settings, second)
    assert kinds(settings)[:2] == ["champion_not_restored", "deployment_failed"]
    assert client.refresh()["model_version"] == get_alias_version(settings, CHAMPION) == first
    assert kinds(settings)[2:] == ["deployment_undone"]


def test_nobody_undoes_what_another_has_begun(
    operation: Operation, client: ScoringClient, versions: tuple[int, int]
) -> None:
    """A deployment that has lost its lease puts right its own attempt, and leaves one that has begun since alone."""
    (first, second), settings = versions, operation.settings
    claim = claim_of(settings, second)
    row = {"training_key": claim.training_key, "artefact_digest": claim.digest, "data_version": "d"}
    row |= {"strategy": "blue_green", "attempt": "the other's", "proven_version": first}
    with lease(settings, LEASE):
        record_deployment(settings, Deployment(model_version=second, state="started", **row))
        set_alias(settings, CHAMPION, second)
        assert put_right(settings, "mine", "its proof has failed").champion == second
        assert history(settings)[-1] == (second, "started") and get_alias_version(settings, CHAMPION) == second
        assert put_right(settings, "the other's", "its proof has failed").champion == first
    assert history(settings)[-1] == (second, "rolled_back") and get_alias_version(settings, CHAMPION) == first


@pytest.mark.parametrize("look", ["service", "status"])
def test_a_hand_on_the_alias_changes_nothing(
    operation: Operation, client: ScoringClient, versions: tuple[int, int], look: str
) -> None:
    """Whoever may write to MLflow moves the alias or removes it: it is put back, recorded, and told once."""
    (first, second), settings = versions, operation.settings
    service_looks = look == "service"
    for hand in (lambda: set_alias(settings, CHAMPION, second), lambda: delete_alias(settings, CHAMPION)) * 2:
        with lease(settings, LEASE):  # so that the service's own poll does not come first
            hand()
        if service_looks:
            assert client.refresh()["model_version"] == first
        else:
            assert main(["status", "--json"]) == 0
        assert get_alias_version(settings, CHAMPION) == first
    until = time.monotonic() + 20
    while len(history(settings)) < 6 and time.monotonic() < until:  # the alias is put back before that is recorded
        time.sleep(0.05)
    assert history(settings)[2:] == [(first, "restored")] * 4
    assert kinds(settings) == ["champion_restored"] * 2


def test_what_the_old_code_left_is_put_right(
    operation: Operation, client: ScoringClient, versions: tuple[int, int]
) -> None:
    """A record that says `failed` where an unproven version was left in service leads back to the champion."""
    (first, second), settings = versions, operation.settings
    row = {"model_version": second, "training_key": "k", "data_version": "d", "strategy": "blue_green"}
    with lease(settings, LEASE):
        set_alias(settings, CHAMPION, second)
        for state in ("started", "failed"):
            record_deployment(settings, Deployment(state=state, **row))
    assert client.refresh()["model_version"] == first
    assert get_alias_version(settings, CHAMPION) == first


def test_without_the_record_no_new_version_is_served(
    operation: Operation, service: RunningService, client: ScoringClient, versions: tuple[int, int]
) -> None:
    """While the state database is away the service goes on with what it has, says so, and adopts nothing."""
    (first, second), settings = versions, operation.settings
    away = Settings(home=settings.home, state_url="postgresql+psycopg2://x@127.0.0.1:1/x")
    service.scoring.slots.settings = away
    set_alias(settings, CHAMPION, second)
    health = client.refresh()
    assert (health["model_version"], health["status"]) == (first, "degraded")
    assert "does not answer" in health["errors"][0]
    service.scoring.slots.settings = settings
    assert client.refresh()["model_version"] == first


def test_a_version_that_is_gone_is_not_gone_back_to(
    operation: Operation, client: ScoringClient, versions: tuple[int, int]
) -> None:
    """Where the proven champion was deleted in MLflow, the newest other version that served takes its place."""
    (first, second), settings = versions, operation.settings
    deploy_blue_green(settings, second)
    with lease(settings, LEASE):
        connect(settings).delete_model_version(MODEL_NAME, str(second))
    assert client.refresh()["model_version"] == first
    assert reconcile(settings).champion == get_alias_version(settings, CHAMPION) == first


def test_the_history_of_deployments_cannot_be_changed(operation: Operation, versions: tuple[int, int]) -> None:
    """Also the columns that came later: the database refuses."""
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), reading(operation.settings) as active:
        active.execute(sa.text("UPDATE deployment SET proven_version = 2"))
