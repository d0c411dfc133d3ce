"""The deployments' own record: the newest step that counts, and how an attempt ended, written once."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.history import content_digest, lock_table
from mlops_tasks.state.tables import FAILED, STARTED, Deployment


def last_step(settings: Settings) -> Deployment | None:
    """The newest step of all deployments, but for failed ones: they have moved nothing."""
    with reading(settings) as active:
        return _last(active)


def settle_attempt(settings: Settings, row: Deployment) -> bool:
    """Add how an attempt ended; False where its start is not the last step any more, since somebody ended it before."""
    row.content_digest = content_digest(row)
    with session(settings) as active:
        lock_table(active, Deployment.__tablename__)
        last = _last(active)
        if last is None or (last.state, last.attempt) != (STARTED, row.attempt):
            return False
        active.add(row)
    return True


def _last(active: Session) -> Deployment | None:
    query = select(Deployment).where(Deployment.state != FAILED).order_by(Deployment.id.desc()).limit(1)
    return active.scalars(query).first()
