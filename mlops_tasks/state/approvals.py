"""Which artefacts may serve: approvals, and the revocations that end them; a later approval is valid again."""

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from mlops_tasks.config import Settings
from mlops_tasks.state.database import reading, session
from mlops_tasks.state.model_history import Model, challenge_again, move
from mlops_tasks.state.rows import content_digest, insert_row, lock_table
from mlops_tasks.state.tables import ModelApproval, ModelRevocation
from mlops_tasks.states import ModelState


def standing_approval(settings: Settings, training_key: str, artefact_digest: str) -> ModelApproval | None:
    """The newest approval in force for these bytes of this training; None if there is none."""
    with reading(settings) as active:
        return _standing(active, training_key, artefact_digest)


def approved_artefacts(settings: Settings) -> frozenset[tuple[str, str]]:
    """Training key and digest of everything that may serve."""
    revoked = (
        select(ModelRevocation.training_key, ModelRevocation.artefact_digest, func.count().label("number"))
        .group_by(ModelRevocation.training_key, ModelRevocation.artefact_digest)
        .subquery()
    )
    same = and_(
        revoked.c.training_key == ModelApproval.training_key,
        revoked.c.artefact_digest == ModelApproval.artefact_digest,
    )
    query = (
        select(ModelApproval.training_key, ModelApproval.artefact_digest)
        .outerjoin(revoked, same)
        .where(ModelApproval.revocations == func.coalesce(revoked.c.number, 0))
    )
    with reading(settings) as active:
        return frozenset((key, digest) for key, digest in active.execute(query))


def latest_revocation(settings: Settings, training_key: str) -> ModelRevocation | None:
    """The newest revocation of a training's artefacts."""
    query = select(ModelRevocation).where(ModelRevocation.training_key == training_key)
    with reading(settings) as active:
        return active.scalars(query.order_by(ModelRevocation.id.desc()).limit(1)).first()


def record_model_approval(settings: Settings, row: ModelApproval, version: int | None = None) -> bool:
    """Add an approval of a model; False if there is an equal one that has not been revoked.

    A rejected version is a challenger again with it.
    """
    with session(settings) as active:
        _lock(active)
        row.revocations = _revocations(active, row.training_key, row.artefact_digest)
        added = insert_row(active, row)
        if version is not None:
            model = Model(row.training_key, version)
            challenge_again(active, model, ModelState.REJECTED, row.reason, row.approved_by)
    return added


def record_revocation(settings: Settings, row: ModelRevocation, version: int | None = None) -> bool:
    """End the approvals of a model; False if none is in force and a revocation on the same basis exists already.

    The version, unless it is champion, is rejected with it.
    """
    with session(settings) as active:
        added = add_revocation(active, row)
        if version is not None:
            move(active, Model(row.training_key, version), ModelState.REJECTED, row.reason, row.revoked_by)
    return added


def add_revocation(active: Session, row: ModelRevocation) -> bool:
    """`record_revocation` as part of a transaction."""
    _lock(active)
    same = _of(ModelRevocation, row.training_key, row.artefact_digest)
    last = active.scalars(select(ModelRevocation).where(same).order_by(ModelRevocation.id.desc()).limit(1)).first()
    stands = _standing(active, row.training_key, row.artefact_digest) is not None
    if last is not None and last.basis == row.basis and not stands:
        return False
    row.number = 1 if last is None else last.number + 1
    row.content_digest = content_digest(row)
    active.add(row)
    return True


def _standing(active: Session, training_key: str, artefact_digest: str) -> ModelApproval | None:
    same = _of(ModelApproval, training_key, artefact_digest)
    newest = ModelApproval.revocations == _revocations(active, training_key, artefact_digest)
    return active.scalars(select(ModelApproval).where(same, newest).order_by(ModelApproval.id.desc()).limit(1)).first()


def _revocations(active: Session, training_key: str, artefact_digest: str) -> int:
    query = select(func.count()).select_from(ModelRevocation)
    return active.scalar(query.where(_of(ModelRevocation, training_key, artefact_digest))) or 0


def _of(
    table: type[ModelApproval] | type[ModelRevocation], training_key: str, artefact_digest: str
) -> ColumnElement[bool]:
    return and_(table.training_key == training_key, table.artefact_digest == artefact_digest)


def _lock(active: Session) -> None:
    """Serialise approvals and revocations, so that each counts those before it."""
    for table in (ModelApproval, ModelRevocation):
        lock_table(active, table.__tablename__)
