"""Which versions a scheduled run replays."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from mlops_tasks.config import Settings
from mlops_tasks.registry.models import versions
from mlops_tasks.state.model_history import live_at
from mlops_tasks.state.replays import last_replays
from mlops_tasks.state.tables import now

_NEVER = datetime.min.replace(tzinfo=UTC)


def sample(settings: Settings) -> list[int]:
    """The champion, and `replay.sample` other versions by `choose`; those that MLflow has."""
    tenure, registered = live_at(settings, now()), versions(settings)
    champion = tenure.version if tenure is not None and tenure.version in registered else None
    return choose(registered, champion, last_replays(settings), settings.replay.sample)


def choose(registered: Sequence[int], champion: int | None, last: Mapping[int, datetime], count: int) -> list[int]:
    """The champion, if there is one, and `count` other versions.

    First those that were never replayed, then those whose last replay is longest ago; of equal ones the oldest version.
    A refused or unfinished replay counts, so that no version keeps the others from their turn.
    """
    others = sorted(
        (version for version in registered if version != champion),
        key=lambda version: (last.get(version, _NEVER), version),
    )
    return [*([] if champion is None else [champion]), *others[:count]]
