"""Replays of registered versions: each is recorded once it has ended, and stays."""

from datetime import datetime

from sqlalchemy import func, select

from mlops_tasks.config import Settings
from mlops_tasks.state.database import reading
from mlops_tasks.state.rows import record_row
from mlops_tasks.state.tables import ModelReplay


def record_replay(settings: Settings, row: ModelReplay) -> None:
    """Add a replay."""
    record_row(settings, row)


def replays(settings: Settings, version: int | None = None) -> list[ModelReplay]:
    """The replays of a version, or of all versions, the newest first."""
    query = select(ModelReplay).order_by(ModelReplay.id.desc())
    if version is not None:
        query = query.where(ModelReplay.model_version == version)
    with reading(settings) as active:
        return list(active.scalars(query))


def last_replays(settings: Settings) -> dict[int, datetime]:
    """Version to the time of its newest replay, whatever that has found; versions without one are left out."""
    query = select(ModelReplay.model_version, func.max(ModelReplay.at)).group_by(ModelReplay.model_version)
    with reading(settings) as active:
        return {version: at for version, at in active.execute(query)}
