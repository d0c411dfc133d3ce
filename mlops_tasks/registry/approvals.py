"""Which models may serve: those that the state database has approved, by the gate or by a named person.

The registry's aliases and tags say what somebody wants, and whoever may write there can set them; they are never a
reason. An approval is of one training's very bytes. So a version that is given another artefact, or the tags of an
approved one, is not approved.
"""

import getpass
import logging
from dataclasses import replace

from mlops_tasks.config import Settings
from mlops_tasks.errors import NotApprovedError, RegistryError
from mlops_tasks.evaluation.gate import PROVISIONAL
from mlops_tasks.registry.client import CHAMPION, MODEL_NAME
from mlops_tasks.registry.models import Claim, LoadedModel, claim_of, get_alias_version, load_claimed, load_version
from mlops_tasks.state.history import latest_model_approval, record_model_approval
from mlops_tasks.state.tables import ModelApproval
from mlops_tasks.training.certificate import certificate_of

log = logging.getLogger(__name__)

GATE, PERSON = "gate", "person"


def load_approved(settings: Settings, version: int) -> LoadedModel:
    """Load a version that may serve; nothing of another one is even fetched.

    Raises
    ------
    NotApprovedError
        The state database knows no approval of these bytes of this training.
    RegistryError, SignatureError, DigestMismatchError, ConfigError, IsolationError
        As `load_version`.
    """
    claim = claim_of(settings, version)
    approval = check_approved(settings, claim)
    return replace(load_claimed(settings, claim), provisional=_is_provisional(approval))


def load_champion(settings: Settings) -> LoadedModel | None:
    """The champion, if it may serve; None while there is none. Errors as for `load_approved`."""
    version = get_alias_version(settings, CHAMPION)
    return None if version is None else load_approved(settings, version)


def is_provisional(settings: Settings, model: LoadedModel | Claim) -> bool:
    """Whether the gate lets a model serve without proof of skill, and no person has approved it since."""
    return _is_provisional(latest_model_approval(settings, model.training_key, model.digest))


def _is_provisional(approval: ModelApproval | None) -> bool:
    return approval is not None and (approval.basis, approval.approved_by) == (GATE, PROVISIONAL)


def check_approved(settings: Settings, claim: Claim) -> ModelApproval:
    """Why what a version claims to be may serve.

    Raises
    ------
    NotApprovedError
        It may not; says what to do.
    """
    approval = latest_model_approval(settings, claim.training_key, claim.digest)
    if approval is None:
        raise NotApprovedError(
            f"{MODEL_NAME} version {claim.version} (training {claim.training_key[:64]!a}) may not serve: the gate has "
            "not promoted these bytes, and nobody has approved them; let daily_retraining judge it, or run "
            f"`alphaops approve-model {claim.version} --reason ...`"
        )
    return approval


def approve_by_gate(settings: Settings, model: LoadedModel, rule: str) -> None:
    """Record that the gate promoted a model, whose leak certificate it has seen pass."""
    _record(settings, model, GATE, rule, f"promoted by rule {rule}")


def approve_model(settings: Settings, version: int, reason: str, by: str | None = None) -> ModelApproval:
    """Let a version serve that the gate has not promoted; a deployment of it then passes.

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
        As `load_version`: what is not signed can not be approved.
    """
    if not reason.strip():
        raise RegistryError(f"approval of version {version}: the reason is empty; say why it may serve")
    return _record(settings, load_version(settings, version), PERSON, by or getpass.getuser(), reason.strip())


def _record(settings: Settings, model: LoadedModel, basis: str, by: str, reason: str) -> ModelApproval:
    certificate = certificate_of(settings, model.training_key)
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
