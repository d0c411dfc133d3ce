"""The record of deployments: which version is champion, with which bytes, and how each attempt ended."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.state.approvals import add_revocation
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.history import content_digest, lock_table
from mlops_tasks.state.tables import Deployment, ModelRevocation
from mlops_tasks.states import DeploymentState


@dataclass(frozen=True)
class DeploymentStep:
    """The last step that counts (`last_step`)."""

    state: str
    version: int
    proven: int | None
    """Champion before a start, or after a rollback; None: there was none."""

    @classmethod
    def of(cls, row: Deployment) -> "DeploymentStep":
        """Build it from a row."""
        return cls(row.state, row.model_version, row.proven_version)

    @property
    def champion(self) -> int | None:
        """The proven version, as far as this step knows."""
        return self.version if self.state == DeploymentState.SERVING else self.proven


@dataclass(frozen=True)
class Deployed:
    """The bytes that a deployment has bound to the number of a version."""

    version: int
    training_key: str
    digest: str
    """Empty if it was not recorded yet."""


def last_step(settings: Settings) -> Deployment | None:
    """The newest step of all deployments, except failed ones, which have changed nothing."""
    with reading(settings) as active:
        return _last(active)


def recorded_champion(settings: Settings) -> int | None:
    """The version that was proven last and not replaced since; None before the first."""
    row = last_step(settings)
    return None if row is None else DeploymentStep.of(row).champion


def deployed_as(
    settings: Settings, version: int, states: Sequence[str] = (DeploymentState.STARTED, DeploymentState.SERVING)
) -> Deployed | None:
    """The bytes of a version's newest step among the given states; None: there is no such step."""
    query = select(Deployment).where(Deployment.model_version == version, Deployment.state.in_(states))
    with reading(settings) as active:
        row = active.scalars(query.order_by(Deployment.id.desc()).limit(1)).first()
    return None if row is None else _deployed(row)


def versions_that_served(settings: Settings) -> list[Deployed]:
    """Versions in the order in which they last came into service, newest first."""
    query = select(Deployment).where(Deployment.state == DeploymentState.SERVING).order_by(Deployment.id)
    with reading(settings) as active:
        newest = {row.model_version: row for row in active.scalars(query)}
    return [_deployed(row) for row in sorted(newest.values(), key=lambda row: -row.id)]


def settle_attempt(settings: Settings, row: Deployment, revoked: ModelRevocation | None = None) -> bool:
    """Record how an attempt ended, and the revocation that comes with it, in one transaction.

    Returns
    -------
    False if its start is no longer the last step, because it was ended before; nothing is added then.
    """
    row.content_digest = content_digest(row)
    with session(settings) as active:
        lock_table(active, Deployment.__tablename__)
        last = _last(active)
        if last is None or (last.state, last.attempt) != (DeploymentState.STARTED, row.attempt):
            return False
        active.add(row)
        if revoked is not None:
            add_revocation(active, revoked)
    return True


def _last(active: Session) -> Deployment | None:
    query = select(Deployment).where(Deployment.state != DeploymentState.FAILED).order_by(Deployment.id.desc()).limit(1)
    return active.scalars(query).first()


def _deployed(row: Deployment) -> Deployed:
    return Deployed(row.model_version, row.training_key, row.artefact_digest)
