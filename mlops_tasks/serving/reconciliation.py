"""Moves the alias `champion` to where the record of deployments says that it must be, at each start, poll and touch."""

import logging
import secrets
from dataclasses import dataclass, replace

from mlops_tasks.config import Settings
from mlops_tasks.registry.client import CHAMPION
from mlops_tasks.registry.lifecycle import ModelLifecycleManager, try_to_show_history
from mlops_tasks.registry.models import get_alias_version, tags_of_versions
from mlops_tasks.serving.champion import Action, Decision, Situation, decide
from mlops_tasks.state.alerts import raise_daily_alert
from mlops_tasks.state.approvals import approved_artefacts
from mlops_tasks.state.deployments import (
    Deployed,
    DeploymentStep,
    last_step,
    record_deployment,
    settle_attempt,
    versions_that_served,
)
from mlops_tasks.state.lease import lease
from mlops_tasks.state.tables import Deployment
from mlops_tasks.states import DeploymentState

log = logging.getLogger(__name__)

LEASE = "deployment"
INTERRUPTED = "its process ended before the proof"


@dataclass(frozen=True)
class Reconciled:
    """The result of a check, and what is left to do."""

    action: Action
    champion: int | None
    """The version to serve: proven, or being proven by a running deployment."""
    error: str | None = None
    """Why the alias or the record could not be corrected; the next check tries again."""


def reconcile(settings: Settings) -> Reconciled:
    """Check the record and the alias, and correct them unless a deployment is running; then MLflow's tags.

    Raises
    ------
    MlopsError, and errors of the state database's drivers
        The record or the alias cannot be read. Nothing was changed.
    """
    result = _reconcile(settings)
    try_to_show_history(settings)
    return result


def _reconcile(settings: Settings) -> Reconciled:
    found = _look(settings, last_step(settings))
    if found.is_settled:
        return _as_it_is(decide(found))
    with lease(settings, LEASE) as taken:
        if not taken:
            return _as_it_is(decide(_look(settings, last_step(settings), running=True)))
        return put_right(settings)


def put_right(settings: Settings, own_attempt: str | None = None, reason: str = INTERRUPTED) -> Reconciled:
    """For the holder of the lease: undo a deployment that is no longer running, or restore the alias.

    `own_attempt` is the caller's, to be undone for a `reason`. The caller loses the lease if PostgreSQL restarts: it
    must not undo what another deployment has started by then. Errors as for `reconcile`.
    """
    row = last_step(settings)
    found = _look(settings, row, running=row is not None and own_attempt not in (None, row.attempt))
    decision = decide(found)
    try:
        if row is not None and decision.action is Action.UNDO:
            _undo(settings, row, decision.champion, reason)
        elif row is not None and decision.action is Action.RESTORE:
            _restore(settings, row, found.alias, decision.champion)
    except Exception as error:  # a read-only registry or database: the version to serve is known
        said = f"the alias {CHAMPION} could not be corrected: {type(error).__name__}: {error}"
        log.exception("%s", said)
        raise_daily_alert(settings, kind="champion_not_restored", cause=named(found.alias), message=said)
        return Reconciled(decision.action, decision.champion, said)
    return _as_it_is(decision)


def _look(settings: Settings, row: Deployment | None, *, running: bool = False) -> Situation:
    alias = get_alias_version(settings, CHAMPION)
    if row is None:
        return Situation(None, alias, running)
    last = DeploymentStep.of(row)
    found = Situation(last, alias, running)
    return found if found.is_settled else replace(found, ways_back=_ways_back(settings, last.champion))


def _ways_back(settings: Settings, wanted: int | None) -> tuple[int, ...]:
    """The wanted version, then others that served, newest first: those that are registered and may serve.

    The others must match what served under their number, also by their tags; for the wanted one, the service checks.
    """
    tags = tags_of_versions(settings)
    found = [each for each in still_approved(settings) if each.version in tags]
    others = [each for each in found if tags[each.version].get("digest") == each.digest]
    first = [each.version for each in found if each.version == wanted]
    return tuple(dict.fromkeys([*first, *(each.version for each in others)]))


def still_approved(settings: Settings) -> list[Deployed]:
    """Versions that have served and may serve again, newest first."""
    approved = approved_artefacts(settings)
    return [each for each in versions_that_served(settings) if (each.training_key, each.digest) in approved]


def _undo(settings: Settings, start: Deployment, champion: int | None, reason: str) -> None:
    ModelLifecycleManager(settings).restore(champion)
    if settle_attempt(settings, following(start, DeploymentState.ROLLED_BACK, champion, reason)):
        version = named(start.model_version)
        said = f"the deployment of {version} was undone, champion is {named(champion)}: {reason}"
        log.warning("%s", said)
        raise_daily_alert(settings, kind="deployment_undone", cause=version, message=said)


def _restore(settings: Settings, last: Deployment, was: int | None, champion: int | None) -> None:
    ModelLifecycleManager(settings).restore(champion)
    said = f"the alias {CHAMPION} named {named(was)}, where no deployment has put it; it names {named(champion)}"
    version = next(version for version in (champion, was, last.model_version) if version is not None)
    row = Deployment(
        model_version=version,
        training_key="",
        data_version="",
        strategy=last.strategy,
        state=DeploymentState.RESTORED,
        reason=said,
        proven_version=champion,
        attempt=new_attempt(),
    )
    record_deployment(settings, row)
    if was != champion:  # otherwise the record is an older one, which does not name the version proven before
        log.warning("%s", said)
        raise_daily_alert(settings, kind="champion_restored", cause=named(was), message=said)


def new_attempt() -> str:
    """A new identity for the steps of one attempt."""
    return secrets.token_hex(8)


def following(step: Deployment, state: str, champion: int | None, reason: str = "") -> Deployment:
    """The next step of the same attempt."""
    return Deployment(
        model_version=step.model_version,
        training_key=step.training_key,
        artefact_digest=step.artefact_digest,
        data_version=step.data_version,
        strategy=step.strategy,
        state=state,
        reason=reason,
        proven_version=champion,
        attempt=step.attempt,
    )


def _as_it_is(decision: Decision) -> Reconciled:
    return Reconciled(decision.action, decision.champion)


def named(version: int | None) -> str:
    """A version as messages name it."""
    return "no version" if version is None else f"version {version}"
