"""Compatibility of a version with the service that is to serve it."""

import logging

from mlops_tasks.config import Settings
from mlops_tasks.data.vintages import current_vintage
from mlops_tasks.modeling.environment import Environment
from mlops_tasks.registry.compatibility import Compatibility, compatibility_of, compatibility_of_model
from mlops_tasks.registry.models import Claim, LoadedModel, load_claimed
from mlops_tasks.serving.client import ScoringClient, ScoringServiceError

log = logging.getLogger(__name__)


def require_compatible(settings: Settings, model: LoadedModel, client: ScoringClient) -> Compatibility:
    """Compare a loaded version with the service, and log the warnings.

    Raises
    ------
    CompatibilityError
        Something differs that can change a score.
    ScoringServiceError
        The service does not answer.
    """
    serving = Environment.from_json(client.environment())
    found = compatibility_of_model(settings, model, serving, current_vintage(settings))
    for each in found.warnings:
        log.warning("version %d: %s", model.version, each.text)
    found.require()
    return found


def require_candidate_compatible(settings: Settings, claim: Claim) -> None:
    """The same for a version that a rollout is asked for, so that no client is given scores of what would not be
    deployed in the end. Without a service nothing is compared: the rollout begins only once the service has loaded it.

    Raises
    ------
    CompatibilityError, MlopsError
        As `require_compatible`, and `load_claimed`.
    """
    with ScoringClient(settings) as client:
        try:
            client.environment()
        except ScoringServiceError as error:
            log.warning("version %d is not compared with the service yet: %s", claim.version, error)
            return
        require_compatible(settings, load_claimed(settings, claim), client)


def compatibility_with_service(settings: Settings, version: int) -> tuple[Compatibility, str]:
    """The comparison of a registered version with the service, and with whose environment: the service's, or where it
    does not answer, this process's."""
    whose = "the scoring service"
    try:
        with ScoringClient(settings) as client:
            serving = Environment.from_json(client.environment())
    except ScoringServiceError as error:
        serving, whose = Environment.whole(), f"this process, because {error}"
    return compatibility_of(settings, version, serving, current_vintage(settings)), whose
