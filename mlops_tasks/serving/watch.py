"""What is wrong with the service and its scores for longer than it may be, told to the people on call."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from mlops_tasks.config import AlertSettings, Settings
from mlops_tasks.registry.client import CHAMPION
from mlops_tasks.state.alerts import raise_daily_alert
from mlops_tasks.state.history import latest_score_batch

log = logging.getLogger(__name__)

LOOK_EVERY_S = 30.0


@dataclass(frozen=True)
class View:
    """What a look has found."""

    champion: int | None
    """Version in service."""
    served: date | None
    """Newest date that the service has data of."""
    vintage: date | None
    """Last date of the vintage in use; None while there is no vintage."""
    scored: bool
    """Whether the champion's scores of that date are recorded."""
    error: str = ""
    """What the service itself says about it."""


@dataclass(frozen=True)
class Complaint:
    """Something that is wrong, and how long it may last."""

    kind: str
    cause: str
    message: str
    limit_s: float


def complaints(view: View, limits: AlertSettings) -> list[Complaint]:
    """All that is wrong now; whether it has lasted for too long is `Watch`'s to say."""
    if view.champion is None:
        why = view.error or "no deployment has put one there; see the tasks gate_challenger and deploy_model"
        told = f"no model is in service: {why}"
        return [Complaint("champion_missing", "the scoring service", told, limits.stale_after_s)]
    if view.vintage is None:
        return []
    found = []
    if view.served is None or view.served < view.vintage:
        told = f"the service has data up to {view.served}, the vintage in use up to {view.vintage}: {view.error}"
        found.append(Complaint("service_stale", f"data of {view.vintage}", told, limits.stale_after_s))
    if not view.scored:
        told = f"the champion's scores of {view.vintage} are not there; see the newest run of daily_retraining"
        found.append(Complaint("scores_late", f"scores of {view.vintage}", told, limits.scores_due_s))
    return found


class Watch:
    """Remembers since when something is wrong, in one process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._since: dict[tuple[str, str], float] = {}
        self._next = 0.0

    def is_due(self) -> bool:
        """Whether it is time for another look."""
        due = time.monotonic() >= self._next
        if due:
            self._next = time.monotonic() + LOOK_EVERY_S
        return due

    def look(self, view: View) -> None:
        """Tell what has lasted for too long, once a cause and day; what is over is forgotten."""
        found = complaints(view, self.settings.alerts)
        now = time.monotonic()
        self._since = {(each.kind, each.cause): self._since.get((each.kind, each.cause), now) for each in found}
        for each in self._lasting(found, now):
            raise_daily_alert(self.settings, kind=each.kind, cause=each.cause, message=each.message)

    def _lasting(self, found: Sequence[Complaint], now: float) -> list[Complaint]:
        return [each for each in found if now - self._since[each.kind, each.cause] >= each.limit_s]


def is_scored(settings: Settings, day: date) -> bool:
    """Whether a champion's scores of a day are recorded."""
    return latest_score_batch(settings, day=day, alias=CHAMPION) is not None
