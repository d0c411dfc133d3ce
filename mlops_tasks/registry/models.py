"""Registered versions of the project's one model: registration, aliases, and loading with a check of every byte."""

import logging
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlops_tasks.config import Settings
from mlops_tasks.errors import DigestMismatchError, RegistryError
from mlops_tasks.evaluation.gate import PROVISIONAL
from mlops_tasks.files import folder_lock, new_folder
from mlops_tasks.modeling.artefact import ModelArtefact
from mlops_tasks.modeling.seal import artefact_digest
from mlops_tasks.modeling.trust import Trust
from mlops_tasks.registry.artefact_store import fetch_artefact
from mlops_tasks.registry.client import CHAMPION, MODEL_NAME, connect, quoted, registry_errors
from mlops_tasks.registry.training_record import TrainingRecord

log = logging.getLogger(__name__)

_DIGEST = re.compile("[0-9a-f]{64}")
NOT_FOUND = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""MLflow's error codes for a missing alias or version; which one it is depends on the backend."""


@dataclass(frozen=True)
class Claim:
    """What the registry says about a version. Anybody who may write there can set it, so it is not trusted yet."""

    version: int
    training_key: str
    digest: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class LoadedModel:
    """A registered version whose bytes are what was registered, and signed; `tags` are the registry's."""

    version: int
    training_key: str
    artefact: ModelArtefact
    tags: Mapping[str, str]
    digest: str
    provisional: bool = False
    """Whether it may serve without proof of skill; set for models that were loaded to serve."""

    @property
    def standing(self) -> str:
        """Its standing in service."""
        return standing(self.provisional)


def standing(provisional: bool) -> str:
    """The standing of a model in service: `champion` or `provisional`."""
    return PROVISIONAL if provisional else CHAMPION


@registry_errors
def register(settings: Settings, training_key: str, run_id: str) -> int:
    """Register the model of a logged run, once; returns the version.

    Raises
    ------
    RegistryError
        The run has no finished model, or MLflow refuses.
    """
    record = TrainingRecord.load(settings, training_key)
    with folder_lock(settings.home / "mlflow" / "locks" / MODEL_NAME):
        found = version_of_training(settings, training_key)
        if found is not None:
            return found
        client = connect(settings)
        with suppress(MlflowException):  # it exists already; any other error shows in the next call
            client.create_registered_model(MODEL_NAME, description="Daily cross-sectional stock scores.")
        model_id = _model_of_run(client, run_id)
        created = client.create_model_version(
            MODEL_NAME,
            source=f"models:/{model_id}",
            run_id=run_id,
            tags={**record.identity, **record.made_by, **record.certificate_tags, "digest": record.digest},
            description=record.description,
            model_id=model_id,
        )
    log.info("%s version %s: %s, training %s", MODEL_NAME, created.version, record.name, training_key)
    return int(created.version)


def _model_of_run(client: MlflowClient, run_id: str) -> str:
    outputs = client.get_run(run_id).outputs
    if outputs is None or not outputs.model_outputs:
        raise RegistryError(f"run {run_id} holds no model; run the stage registry.log_run again")
    return str(outputs.model_outputs[-1].model_id)


@registry_errors
def version_of_training(settings: Settings, training_key: str) -> int | None:
    """The version that was registered for a training, or None."""
    where = f"name = {quoted(MODEL_NAME)} and tags.training_key = {quoted(training_key)}"
    versions = [int(v.version) for v in connect(settings).search_model_versions(where)]
    return min(versions, default=None)


@registry_errors
def versions(settings: Settings) -> list[int]:
    """All registered versions, ascending."""
    return sorted(tags_of_versions(settings))


@registry_errors
def tags_of_versions(settings: Settings) -> dict[int, dict[str, str]]:
    """Every registered version's tags."""
    found = connect(settings).search_model_versions(f"name = {quoted(MODEL_NAME)}")
    return {int(version.version): dict(version.tags) for version in found}


@registry_errors
def get_alias_version(settings: Settings, alias: str) -> int | None:
    """The version that an alias names; None while there is no such alias."""
    try:
        return int(connect(settings).get_model_version_by_alias(MODEL_NAME, alias).version)
    except MlflowException as error:
        if error.error_code in NOT_FOUND:
            return None
        raise


@registry_errors
def set_alias(settings: Settings, alias: str, version: int) -> None:
    """Set an alias to a version; the registry does this atomically."""
    connect(settings).set_registered_model_alias(MODEL_NAME, alias, str(version))
    log.info("%s@%s is version %d", MODEL_NAME, alias, version)


@registry_errors
def delete_alias(settings: Settings, alias: str) -> None:
    """Remove an alias; harmless if it does not exist."""
    if get_alias_version(settings, alias) is not None:
        connect(settings).delete_registered_model_alias(MODEL_NAME, alias)


@registry_errors
def get_tags(settings: Settings, version: int) -> dict[str, str]:
    """The tags of a version.

    Raises
    ------
    RegistryError
        There is no such version.
    """
    return dict(_get_version(settings, version).tags)


@registry_errors
def find_tags(settings: Settings, version: int) -> dict[str, str] | None:
    """The tags of a version; None if there is no such version."""
    try:
        return dict(connect(settings).get_model_version(MODEL_NAME, str(version)).tags)
    except MlflowException as error:
        if error.error_code in NOT_FOUND:
            return None
        raise


@registry_errors
def get_run_id(settings: Settings, version: int) -> str:
    """The run that made a version."""
    return str(_get_version(settings, version).run_id)


@registry_errors
def set_tags(settings: Settings, version: int, tags: Mapping[str, str]) -> None:
    """Set tags of a version; equal tags are not written again."""
    client, present = connect(settings), _get_version(settings, version).tags
    for name, value in tags.items():
        if present.get(name) != value:
            client.set_model_version_tag(MODEL_NAME, str(version), name, value)


def _get_version(settings: Settings, version: int) -> ModelVersion:
    try:
        return connect(settings).get_model_version(MODEL_NAME, str(version))
    except MlflowException as error:
        if error.error_code not in NOT_FOUND:
            raise
        raise RegistryError(f"{MODEL_NAME} has no version {version}; registered: {versions(settings)}") from error


def load_alias(settings: Settings, alias: str) -> LoadedModel | None:
    """The verified model that an alias names, or None while there is no such alias. Not for the champion, which the
    record of deployments names (`approvals.load_champion`)."""
    version = get_alias_version(settings, alias)
    return None if version is None else load_version(settings, version)


def load_version(settings: Settings, version: int) -> LoadedModel:
    """Load a version from its verified local copy, which is fetched first if it is missing.

    This is for judging or measuring it; `approvals.py` decides whether it may serve.

    Raises
    ------
    RegistryError
        There is no such version, it lacks the tag `digest`, its artefact belongs to another training, or as for
        `fetch_artefact`.
    SignatureError, DigestMismatchError
        The stored artefact is not what was registered, or is not signed.
    ConfigError, IsolationError
        As `ModelArtefact.load`.
    """
    return load_claimed(settings, claim_of(settings, version))


@registry_errors
def claim_of(settings: Settings, version: int) -> Claim:
    """What the registry says about a version.

    Raises
    ------
    RegistryError
        There is no such version, or it lacks the tags `digest` and `training_key`.
    """
    tags = dict(_get_version(settings, version).tags)
    for name in ("digest", "training_key"):
        if name not in tags:
            raise RegistryError(
                f"{MODEL_NAME} version {version} has no tag {name!r}; it was not registered by this project"
            )
    return Claim(version, tags["training_key"], tags["digest"], tags)


@registry_errors
def load_claimed(settings: Settings, claim: Claim) -> LoadedModel:
    """Load what a claim is about, if it holds. Errors as for `load_version`."""
    if not _DIGEST.fullmatch(claim.digest):  # it names a folder
        raise DigestMismatchError(f"{MODEL_NAME} version {claim.version}: tag 'digest' is not a SHA-256; correct it")
    artefact = ModelArtefact.load(_verified_copy(settings, claim), Trust.of(settings))
    if artefact.manifest["training_key"] != claim.training_key:
        raise RegistryError(
            f"{MODEL_NAME} version {claim.version} is registered as training {claim.training_key}, but its artefact is "
            f"of training {artefact.manifest['training_key']}; register it again"
        )
    return LoadedModel(claim.version, claim.training_key, artefact, claim.tags, claim.digest)


@registry_errors
def fetch_version(settings: Settings, claim: Claim, into: Path) -> None:
    """Copy what MLflow's store has of a version now, whatever the local copy is, and check that it is what is claimed.

    Raises
    ------
    RegistryError
        As for `fetch_artefact`.
    DigestMismatchError
        The stored artefact is not what was registered.
    """
    fetch_artefact(settings, _get_version(settings, claim.version), into)
    _check_digest(into, claim.version, claim.digest)


def _verified_copy(settings: Settings, claim: Claim) -> Path:
    """The local copy of an artefact: its folder is named by the digest, and its bytes are hashed at every load."""
    cache = settings.home / "mlflow" / "cache"
    target = cache / claim.digest
    with folder_lock(cache):
        if target.is_dir() and not _is_whole(target, claim.digest):
            log.warning("%s was changed: removed and fetched again", target)
            shutil.rmtree(target)
        if not target.is_dir():
            with new_folder(target) as folder:
                fetch_version(settings, claim, folder)
    return target


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        return artefact_digest(folder) == digest
    except DigestMismatchError:  # something other than files
        return False


def _check_digest(folder: Path, version: int, expected: str) -> None:
    found = artefact_digest(folder)
    if found != expected:
        raise DigestMismatchError(
            f"{MODEL_NAME} version {version}: the stored artefact has digest {found}, but {expected} was registered; "
            "restore MLflow's artefact store from a backup, or train and register again"
        )
