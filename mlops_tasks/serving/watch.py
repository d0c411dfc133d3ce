"""Problems of the service and its scores that last too long, reported to the people on call."""

import time
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from mlops_tasks.config import AlertSettings, Settings
from mlops_tasks.data.exchanges.calendars import last_closed_session, last_session_of
from mlops_tasks.errors import ConfigError
from mlops_tasks.registry.client import CHAMPION
from mlops_tasks.state.alerts.episodes import Key, Observation, Standing
from mlops_tasks.state.alerts.rules import AbsenceRule, read_rules
from mlops_tasks.state.alerts.watching import SERVICE_KINDS, look
from mlops_tasks.state.history import latest_score_batch
from mlops_tasks.state.tables import now


@dataclass(frozen=True)
class View:
    """The findings of a check."""

    champion: int | None
    """Version in service."""
    served: date | None
    """Newest date for which the service has data."""
    vintage: date | None
    """Last date of the vintage in use; None while there is no vintage."""
    scored: bool
    """Whether the champion's scores of that date are recorded."""
    error: str = ""
    """The service's own message about it."""


@dataclass(frozen=True)
class Complaint:
    """A problem, and how long it may last."""

    kind: str
    cause: str
    message: str
    limit_s: float


def complaints(view: View, limits: AlertSettings) -> list[Complaint]:
    """All current problems; `Watch` decides whether they have lasted too long."""
    if view.champion is None:
        why = view.error or "no deployment has put one there; see the tasks gate_challenger and deploy_model"
        told = f"no model is in service: {why}"
        return [Complaint("champion_missing", "the scoring service", told, limits.stale_after_s)]
    if view.vintage is None:
        return []
    found = []
    if view.served is None or view.served < view.vintage:
        told = f"the service has data up to {view.served}, the vintage in use up to {view.vintage}: {view.error}"
        found.append(Complaint("service_stale", "the scoring service", told, limits.stale_after_s))
    if not view.scored:
        told = f"the champion's scores of {view.vintage} are missing; see the newest run of daily_retraining"
        found.append(Complaint("scores_late", "the champion's scores", told, limits.scores_due_s))
    return found


def kinds_judged(view: View) -> frozenset[str]:
    """Kinds of alerts whose state a check can determine."""
    return frozenset(SERVICE_KINDS[:1] if view.champion is None or view.vintage is None else SERVICE_KINDS)


class Watch:
    """Checks every `alerts.interval_s` seconds; its earlier findings are in the state database."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._next = 0.0

    def is_due(self) -> bool:
        """Whether it is time for another check."""
        due = time.monotonic() >= self._next
        if due:
            self._next = time.monotonic() + self.settings.alerts.interval_s
        return due

    def look(self, view: View) -> None:
        """Report, once per episode, what has lasted too long and what the rules find, and what is over."""
        seen = [
            Observation(Key(each.kind, each.cause), Standing.BREACHED, each.message, timedelta(seconds=each.limit_s))
            for each in complaints(view, self.settings.alerts)
        ]
        look(self.settings, seen, kinds_judged(view), now(), last_session_of(self.settings.calendar.schedule))


DEAD_MAN = "scores_overdue"
"""The rule that says when scores are due."""
_DUE_MIN = 720.0
"""Minutes after a session's close at which its scores are due, where that rule does not say it."""


def due_date(settings: Settings, moment: datetime) -> date:
    """The newest session whose scores are due at a time (aware), by the exchange's calendar.

    They are due when the alert `scores_overdue` would miss them. It needs no database, no run and no schedule.
    """
    try:
        rule = read_rules(settings).get(DEAD_MAN)
    except ConfigError:  # the alert `rules_wrong` says so
        rule = None
    minutes = rule.after_close_min if isinstance(rule, AbsenceRule) else None
    late = timedelta(minutes=_DUE_MIN if minutes is None else minutes)
    return last_closed_session(settings.calendar.schedule, moment, late)


def is_scored(settings: Settings, day: date) -> bool:
    """Whether a champion's scores of a day are recorded."""
    return latest_score_batch(settings, day=day, alias=CHAMPION) is not None
