"""What may go wrong in the middle of a deployment, fault by fault: where it is found, and what is left of it."""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlops_tasks.config import Settings
from mlops_tasks.errors import DeploymentError
from mlops_tasks.registry.client import CHAMPION
from mlops_tasks.registry.lifecycle import STATE_TAG, ModelLifecycleManager
from mlops_tasks.registry.models import claim_of, get_alias_version, set_alias, set_tags
from mlops_tasks.serving import deployment
from mlops_tasks.serving.client import ScoringClient, ScoringServiceError
from mlops_tasks.serving.deployment import deploy_blue_green, roll_back, withdraw_model
from mlops_tasks.serving.proof import Proof
from mlops_tasks.serving.reconciliation import LEASE, following, put_right, reconcile
from mlops_tasks.stage_results import ServiceProbe
from mlops_tasks.state.deployments import last_step, record_deployment, settle_attempt
from mlops_tasks.state.lease import lease
from mlops_tasks.state.tables import Deployment
from mlops_tasks.states import DeploymentState
from tests.operation import make_champion, without_state_database
from tests.registry.conftest import migrated_mlflow, new_home, new_operation, vintage_template
from tests.registry.trainings import Spec
from tests.security.test_deployment import history, kinds
from tests.serving.conftest import RunningService

__all__ = ["migrated_mlflow", "vintage_template"]


@dataclass(frozen=True)
class Desk:
    """A champion, a candidate that may serve, and the client of a service that looks at the alias when it is told to,
    and at no other time. Each test leaves the champion in service."""

    settings: Settings
    champion: int
    candidate: int
    client: ScoringClient

    def step(self, version: int, state: DeploymentState, **known: object) -> Deployment:
        """Record a step of a version's deployment."""
        claim = claim_of(self.settings, version)
        about = {"training_key": claim.training_key, "artefact_digest": claim.digest, "data_version": "d"} | known
        row = Deployment(model_version=version, state=state, strategy="blue_green", attempt=state + "1", **about)
        record_deployment(self.settings, row)
        return row


@pytest.fixture(scope="module")
def desk(
    tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path, vintage_template: tuple[Path, str, str]
) -> Iterator[Desk]:
    """One for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        made = new_operation(new_home(tmp_path_factory.mktemp("home"), migrated_mlflow, patch), vintage_template)
        champion, candidate = (made.register(Spec(key=letter * 16, seed=n)) for n, letter in enumerate("ab", 1))
        make_champion(made.settings, champion)
        serving = made.settings.serving.model_copy(update={"poll_s": 3600.0})
        service = RunningService(made.settings.model_copy(update={"serving": serving}))
        with ScoringClient(made.settings) as client:
            client.refresh()
            yield Desk(made.settings, champion, candidate, client)
        service.stop()


def failing(error: BaseException) -> Callable[..., None]:
    """A function that does nothing but fail."""

    def fail(*given: object) -> None:
        raise error

    return fail


def test_an_interrupt_is_undone_before_it_is_passed_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the service has the candidate under proof: alias, record and service are back at the champion."""
    before = history(desk.settings)

    def interrupted(proof: Proof) -> None:
        assert proof.client.refresh()["model_version"] == desk.candidate
        raise KeyboardInterrupt

    monkeypatch.setattr(Proof, "of_service", interrupted)
    with pytest.raises(KeyboardInterrupt):
        deploy_blue_green(desk.settings, desk.candidate)
    assert get_alias_version(desk.settings, CHAMPION) == desk.client.health()["model_version"] == desk.champion
    assert history(desk.settings) == [*before, (desk.candidate, "started"), (desk.candidate, "rolled_back")]


def test_a_service_that_goes_away_in_the_proof_is_the_error_that_is_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it can not be told of the way back either."""
    monkeypatch.setattr(ScoringClient, "refresh", failing(ScoringServiceError("it does not answer")))
    with pytest.raises(DeploymentError, match=f"rolled back, champion is again {desk.champion}: it does not answer"):
        deploy_blue_green(desk.settings, desk.candidate)


def test_a_deployment_that_somebody_has_ended_meanwhile_has_failed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease was lost, so another process has undone it between the proof and the record."""
    prove = Proof.of_service

    def ended_by_another(proof: Proof) -> ServiceProbe:
        found = prove(proof)
        put_right(desk.settings)
        return found

    monkeypatch.setattr(Proof, "of_service", ended_by_another)
    with pytest.raises(DeploymentError, match="because its lease was lost"):
        deploy_blue_green(desk.settings, desk.candidate)
    assert history(desk.settings)[-2:] == [(desk.candidate, "rolled_back"), (desk.candidate, "failed")]
    assert desk.client.health()["model_version"] == desk.champion


def test_without_the_registry_the_way_back_is_left_to_the_next_look(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes away in the proof: the error names both troubles."""
    with monkeypatch.context() as patch:
        gone = failing(MlflowException("connection refused"))

        def proof(_: Proof) -> ServiceProbe:
            patch.setattr(MlflowClient, "get_model_version_by_alias", gone)
            raise DeploymentError("the service does not answer")

        patch.setattr(Proof, "of_service", proof)
        with pytest.raises(DeploymentError, match=r"and so did the rollback \(.*connection refused"):
            deploy_blue_green(desk.settings, desk.candidate)
    assert get_alias_version(desk.settings, CHAMPION) == desk.candidate
    assert desk.client.refresh()["model_version"] == get_alias_version(desk.settings, CHAMPION) == desk.champion


def test_an_intent_that_cannot_be_written_moves_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of a candidate, nor of a champion whose record is an older one, so that it has to be proven again."""
    full, settings = failing(OSError(errno.ENOSPC, "no space left on device")), desk.settings
    for version, said in ((desk.candidate, "was not deployed: OSError"), (desk.champion, "champion is again 1: OSE")):
        desk.step(desk.champion, DeploymentState.SERVING, artefact_digest="")
        before = history(settings)
        with monkeypatch.context() as patch, pytest.raises(DeploymentError, match=f"version {version} .*{said}"):
            patch.setattr(deployment, "record_deployment", full)
            deploy_blue_green(settings, version)
        assert history(settings) == before and get_alias_version(settings, CHAMPION) == desk.champion
    assert deploy_blue_green(settings, desk.champion)["deployed"]


def test_tags_are_for_those_who_look_at_mlflow(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where MLflow takes none, a proven champion serves on and a withdrawn version is withdrawn all the same."""
    set_tags(desk.settings, desk.champion, {STATE_TAG: "retired"})
    monkeypatch.setattr(MlflowClient, "set_model_version_tag", failing(MlflowException("the database is read-only")))
    assert deploy_blue_green(desk.settings, desk.champion)["deployed"]
    assert withdraw_model(desk.settings, desk.candidate, "its vendor was wrong").training_key == "b" * 16
    with pytest.raises(DeploymentError, match="may not serve"):
        deploy_blue_green(desk.settings, desk.candidate)


def test_nothing_is_withdrawn_beside_a_deployment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may be about to put the very version in service."""
    monkeypatch.setattr(deployment, "WAIT_S", 0.1)
    with lease(desk.settings, LEASE), pytest.raises(DeploymentError, match="another deployment is at work"):
        withdraw_model(desk.settings, desk.candidate, "its vendor was wrong")


def test_without_the_record_nothing_begins(desk: Desk) -> None:
    """Neither a deployment nor a rollback; each says so, though it cannot be recorded either."""
    with without_state_database(desk.settings):
        with pytest.raises(DeploymentError, match="was not deployed"):
            deploy_blue_green(desk.settings, desk.candidate)
        with pytest.raises(DeploymentError, match="the rollback has not begun"):
            roll_back(desk.settings)
    assert get_alias_version(desk.settings, CHAMPION) == desk.champion


def test_of_two_who_undo_the_first_one_tells(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two processes find the same killed deployment, since the lease was lost: it ends once, and is told once."""
    settings, restore = desk.settings, ModelLifecycleManager.restore
    start = desk.step(desk.candidate, DeploymentState.STARTED, proven_version=desk.champion)
    set_alias(settings, CHAMPION, desk.candidate)

    def beside_another(self: ModelLifecycleManager, champion: int | None) -> None:
        restore(self, champion)
        assert settle_attempt(settings, following(start, DeploymentState.ROLLED_BACK, champion))

    monkeypatch.setattr(ModelLifecycleManager, "restore", beside_another)
    assert reconcile(settings).champion == desk.champion
    assert history(settings)[-2:] == [(desk.candidate, "started"), (desk.candidate, "rolled_back")]
    assert "was undone" not in caplog.text


def test_an_older_record_is_brought_up_to_date_in_silence(desk: Desk) -> None:
    """An undone deployment that does not say which version it went back to: the alias is right, so nobody is told."""
    before = kinds(desk.settings)
    for state in (DeploymentState.STARTED, DeploymentState.ROLLED_BACK):
        desk.step(desk.candidate, state)
    assert [reconcile(desk.settings).champion for _ in range(2)] == [desk.champion] * 2
    last = last_step(desk.settings)
    assert last is not None and (last.state, last.proven_version) == ("restored", desk.champion)
    assert kinds(desk.settings) == before
