"""The version in service: since when it had been live when it made a score."""

from dataclasses import dataclass
from datetime import datetime

from mlops_tasks.config import Settings
from mlops_tasks.errors import StoreError
from mlops_tasks.provenance.evidence import EvidenceBook
from mlops_tasks.provenance.score import TracedScore
from mlops_tasks.state.model_history import Transition, history_of, live_at


@dataclass(frozen=True)
class TracedService:
    """How a version stood when it made a score."""

    state: str | None
    """A `ModelState`; None: the history does not know."""
    since: datetime | None
    """Since when it had been in that state."""
    until: datetime | None
    """When it left that state; None: it is in it still."""
    by: str
    reason: str
    """Who put it into that state, and why."""


def find_service(settings: Settings, score: TracedScore, book: EvidenceBook) -> TracedService:
    """The version's state at the time of its score, from the append-only history."""
    try:
        story = history_of(settings, score.version)
    except StoreError as error:
        book.unproven("live", str(error))
        return TracedService(None, None, None, "", "")
    before = [each for each in story if each.at <= score.made_at]
    if not before:
        book.unproven("live", f"the history of version {score.version} begins after its score, at {story[0].at:%F %T}")
        return TracedService(None, None, None, "", "")
    last = before[-1]
    after = story[len(before)].at if len(before) < len(story) else None
    book.proven("live", _said(settings, score, last))
    return TracedService(last.after.value, last.at, after, last.by, last.reason)


def _said(settings: Settings, score: TracedScore, last: Transition) -> str:
    tenure = live_at(settings, score.made_at)
    was = f"version {score.version} was {last.after} since {last.at:%F %T} UTC, by the history of models"
    if tenure is None or tenure.version == score.version:
        return was
    return f"{was}; the champion then was version {tenure.version}"
