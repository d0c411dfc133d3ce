"""The record of deployments rules: hands on MLflow's tags and aliases, and what was withdrawn."""

from dataclasses import dataclass

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from mlops_tasks.cli import main
from mlops_tasks.config import Settings
from mlops_tasks.errors import DeploymentError, RegistryError
from mlops_tasks.experiments.tasks import compare_models_task
from mlops_tasks.monitoring.tasks import check_drift_task
from mlops_tasks.registry.approvals import approve_model, revocation_by_person
from mlops_tasks.registry.client import CHAMPION, MODEL_NAME, connect
from mlops_tasks.registry.models import claim_of, delete_alias, get_alias_version, load_version, set_alias, set_tags
from mlops_tasks.registry.tasks import gate_challenger_task
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.deployment import deploy_blue_green, roll_back
from mlops_tasks.serving.reconciliation import LEASE, reconcile
from mlops_tasks.serving.tasks import deploy_model_task, score_newest_date_task
from mlops_tasks.state.database import session
from mlops_tasks.state.deployments import record_deployment
from mlops_tasks.state.history import newest_alerts
from mlops_tasks.state.lease import lease
from mlops_tasks.state.tables import Deployment
from tests.operation import register_model
from tests.registry.conftest import Operation
from tests.registry.trainings import Spec
from tests.serving.conftest import RunningService


@dataclass(frozen=True)
class Desk:
    """An operation with three models that may serve: the first two were deployed, the second one is champion."""

    operation: Operation
    first: int
    champion: int
    other: int

    @property
    def settings(self) -> Settings:
        """Of the operation."""
        return self.operation.settings

    def disguise(self, version: int, model: int) -> None:
        """Give a version the tags of another one, as whoever may write to MLflow can."""
        claim = claim_of(self.settings, model)
        set_tags(self.settings, version, {"training_key": claim.training_key, "digest": claim.digest})


@pytest.fixture
def desk(operation: Operation, client: ScoringClient) -> Desk:
    """Deployed against a running service."""
    first, champion = (operation.register(Spec(key=key * 16, seed=seed)) for key, seed in (("a", 1), ("b", 2)))
    for version in (first, champion):
        deploy_blue_green(operation.settings, version)
    other = operation.register(Spec(key="n" * 16, skill=0.0, seed=3))
    load_version(operation.settings, other)  # its files are at hand: nothing but the record is in the way
    return Desk(operation, first, champion, other)


def kinds(settings: Settings) -> list[str]:
    return [alert.kind for alert in newest_alerts(settings, 10)]


def test_the_champions_number_does_not_stand_for_other_bytes(desk: Desk, client: ScoringClient) -> None:
    """Its tags are those of another model that may serve: the service keeps its model and tells it, a new one has none,
    no stage takes the other model for the champion, and the one before does not take its place."""
    settings, data = desk.settings, desk.operation.vintage.data_version
    before = client.score()
    desk.disguise(desk.champion, desk.other)
    health = client.refresh()
    assert (health["status"], health["model_version"]) == ("degraded", desk.champion)
    assert f"version {desk.champion} was deployed as training 'bbbb" in health["errors"][0]
    assert client.score() == before
    assert kinds(settings) == ["champion_refused"]

    challenger = desk.operation.register(Spec(key="c" * 16, seed=4))
    for taken in (
        lambda: score_newest_date_task(data_version=data),
        lambda: check_drift_task(data_version=data),
        lambda: compare_models_task(data_version=data),
        lambda: gate_challenger_task(challenger={"version": challenger}),
    ):
        with pytest.raises(RegistryError, match="somebody has changed its tags"):
            taken()
    with pytest.raises(DeploymentError, match="somebody has changed its tags"):
        deploy_blue_green(settings, desk.champion)
    with lease(settings, LEASE):
        set_alias(settings, CHAMPION, desk.first)
    assert reconcile(settings).champion == get_alias_version(settings, CHAMPION) == desk.champion


def test_a_new_service_serves_no_other_bytes_either(desk: Desk, service: RunningService) -> None:
    """It has no model in memory to go on with, so it has none; with the right tags it has the champion."""
    claim = claim_of(desk.settings, desk.champion)
    service.stop()
    desk.disguise(desk.champion, desk.other)
    restarted = RunningService(desk.settings)
    try:
        restarted.scoring.refresh()
        assert restarted.scoring.health()["status"] == "no_model"
        set_tags(desk.settings, desk.champion, {"training_key": claim.training_key, "digest": claim.digest})
        restarted.scoring.refresh()
        assert (restarted.scoring.health()["status"], restarted.scoring.health()["training_key"]) == ("ok", "b" * 16)
    finally:
        restarted.stop()


def test_what_the_gate_has_promoted_is_what_is_deployed(desk: Desk) -> None:
    """A version whose tags were changed between the gate and the deployment is not taken for the promoted one."""
    challenger = desk.operation.register(Spec(key="c" * 16, seed=4))
    gate = {"decision": "promote", "rule": "superiority", "version": challenger}
    gate |= {"training_key": "c" * 16, "digest": claim_of(desk.settings, challenger).digest}
    desk.disguise(challenger, desk.other)
    with pytest.raises(DeploymentError, match="the gate judged the artefact"):
        deploy_model_task(gate=gate, strategy="blue_green")
    assert get_alias_version(desk.settings, CHAMPION) == desk.champion


@pytest.mark.parametrize("hand", ["removed", "moved"])
def test_the_gate_takes_the_champion_from_the_record(
    operation: Operation, client: ScoringClient, monkeypatch: pytest.MonkeyPatch, hand: str
) -> None:
    """Without the alias, or with it on a weak model, a challenger without skill is compared with the champion still."""
    monkeypatch.setenv("MLOPS_GATE__LOOKS", "daily")
    settings = operation.settings
    champion = operation.register(Spec(key="b" * 16))
    deploy_blue_green(settings, champion)
    weak = operation.register(Spec(key="n" * 16, skill=0.0, seed=3))
    with lease(settings, LEASE):  # so that nobody puts the alias back meanwhile
        delete_alias(settings, CHAMPION) if hand == "removed" else set_alias(settings, CHAMPION, weak)
        challenger = operation.register(Spec(key="c" * 16, skill=0.0, seed=4))
        decision = gate_challenger_task(challenger={"version": challenger})
    assert (decision["decision"], decision["rule"]) == ("keep", "no_proven_gain")
    assert (decision["champion_version"], decision["anchor_version"]) == (champion, champion)


def test_an_alias_alone_brings_nothing_into_service(operation: Operation, client: ScoringClient) -> None:
    """Before the first deployment, too: a model that may serve and was never proven does not."""
    version = operation.register(Spec(key="a" * 16))
    set_alias(operation.settings, CHAMPION, version)
    assert client.refresh()["status"] == "no_model"
    assert score_newest_date_task(data_version=operation.vintage.data_version)["champion_version"] is None


def test_a_withdrawn_version_does_not_come_back(desk: Desk, client: ScoringClient) -> None:
    """After a rollback: not as a way back, whatever its tags say and whoever deletes the champion; not by a deployment;
    not through the gate. A named person's new approval brings it back."""
    settings, withdrawn = desk.settings, desk.champion
    assert roll_back(settings)["version"] == desk.first
    set_tags(settings, withdrawn, {"lifecycle_state": "retired", "gate_decision": "reject"})
    assert gate_challenger_task(challenger={"version": withdrawn})["rule"] == "withdrawn"
    for attempt in (lambda: deploy_blue_green(settings, withdrawn), lambda: roll_back(settings, withdrawn)):
        with pytest.raises(DeploymentError, match="may not serve"):
            attempt()
    with pytest.raises(DBAPIError, match="append-only"), session(settings) as active:
        active.execute(text("DELETE FROM model_revocation"))
    with lease(settings, LEASE):
        set_alias(settings, CHAMPION, withdrawn)
        connect(settings).delete_model_version(MODEL_NAME, str(desk.first))
    health = client.refresh()
    assert health["model_version"] is None
    assert reconcile(settings).champion is get_alias_version(settings, CHAMPION) is None

    approve_model(settings, withdrawn, "it was not its fault")
    assert gate_challenger_task(challenger={"version": withdrawn})["rule"] != "withdrawn"
    assert deploy_blue_green(settings, withdrawn)["version"] == withdrawn


def test_what_has_got_other_tags_is_no_way_back(desk: Desk, client: ScoringClient) -> None:
    """The champion is deleted, and the one before it is called what another model is: nobody serves in its name."""
    settings = desk.settings
    desk.disguise(desk.first, desk.other)
    with lease(settings, LEASE):
        connect(settings).delete_model_version(MODEL_NAME, str(desk.champion))
    client.refresh()
    assert reconcile(settings).champion is get_alias_version(settings, CHAMPION) is None


def test_a_rollback_withdraws_once_however_often_a_model_comes_back(desk: Desk) -> None:
    """Approved again with the same words, it serves; rolled back again, it does not."""
    settings = desk.settings
    for _ in range(2):
        roll_back(settings, desk.first)
        with pytest.raises(DeploymentError, match="may not serve"):
            deploy_blue_green(settings, desk.champion)
        approve_model(settings, desk.champion, "we want it")
        deploy_blue_green(settings, desk.champion)
    with session(settings) as active:
        rows = active.execute(text("SELECT number, basis, reason FROM model_revocation ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [(n, "person", f"rolled back to version {desk.first}") for n in (1, 2)]


def test_a_model_is_withdrawn_by_hand(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that has served, by what has served under its number; the champion is not, and says how."""
    settings = desk.settings
    desk.disguise(desk.first, desk.champion)
    monkeypatch.setenv("LOGNAME", "alice")
    assert main(["withdraw-model", str(desk.first), "--reason", "its vendor was wrong"]) == 0
    for version, reason, said in (
        (desk.champion, "no", "`alphaops rollback` withdraws it"),
        (desk.other, " ", "the reason is empty"),
    ):
        assert main(["withdraw-model", str(version), "--reason", reason]) == 1
        assert said in capsys.readouterr().out
    with session(settings) as active:
        rows = active.execute(text("SELECT training_key, revoked_by, reason FROM model_revocation")).all()
    assert [tuple(row) for row in rows] == [("a" * 16, "alice", "its vendor was wrong")]
    with pytest.raises(DeploymentError, match="no earlier champion is left"):
        roll_back(settings)


def test_the_gates_rejection_takes_back_its_own_approval_only(operation: Operation) -> None:
    """A promoted model that is judged anew and rejected may not serve, and may be promoted again; one that a person has
    approved may, and no certificate stands beside that approval."""
    settings = operation.settings
    version = operation.register(Spec(key="a" * 16))  # approved by a person
    certificate = settings.training_dir / ("a" * 16) / "certificate.json"
    passed = certificate.read_text()
    for _ in range(2):
        certificate.write_text(passed)
        assert gate_challenger_task(challenger={"version": version})["decision"] == "promote"
        certificate.write_text(passed.replace('"passed": true', '"passed": false'))
        assert gate_challenger_task(challenger={"version": version})["decision"] == "reject"
    with pytest.raises(DeploymentError, match="may not serve"):
        deploy_blue_green(settings, version)
    assert approve_model(settings, version, "we know why it failed").certificate == ""
    assert gate_challenger_task(challenger={"version": version})["decision"] == "reject"
    with pytest.raises(DeploymentError, match="the scoring service"):  # not running here: approved it is
        deploy_blue_green(settings, version)


def test_the_standing_in_service_is_that_of_now(operation: Operation, client: ScoringClient) -> None:
    """A provisional model that a person approves is a champion at the service's next look, in its slot."""
    settings = operation.settings
    version = register_model(settings, Spec(key="a" * 16), operation.vintage, operation.feature_version)
    assert gate_challenger_task(challenger={"version": version})["rule"] == "provisional"
    deploy_blue_green(settings, version)
    before = client.refresh()
    assert before["standing"] == client.score()["standing"] == "provisional"
    approve_model(settings, version, "the desk wants it")
    after = client.refresh()
    assert after["standing"] == client.score()["standing"] == "champion"
    assert after["slot"] == before["slot"]


def test_a_champion_of_an_older_record_serves_once_it_is_deployed_again(
    operation: Operation, client: ScoringClient
) -> None:
    """A record that does not say which bytes it is about is not enough; the command that the message names mends it."""
    settings = operation.settings
    version = operation.register(Spec(key="a" * 16))
    row = {"training_key": "a" * 16, "data_version": "d", "strategy": "blue_green"}
    with lease(settings, LEASE):
        record_deployment(settings, Deployment(model_version=version, state="serving", **row))
        set_alias(settings, CHAMPION, version)
    health = client.refresh()
    assert (health["status"], health["model_version"]) == ("no_model", None)
    assert f"run `alphaops deploy {version}`" in health["errors"][0]
    withdrawal = revocation_by_person(settings, version, "its vendor was wrong")
    assert withdrawal.artefact_digest == claim_of(settings, version).digest
    assert main(["deploy", str(version)]) == 0
    assert client.health()["model_version"] == version
