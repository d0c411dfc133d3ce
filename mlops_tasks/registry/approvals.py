"""Which models may serve: those that the state database has approved, by the gate or by a named person.

The registry's aliases and tags express wishes, and anybody who may write there can set them; they never justify serving
a model. An approval is for the exact bytes of one training. So a version that is given another artefact, or the tags of
an approved one, is not approved; and what a deployment has put into service as a version remains that version.
"""

import getpass
import logging
from dataclasses import dataclass, replace

from mlops_tasks.config import Settings
from mlops_tasks.errors import NotApprovedError, RecordMismatchError, RegistryError
from mlops_tasks.evaluation.gate import PROVISIONAL
from mlops_tasks.registry.client import MODEL_NAME
from mlops_tasks.registry.models import Claim, LoadedModel, claim_of, load_claimed, load_version, standing
from mlops_tasks.state.approvals import (
    latest_revocation,
    record_model_approval,
    record_revocation,
    standing_approval,
)
from mlops_tasks.state.deployments import Deployed, deployed_as, recorded_champion
from mlops_tasks.state.tables import ModelApproval, ModelRevocation
from mlops_tasks.states import Basis, DeploymentState
from mlops_tasks.training.certificate import Certificate, certificate_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Permit:
    """What may serve under a version's number: the registry's claim about it, confirmed by the state database."""

    claim: Claim
    provisional: bool

    def load(self, settings: Settings) -> LoadedModel:
        """The model. Errors as for `load_version`."""
        return replace(load_claimed(settings, self.claim), provisional=self.provisional)


def candidate_permit(settings: Settings, version: int) -> Permit:
    """What may be deployed as a version; nothing is fetched for this.

    Raises
    ------
    NotApprovedError
        The state database has no approval of these bytes of this training, or it was revoked.
    RecordMismatchError
        Another model has served under this number.
    RegistryError
        There is no such version.
    """
    claim = claim_of(settings, version)
    served = deployed_as(settings, version, (DeploymentState.SERVING,))
    if served is not None:
        _check_same(claim, served)
    return _permit(settings, claim)


def serving_permit(settings: Settings, version: int) -> Permit:
    """What a deployment has put into service as a version, if the registry still says the same.

    Raises
    ------
    RecordMismatchError
        No deployment has done so, or the registry says something else.
    NotApprovedError, RegistryError
        As `candidate_permit`.
    """
    return _permit(settings, _recorded_claim(settings, version))


def load_champion(settings: Settings) -> LoadedModel | None:
    """The champion according to the record of deployments, if it may serve; None before the first.

    Raises
    ------
    NotApprovedError, RecordMismatchError
        As `serving_permit`.
    RegistryError, SignatureError, DigestMismatchError, ConfigError, IsolationError
        As `load_version`.
    """
    version = recorded_champion(settings)
    return None if version is None else serving_permit(settings, version).load(settings)


def load_recorded(settings: Settings, version: int) -> LoadedModel:
    """Load what was deployed as a version, only to measure it: it may have been revoked since.

    Raises
    ------
    RecordMismatchError
        As `serving_permit`.
    RegistryError, SignatureError, DigestMismatchError, ConfigError, IsolationError
        As `load_version`.
    """
    return load_claimed(settings, _recorded_claim(settings, version))


def standing_of(settings: Settings, version: int) -> str | None:
    """The standing of a deployed version: `champion` or `provisional`; None if it may not serve."""
    record = deployed_as(settings, version)
    approval = None if record is None else standing_approval(settings, record.training_key, record.digest)
    return None if approval is None else standing(_is_provisional(approval))


def is_withdrawn(settings: Settings, claim: Claim | LoadedModel) -> bool:
    """Whether a person, or a rule about the champion, revoked a training's model, and nobody has approved it since."""
    revocation = latest_revocation(settings, claim.training_key)
    if revocation is None or revocation.basis == Basis.GATE:
        return False
    return standing_approval(settings, claim.training_key, claim.digest) is None


def _recorded_claim(settings: Settings, version: int) -> Claim:
    record = deployed_as(settings, version)
    if record is None or not record.digest:
        raise RecordMismatchError(
            f"{MODEL_NAME} version {version} does not serve: the record of deployments does not have its bytes; run "
            f"`alphaops deploy {version}`"
        )
    claim = claim_of(settings, version)
    _check_same(claim, record)
    return claim


def _check_same(claim: Claim, record: Deployed) -> None:
    found, known = (claim.training_key, claim.digest), (record.training_key, record.digest or claim.digest)
    if found != known:
        raise RecordMismatchError(
            f"{MODEL_NAME} version {claim.version} was deployed as training {known[0][:64]!a} with digest {known[1]}, "
            f"and MLflow says {found[0][:64]!a} with {found[1][:64]!a}: somebody has changed its tags `training_key` "
            "and `digest`; restore them, and check who may write to MLflow"
        )


def _permit(settings: Settings, claim: Claim) -> Permit:
    approval = standing_approval(settings, claim.training_key, claim.digest)
    if approval is None:
        raise NotApprovedError(
            f"{MODEL_NAME} version {claim.version} (training {claim.training_key[:64]!a}) may not serve: the gate has "
            "not promoted these bytes and nobody has approved them, or they were withdrawn; let daily_retraining judge "
            f"it, or run `alphaops approve-model {claim.version} --reason ...`"
        )
    return Permit(claim, _is_provisional(approval))


def _is_provisional(approval: ModelApproval) -> bool:
    """Whether the gate let a model serve without proof of skill, and no person has approved it since."""
    return (approval.basis, approval.approved_by) == (Basis.GATE, PROVISIONAL)


def approve_by_gate(settings: Settings, model: LoadedModel, rule: str, certificate: Certificate | None) -> None:
    """Record that the gate promoted a model whose leak certificate it saw pass."""
    _approve(settings, model, (Basis.GATE, rule, f"promoted by rule {rule}"), certificate)


def approve_model(settings: Settings, version: int, reason: str, by: str | None = None) -> ModelApproval:
    """Let a version serve that the gate has not promoted, so that it can be deployed.

    Parameters
    ----------
    reason
        Why; not empty.
    by
        Who; default: the system's user.

    Raises
    ------
    RegistryError
        The reason is empty.
    RegistryError, SignatureError, DigestMismatchError, ConfigError, IsolationError
        As `load_version`: what is not signed cannot be approved.
    """
    _check_reason(version, reason)
    model = load_version(settings, version)
    certificate = certificate_of(settings, model.training_key)
    return _approve(settings, model, (Basis.PERSON, by or getpass.getuser(), reason.strip()), certificate)


def revoke_by_gate(settings: Settings, model: LoadedModel, rule: str) -> None:
    """Revoke the gate's own approval; a person's approval stays valid."""
    approval = standing_approval(settings, model.training_key, model.digest)
    if approval is not None and approval.basis == Basis.GATE:
        record_revocation(settings, _revocation(model, Basis.GATE, rule, f"rejected by rule {rule}"))


def revocation_by_person(settings: Settings, version: int, reason: str, by: str | None = None) -> ModelRevocation:
    """The revocation of a version's approvals, to be recorded. It is for the bytes that have served as the version.

    Raises
    ------
    RegistryError
        The reason is empty, or there is no such version.
    """
    _check_reason(version, reason)
    return _revocation(_served_as(settings, version), Basis.PERSON, by or getpass.getuser(), reason.strip())


def revocation_by_rule(settings: Settings, version: int, reason: str) -> ModelRevocation:
    """The revocation of the approvals of a champion that a rule has taken out of service, to be recorded.

    Raises
    ------
    RegistryError
        There is no such version.
    """
    return _revocation(_served_as(settings, version), Basis.RULE, "probation", reason)


def _served_as(settings: Settings, version: int) -> Deployed | Claim:
    """The bytes that have served under a number; the registry's claim if none have."""
    served = deployed_as(settings, version, (DeploymentState.SERVING,))
    return served if served is not None and served.digest else claim_of(settings, version)


def _check_reason(version: int, reason: str) -> None:
    if not reason.strip():
        raise RegistryError(f"version {version}: the reason is empty; say why it may serve, or may no longer")


def _revocation(what: Deployed | Claim | LoadedModel, basis: str, by: str, reason: str) -> ModelRevocation:
    return ModelRevocation(
        training_key=what.training_key, artefact_digest=what.digest, basis=basis, revoked_by=by, reason=reason
    )


def _approve(
    settings: Settings, model: LoadedModel, why: tuple[str, str, str], certificate: Certificate | None
) -> ModelApproval:
    basis, by, reason = why
    row = ModelApproval(
        training_key=model.training_key,
        artefact_digest=model.digest,
        basis=basis,
        approved_by=by,
        reason=reason,
        certificate=certificate.key if certificate is not None and certificate.passed else "",
    )
    record_model_approval(settings, row)
    log.info("version %d may serve: approved by %s %s: %s", model.version, basis, by, reason)
    return row
