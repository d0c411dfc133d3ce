"""What is recorded of a registered version's training: read, and held against what was signed, before anything is run.

The artefact's manifest is signed, and names the training key, the data, the dates and the class. The configuration is
in the training's folder, which nobody signs; MLflow's parameters are a second record of it, and the training key, which
follows from it and the learning data, a third.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.artifacts import load_dict
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from mlops_tasks.config import Settings
from mlops_tasks.errors import (
    ConfigError,
    DigestMismatchError,
    LineageError,
    MlopsError,
    RegistryError,
    StoreError,
    TrainingError,
    first_few,
)
from mlops_tasks.features.sets import FeatureSet, stored_feature_set
from mlops_tasks.features.store import FeatureStore
from mlops_tasks.modeling.configuration import TrainingConfig
from mlops_tasks.modeling.identity import TrainingIdentity
from mlops_tasks.modeling.manifest import ArtefactManifest
from mlops_tasks.modeling.seal import verified_manifest
from mlops_tasks.registry.client import registry_errors
from mlops_tasks.registry.lineage import LineageTracker
from mlops_tasks.registry.lineage_document import LINEAGE_FILE
from mlops_tasks.registry.models import NOT_FOUND, Claim, claim_of, fetch_version
from mlops_tasks.registry.replay.refused import ReplayRefusedError
from mlops_tasks.registry.training_record import CODE_TAG, flatten
from mlops_tasks.signing import VerifyingKeys
from mlops_tasks.states import ReplayRefusal
from mlops_tasks.training.certificate import CertificateSubject, certificate_of
from mlops_tasks.training_folder import TrainingFolder, TrainingManifest

_IN_KEY = frozenset(("engine_version", "identity"))
"""What plan.json has beside the manifest's fields and a training key follows from."""
_SIGNED = ("model", "feature_set", "feature_version", "data_version", "horizon", "seed")
"""Fields that the signed manifest and plan.json share, besides the segments."""


@dataclass(frozen=True)
class RecordedTraining:
    """The record of a version's training, without contradictions."""

    version: int
    run_id: str
    training_key: str
    manifest: ArtefactManifest
    """Of the registered artefact; verified."""
    plan: TrainingManifest
    config: TrainingConfig
    code_version: str
    """The package's version and the commit, as the run's tag has it; empty without one."""
    certificate: CertificateSubject | None
    """What the leak certificate that it was trained under is about, which tells the code; None without one."""

    @property
    def configuration(self) -> dict[str, Any]:
        """What the training key follows from besides the learning data."""
        return {
            "model": self.plan.model,
            "model_config": dict(self.plan.model_config),
            "horizon": self.plan.horizon,
            "seed": self.plan.seed,
            **{name: self.plan.more[name] for name in _IN_KEY},
        }

    @property
    def identity(self) -> Mapping[str, Any]:
        """The libraries, the device, the threads and the class's code that trained it (`TrainingIdentity`)."""
        identity: Mapping[str, Any] = self.plan.more["identity"]
        return identity


def read_record(settings: Settings, version: int, into: Path) -> RecordedTraining:
    """Read the record of a version, and fetch its artefact into a new folder.

    Raises
    ------
    ReplayRefusedError
        The version was not registered by this project, its run is deleted, its artefact is not what was registered, or
        its training's folder is gone or contradicts what was signed.
    RegistryError
        MLflow does not answer.
    """
    try:
        claim = claim_of(settings, version)
    except RegistryError as error:
        if isinstance(error.__cause__, MlflowException):  # it does not answer
            raise
        raise ReplayRefusedError(
            ReplayRefusal.NO_RECORD, f"{error}; only what the chain has trained and registered can be trained again"
        ) from error
    run = _run_of(settings, version)
    manifest = _signed(settings, claim, into)
    plan = _plan_of(settings, claim, manifest)
    _check_parameters(claim, plan, run)
    try:
        certificate = certificate_of(settings, claim.training_key)
        config = TrainingConfig.model_validate(plan.model_config)
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise _damaged(claim, f"plan.json or its certificate cannot be read: {error}") from error
    _check_class(claim, manifest, config)
    return RecordedTraining(
        version=version,
        run_id=run.info.run_id,
        training_key=claim.training_key,
        manifest=manifest,
        plan=plan,
        config=config,
        code_version=run.data.tags.get(CODE_TAG, ""),
        certificate=None if certificate is None else certificate.subject,
    )


@registry_errors
def definition_of(settings: Settings, record: RecordedTraining) -> FeatureSet:
    """The feature set that a version was trained on: as the feature store has it, or else as the run's lineage does.

    Raises
    ------
    ReplayRefusedError
        Neither has it, or its expressions are not known any more.
    """
    try:
        try:
            return FeatureStore(settings).definition(record.manifest["feature_version"])
        except StoreError:  # the features were removed
            return _definition_of_lineage(record)
    except ConfigError as error:
        raise ReplayRefusedError(
            ReplayRefusal.OTHER_ENVIRONMENT,
            f"version {record.version}: its feature set cannot be computed any more: {error}; replay it with the code "
            f"that trained it ({record.code_version or 'an earlier version'})",
        ) from error


def _definition_of_lineage(record: RecordedTraining) -> FeatureSet:
    try:
        known = load_dict(f"runs:/{record.run_id}/{LINEAGE_FILE}")["features"]["depends_on"]
        names = list(record.manifest["feature_names"])
        entries = [known[name]["indicator"] for name in names if "indicator" in known[name]]
        content = {
            "feature_set": record.manifest["feature_set"],
            "names": names,
            "expressions": {name: known[name]["expression"] for name in names if "expression" in known[name]},
            "indicators": [entry for place, entry in enumerate(entries) if entry not in entries[:place]],
        }
    except (MlflowException, OSError, KeyError, TypeError) as error:
        raise ReplayRefusedError(
            ReplayRefusal.NO_RECORD,
            f"version {record.version}: neither the feature store nor {LINEAGE_FILE} of its run says how its features "
            f"are computed: {error}; bring features/ or the run's artefacts back from a backup",
        ) from error
    return stored_feature_set(content)


def _run_of(settings: Settings, version: int) -> Run:
    try:
        return LineageTracker(settings).run(version)
    except LineageError as error:
        raise ReplayRefusedError(ReplayRefusal.RUN_DELETED, str(error)) from error


def _signed(settings: Settings, claim: Claim, into: Path) -> ArtefactManifest:
    """The manifest of the artefact that MLflow's store has now, whatever a local copy of it says."""
    into.mkdir(parents=True)
    try:
        fetch_version(settings, claim, into)
        manifest = verified_manifest(into, VerifyingKeys.read(settings))
    except (DigestMismatchError, TrainingError) as error:
        raise ReplayRefusedError(ReplayRefusal.ARTEFACT_DAMAGED, str(error)) from error
    except RegistryError as error:
        cause = error.__cause__
        if isinstance(cause, MlflowException) and cause.error_code not in NOT_FOUND:
            raise
        raise ReplayRefusedError(ReplayRefusal.ARTEFACT_DAMAGED, str(error)) from error
    if manifest.get("training_key") != claim.training_key:
        raise ReplayRefusedError(
            ReplayRefusal.ARTEFACT_DAMAGED,
            f"version {claim.version} is registered as training {claim.training_key}, but its artefact is of training "
            f"{manifest.get('training_key')}; register it again",
        )
    return manifest


def _plan_of(settings: Settings, claim: Claim, manifest: ArtefactManifest) -> TrainingManifest:
    """plan.json of the training, which says what the signed manifest says."""
    try:
        folder = TrainingFolder.of(settings, claim.training_key)
        plan = folder.find_manifest()
        if plan is not None:
            folder.predictions  # noqa: B018 - it is there
    except MlopsError as error:
        raise ReplayRefusedError(
            ReplayRefusal.NO_RECORD, f"version {claim.version}: {error}, or bring its folder back from a backup"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(claim, f"plan.json cannot be read: {type(error).__name__}: {error}") from error
    if plan is None or not plan.model_config or not set(plan.more) >= _IN_KEY:
        missing = "is gone" if plan is None else "does not say how it was trained: an earlier version wrote it"
        raise ReplayRefusedError(
            ReplayRefusal.NO_RECORD,
            f"version {claim.version}: {folder.path} {missing}; bring it back from a backup, or train and register "
            "again",
        )
    identity = plan.more["identity"]
    if not isinstance(identity, dict) or not set(TrainingIdentity.__annotations__) <= set(identity):
        raise _damaged(claim, "identity in plan.json is none")
    signed = dict(manifest)
    differing = [name for name in _SIGNED if signed.get(name) != getattr(plan, name)]
    days = {name: tuple(each) for name, each in manifest.get("segments", {}).items()}
    differing += [] if {name: tuple(each) for name, each in plan.segments.items()} == days else ["segments"]
    if differing or plan.training_key != claim.training_key:
        raise _damaged(claim, f"its {first_few(differing or ['training_key'])} is not what was signed with the model")
    return plan


def _check_parameters(claim: Claim, plan: TrainingManifest, run: Run) -> None:
    """Compare the configuration with the parameters that MLflow was given when the training was logged."""
    params = run.data.params
    expected = {f"model.{name}": str(value) for name, value in flatten(plan.model_config)}
    if not any(name in params for name in expected):
        raise ReplayRefusedError(
            ReplayRefusal.NO_RECORD,
            f"version {claim.version}: its MLflow run {run.info.run_id} has no parameters of its training; it was not "
            "logged by this project, so train and register again",
        )
    differing = [name for name, value in expected.items() if params.get(name) != value]
    if differing:
        raise _damaged(claim, f"{first_few(differing)} in plan.json is not what MLflow's run {run.info.run_id} has")


def _check_class(claim: Claim, manifest: ArtefactManifest, config: TrainingConfig) -> None:
    signed = (manifest["family"], manifest.get("class_path"), manifest.get("window", 1))
    if signed != (config.family, config.class_path, config.window):
        raise _damaged(claim, "its family, class_path or window is not what was signed with the model")


def _damaged(claim: Claim, said: str) -> ReplayRefusedError:
    return ReplayRefusedError(
        ReplayRefusal.RECORD_DAMAGED,
        f"version {claim.version}: the record of training {claim.training_key} was changed: {said}; bring "
        f"training/{claim.training_key}/ back from a backup",
    )
