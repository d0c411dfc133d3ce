"""The record of deployments: which version is champion, with which bytes, and how each attempt ended."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.errors import StoreError
from mlops_tasks.state.approvals import add_revocation
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.model_history import Model, succeed
from mlops_tasks.state.rows import add_step, content_digest, lock_table
from mlops_tasks.state.tables import Deployment, ModelRevocation
from mlops_tasks.states import DeploymentState, ModelState


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


def newest_deployment_id(settings: Settings) -> int:
    """Row id of the newest step of all deployments; 0 before the first."""
    with reading(settings) as active:
        return active.scalar(select(func.max(Deployment.id))) or 0


def deployments_after(settings: Settings, after: int, limit: int) -> list[Deployment]:
    """Steps of deployments with row ids above `after`, in the order in which they were recorded."""
    with reading(settings) as active:
        query = select(Deployment).where(Deployment.id > after).order_by(Deployment.id).limit(limit)
        return list(active.scalars(query))


def record_deployment(settings: Settings, row: Deployment, by: str = "") -> bool:
    """Add a step of a deployment; False if the newest step is equal in all but its time.

    A step that changes the champion is in the history of models from the same moment on, with `by` as in
    `model_history.move`.

    Raises
    ------
    StoreError
        `row.state` is not a `DeploymentState`.
    TransitionError
        As `model_history.move`.
    """
    if row.state not in [*DeploymentState]:
        raise StoreError(f"deployment state {row.state!r} is unknown; use one of {', '.join(DeploymentState)}")
    with session(settings) as active:
        added = add_step(active, row)
        if added:
            _follow(active, row, by)
    return added


def settle_attempt(settings: Settings, row: Deployment, revoked: ModelRevocation | None = None, by: str = "") -> bool:
    """Record how an attempt ended, and the revocation that comes with it, in one transaction.

    A change of champion is in the history of models from the same moment on, with `by` as in `model_history.move`.

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
        _follow(active, row, by, ModelState.RETIRED if revoked is None else ModelState.REJECTED)
    return True


def _follow(active: Session, row: Deployment, by: str, leaves_as: ModelState = ModelState.RETIRED) -> None:
    """Let the history of models name the champion that a step has settled on, if it has."""
    if row.state in (DeploymentState.STARTED, DeploymentState.FAILED):
        return
    version = DeploymentStep.of(row).champion
    champion = None if version is None else Model(_key_of(active, row, version), version)
    succeed(active, champion, row.reason, by, leaves_as)


def _key_of(active: Session, row: Deployment, version: int) -> str:
    if row.model_version == version and row.training_key:
        return row.training_key
    known = (Deployment.model_version == version, Deployment.training_key != "")
    query = select(Deployment.training_key).where(*known).order_by(Deployment.id.desc()).limit(1)
    return active.scalars(query).first() or ""


def _last(active: Session) -> Deployment | None:
    query = select(Deployment).where(Deployment.state != DeploymentState.FAILED).order_by(Deployment.id.desc()).limit(1)
    return active.scalars(query).first()


def _deployed(row: Deployment) -> Deployed:
    return Deployed(row.model_version, row.training_key, row.artefact_digest)
