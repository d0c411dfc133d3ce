"""Home folders that are made once a run and copied: databases and features take seconds to make, none to copy."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mlops_tasks.config import GateSettings, ServingSettings, Settings, StackSettings
from mlops_tasks.data.vintages import Vintage, load_vintage
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.files import read_json, write_json
from mlops_tasks.registry.client import connect
from mlops_tasks.registry.models import claim_of
from mlops_tasks.state.approvals import record_model_approval
from mlops_tasks.state.tables import ModelApproval
from tests.made_once import once
from tests.operation import certify_data, free_ports, publish_vintage, register_model
from tests.registry.trainings import Spec


def _migrate_mlflow(home: Path) -> None:
    connect(Settings(home=home)).search_experiments()


@pytest.fixture(scope="session")
def migrated_mlflow() -> Path:
    """An empty MLflow database."""
    return once("mlflow", _migrate_mlflow) / "mlflow" / "mlflow.db"


SELDOM_S, OFTEN_S = 5.0, 0.2
"""How often a service of the tests looks at registry and database. Each look takes some hundredths of a second, which
all tests that follow the service in steps of their own do without: a module whose tests wait for looks says
`POLL_S = OFTEN_S`."""


@pytest.fixture
def settings(
    request: pytest.FixtureRequest, tmp_path: Path, migrated_mlflow: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Settings of a home with an empty registry; stage tasks find it too."""
    return new_home(tmp_path, migrated_mlflow, monkeypatch, getattr(request.module, "POLL_S", SELDOM_S))


def new_home(home: Path, migrated_mlflow: Path, monkeypatch: pytest.MonkeyPatch, poll_s: float = SELDOM_S) -> Settings:
    """Prepare a home folder and the environment that names it."""
    monkeypatch.setenv("MLOPS_HOME", str(home))
    monkeypatch.setenv("MLOPS_SCORING_TOKEN", "token-of-the-tests")
    monkeypatch.setenv("MLOPS_SERVING__POLL_S", str(poll_s))
    monkeypatch.setenv("MLOPS_SERVING__DEPLOY_TIMEOUT_S", "10")
    (port,) = free_ports(1)
    monkeypatch.setenv("MLOPS_STACK__SCORING_PORT", str(port))
    (home / "mlflow").mkdir()
    shutil.copy(migrated_mlflow, home / "mlflow" / "mlflow.db")
    return Settings(
        home=home,
        stack=StackSettings(scoring_port=port),
        serving=ServingSettings(poll_s=poll_s, deploy_timeout_s=10),
        gate=GateSettings(),
    )


@dataclass(frozen=True)
class Operation:
    """A home with a published vintage and its features."""

    settings: Settings
    vintage: Vintage
    feature_version: str

    def register(self, spec: Spec, feature_set: str = "alpha158") -> int:
        """Train, log and register a model on the vintage; it becomes the challenger, and may serve."""
        feature_version = self.feature_version
        if feature_set != spec.feature_set:
            spec = replace(spec, feature_set=feature_set)
            feature_version = FeatureStore(self.settings).compute(self.vintage, feature_set).feature_version
        version = register_model(self.settings, spec, self.vintage, feature_version)
        claim = claim_of(self.settings, version)
        approval = ModelApproval(
            training_key=claim.training_key,
            artefact_digest=claim.digest,
            basis="person",
            approved_by="tests",
            reason="they serve it",
        )
        record_model_approval(self.settings, approval)  # without loading it: no local copy is made
        return version


def _publish_and_certify(home: Path) -> None:
    vintage, feature_version = publish_vintage(Settings(home=home))
    certify_data(Settings(home=home), Spec(data_version=vintage.data_version, feature_version=feature_version))
    write_json(home / "versions.json", [vintage.data_version, feature_version])


@pytest.fixture(scope="session")
def vintage_template() -> tuple[Path, str, str]:
    """A home with a published vintage, its certified features; their versions."""
    home = once("vintage", _publish_and_certify)
    data_version, feature_version = read_json(home / "versions.json")
    return home, data_version, feature_version


@pytest.fixture
def operation(settings: Settings, vintage_template: tuple[Path, str, str]) -> Operation:
    """A home with an empty registry, a published vintage and its features."""
    return new_operation(settings, vintage_template)


def new_operation(settings: Settings, vintage_template: tuple[Path, str, str]) -> Operation:
    """Copy the vintage and its features into a home."""
    home, data_version, feature_version = vintage_template
    for name in ("data", "features", "certificates"):
        shutil.copytree(home / name, settings.home / name)
    return Operation(settings, load_vintage(settings, data_version), feature_version)
