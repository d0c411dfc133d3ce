"""Whoever may write to MLflow decides nothing about what serves, and runs nothing where models are loaded."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from mlops_tasks.cli import main
from mlops_tasks.config import Settings
from mlops_tasks.errors import DeploymentError, DigestMismatchError, NotApprovedError, RegistryError
from mlops_tasks.modeling.seal import artefact_digest
from mlops_tasks.registry.approvals import approve_model, candidate_permit
from mlops_tasks.registry.client import CHAMPION, MODEL_NAME, connect
from mlops_tasks.registry.models import claim_of, get_alias_version, load_version, set_alias, set_tags
from mlops_tasks.registry.tasks import gate_challenger_task
from mlops_tasks.serving.client import ScoringClient
from mlops_tasks.serving.deployment import deploy_blue_green, roll_back
from mlops_tasks.state.approvals import standing_approval
from mlops_tasks.state.database import session
from tests.operation import make_champion, register_model
from tests.registry.conftest import Operation
from tests.registry.trainings import Spec
from tests.security.registry.hostile import Payload, write_manifest, write_pickle


def upload(settings: Settings, folder: Path, training_key: str, digest: str) -> int:
    """Register an artefact by MLflow's own interface, with whatever tags; returns the version."""
    client: MlflowClient = connect(settings)
    experiment = client.create_experiment(folder.name, artifact_location=str(settings.home / "uploaded"))
    run = client.create_run(experiment)
    for path in folder.iterdir():
        client.log_artifact(run.info.run_id, str(path), "m/data/model")
    (folder / "MLmodel").write_text("flavors: {}\n")
    client.log_artifact(run.info.run_id, str(folder / "MLmodel"), "m")
    tags = {"training_key": training_key, "digest": digest, "model": "lightgbm", "data_version": "d"}
    source = f"{run.info.artifact_uri}/m"
    return int(client.create_model_version(MODEL_NAME, source, run.info.run_id, tags).version)


@pytest.fixture
def champion(operation: Operation, client: ScoringClient) -> int:
    """A champion in service."""
    version = operation.register(Spec(key="a" * 16))
    deploy_blue_green(operation.settings, version)
    return version


CLAIMS: dict[str, Callable[[Settings, int, str], tuple[str, str]]] = {
    "its own name": lambda settings, champion, digest: ("e" * 16, digest),
    "the champion's training": lambda settings, champion, digest: (claim_of(settings, champion).training_key, digest),
    "a digest that leads elsewhere": lambda settings, champion, digest: ("e" * 16, "../../secrets"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_an_uploaded_pickle_with_the_alias_on_it_neither_serves_nor_runs(
    operation: Operation, champion: int, client: ScoringClient, tmp_path: Path, claim: str
) -> None:
    """Whatever its tags say, the champion goes on, the alias is put back, and the stages refuse it."""
    mark, folder = tmp_path / "mark", tmp_path / "upload"
    write_manifest(folder, write_pickle(folder, Payload(mark)))
    training_key, digest = CLAIMS[claim](operation.settings, champion, artefact_digest(folder))
    version = upload(operation.settings, folder, training_key, digest)
    set_alias(operation.settings, CHAMPION, version)

    health = client.refresh()
    assert (health["status"], health["model_version"]) == ("ok", champion)
    assert get_alias_version(operation.settings, CHAMPION) == champion
    assert client.score()["model_version"] == champion
    for refused in (
        lambda: deploy_blue_green(operation.settings, version),
        lambda: gate_challenger_task(challenger={"version": version}),
        lambda: approve_model(operation.settings, version, "let me in"),
        lambda: roll_back(operation.settings, version),
    ):
        with pytest.raises((RegistryError, DeploymentError)):
            refused()
    assert not mark.exists()
    assert (operation.settings.secrets_dir / "verifying_keys").is_file(), "a copy that is not whole is removed"


def test_all_of_the_champions_tags_bring_the_champions_bytes_or_none(
    operation: Operation, champion: int, tmp_path: Path
) -> None:
    """What is uploaded under them is never loaded: the local copy is, and without one the upload is refused."""
    mark, folder = tmp_path / "mark", tmp_path / "upload"
    write_manifest(folder, write_pickle(folder, Payload(mark)))
    claim = claim_of(operation.settings, champion)
    version = upload(operation.settings, folder, claim.training_key, claim.digest)
    copy = candidate_permit(operation.settings, version).load(operation.settings).artefact.folder
    assert artefact_digest(copy) == claim.digest
    shutil.rmtree(copy)
    with pytest.raises(RegistryError, match="is not the model of its own run"):
        candidate_permit(operation.settings, version).load(operation.settings)
    assert not mark.exists()


def test_a_signed_version_serves_when_a_named_person_approves_it(
    operation: Operation, champion: int, client: ScoringClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alias alone changes nothing; who, why and which bytes are kept in rows that cannot be changed."""
    settings = operation.settings
    spec = Spec(key="b" * 16, seed=2)
    version = register_model(settings, spec, operation.vintage, operation.feature_version)
    set_alias(settings, CHAMPION, version)
    set_tags(settings, version, {"gate_decision": "promote", "gate_rule": "superiority", "leak_certificate": "passed"})
    assert client.refresh()["model_version"] == champion

    with pytest.raises(DeploymentError, match=f"may not serve.*approve-model {version} --reason"):
        roll_back(settings, version)
    with pytest.raises(RegistryError, match="the reason is empty"):
        approve_model(settings, version, "  ")
    monkeypatch.setenv("LOGNAME", "alice")
    assert main(["approve-model", str(version), "--reason", "it was better in 2008"]) == 0
    assert main(["deploy", str(version)]) == 0
    assert client.health()["model_version"] == version

    claim = claim_of(settings, version)
    kept = standing_approval(settings, claim.training_key, claim.digest)
    assert kept is not None
    assert (kept.basis, kept.approved_by, kept.reason) == ("person", "alice", "it was better in 2008")
    with pytest.raises(DBAPIError, match="append-only"), session(settings) as active:
        active.execute(text("UPDATE model_approval SET approved_by = 'gate'"))


def test_what_the_gate_promotes_serves_and_what_it_keeps_does_not(operation: Operation) -> None:
    """The gate's promotion is the approval, of these bytes; a version with the same tags and others is not loaded."""
    settings = operation.settings
    good = register_model(settings, Spec(key="a" * 16), operation.vintage, operation.feature_version)
    assert gate_challenger_task(challenger={"version": good})["decision"] == "promote"
    assert candidate_permit(settings, good).load(settings).version == good
    claim = claim_of(settings, good)
    approval = standing_approval(settings, claim.training_key, claim.digest)
    assert approval is not None and approval.basis == "gate" and approval.certificate

    make_champion(settings, good)
    poor = register_model(settings, Spec(key="n" * 16, skill=0.0, seed=3), operation.vintage, operation.feature_version)
    assert gate_challenger_task(challenger={"version": poor})["decision"] == "keep"
    with pytest.raises(NotApprovedError):
        candidate_permit(settings, poor).load(settings)
    set_tags(settings, poor, {"training_key": claim.training_key, "digest": claim.digest})
    assert candidate_permit(settings, poor).load(settings).digest == claim.digest


def test_a_copy_with_more_than_was_signed_is_fetched_again(operation: Operation) -> None:
    """A folder or a link among the files of the local copy is removed with it."""
    version = operation.register(Spec(key="a" * 16))
    copy = load_version(operation.settings, version).artefact.folder
    (copy / "sub").mkdir()
    (copy / "link").symlink_to(os.devnull)
    assert not (load_version(operation.settings, version).artefact.folder / "sub").exists()


def test_the_certificate_is_about_what_is_signed_not_about_a_tag(operation: Operation) -> None:
    """A version that is called by the name of a certified model is judged by its manifest."""
    settings = operation.settings
    spec = Spec(key="d" * 16, model="network", window=5)
    version = register_model(settings, spec, operation.vintage, operation.feature_version)
    set_tags(settings, version, {"model": "lightgbm"})
    decision = gate_challenger_task(challenger={"version": version})
    assert (decision["decision"], decision["rule"]) == ("reject", "leak_certificate")


def test_another_trainings_artefact_is_not_loaded_under_a_name(operation: Operation) -> None:
    """A signed artefact stays the training that its manifest says."""
    first = operation.register(Spec(key="a" * 16))
    second = operation.register(Spec(key="b" * 16, seed=2))
    set_tags(operation.settings, second, {"training_key": "a" * 16})
    with pytest.raises(RegistryError, match="its artefact is of training bbbb"):
        load_version(operation.settings, second)
    set_tags(operation.settings, second, {"digest": claim_of(operation.settings, first).digest[::-1]})
    with pytest.raises(DigestMismatchError):
        load_version(operation.settings, second)
