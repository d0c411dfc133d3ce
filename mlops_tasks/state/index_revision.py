"""The revisions of the index of versions, by which a copy in memory knows whether it is current."""

import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.orm import Session

from mlops_tasks.state.rows import lock_table
from mlops_tasks.state.tables import IndexRevision

_NEWEST = select(IndexRevision.number, IndexRevision.token).order_by(IndexRevision.number.desc()).limit(1)
_KEPT = 1000
"""Revisions that are known. A copy that is older is made anew."""


@dataclass(frozen=True)
class Revision:
    """A change of the index. Equal ones are the same change: a database that was restored makes others after it."""

    number: int
    token: str


NO_REVISION = Revision(0, "")


def next_revision(active: Session) -> int:
    """Number of the change that a transaction makes to the index; other writers of the index wait until it ends.

    Call it before reading what the index is made of: then nothing of it is overtaken.
    """
    lock_table(active, IndexRevision.__tablename__)
    number = newest_revision(active).number + 1
    active.execute(insert(IndexRevision).values(number=number, token=secrets.token_hex(8)))
    active.execute(delete(IndexRevision).where(IndexRevision.number <= number - _KEPT))
    return number


def newest_revision(active: Session | Connection) -> Revision:
    """The newest change."""
    row = active.execute(_NEWEST).first()
    return NO_REVISION if row is None else Revision(*row)


def is_known(active: Connection, revision: Revision) -> bool:
    """Whether a change is one of those that have led to what the index is."""
    query = select(IndexRevision.token).where(IndexRevision.number == revision.number)
    return active.scalar(query) == revision.token
