"""Looks at the rank ICs of candidates and new champions: each is recorded once, and what it has found stays."""

from sqlalchemy import select

from mlops_tasks.config import Settings
from mlops_tasks.state.database import reading
from mlops_tasks.state.rows import record_row
from mlops_tasks.state.tables import QualityLook


def record_quality_look(settings: Settings, row: QualityLook) -> bool:
    """Add a look; False when the same one was taken before, whatever it has found."""
    return record_row(settings, row)


def quality_looks(settings: Settings, subject: str) -> list[QualityLook]:
    """The looks at a rollout, or at what a deployment has put into service, in their order."""
    query = select(QualityLook).where(QualityLook.subject == subject).order_by(QualityLook.number)
    with reading(settings) as active:
        return list(active.scalars(query))


def found_worse(settings: Settings, subject: str) -> QualityLook | None:
    """The first look that has found the model worse than its rival; None: none has."""
    return next((row for row in quality_looks(settings, subject) if row.worse), None)
