"""All that is looked at between two retrainings: the DAG monitor_champion on its schedule, `alphaops monitor` by hand.

Looks at rank ICs, the champion's probation, the rollouts, the performance of what was answered, the rules of alerts,
and whether drift asks for a retraining. A part that fails keeps no other one from its work; the errors come at the end.
It may be killed and run again: what was recorded stays, and what was told is not told once more.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

from mlops_tasks.config import Settings
from mlops_tasks.data.exchanges.calendars import last_session_of
from mlops_tasks.data.vintages import Vintage, current_version, load_vintage
from mlops_tasks.errors import MlopsError, StageError
from mlops_tasks.evaluation.worse import LookPlan
from mlops_tasks.monitoring.performance import mature_performance
from mlops_tasks.monitoring.quality import take_looks
from mlops_tasks.monitoring.retraining import wanted_retraining
from mlops_tasks.serving.deployment import said
from mlops_tasks.serving.probation import judge_champion, probation_of
from mlops_tasks.serving.reconciliation import named
from mlops_tasks.serving.strategies import advance_rollouts
from mlops_tasks.stage_results import Advanced, MaturePerformance, Monitored
from mlops_tasks.state.alerts.handling import open_episodes
from mlops_tasks.state.alerts.watching import look
from mlops_tasks.state.deployments import recorded_champion
from mlops_tasks.state.quality_looks import quality_looks
from mlops_tasks.state.tables import DriftRetraining, now

log = logging.getLogger(__name__)

Result = TypeVar("Result")


def monitor(settings: Settings) -> Monitored:
    """Do all of it now; a moment where nothing is due.

    Raises
    ------
    StageError
        Parts that failed, with their errors; the others have done their work.
    """
    errors: list[str] = []

    def tried(part: Callable[[], Result], what: str, otherwise: Result) -> Result:
        try:
            return part()
        except Exception as error:
            log.warning("%s: %s", what, error, exc_info=not isinstance(error, MlopsError))
            errors.append(f"{what}: {said(error)}")
            return otherwise

    vintage = tried(lambda: _vintage(settings), "the vintage in use", None)
    looks: list[str] = []
    figures: list[MaturePerformance] = []
    if vintage is not None:
        looks = tried(lambda: take_looks(settings, vintage), "rank ICs", looks)
    rolled_back = tried(lambda: judge_champion(settings), "the champion", None)
    rollouts = tried(lambda: advance_rollouts(settings), "rollouts", Advanced(steps=[], under_way=[]))
    wanted: DriftRetraining | None = None
    if vintage is not None:
        figures = tried(lambda: mature_performance(settings, vintage), "performance", figures)
        wanted = tried(lambda: _wanted(settings, vintage), "retraining after drift", wanted)
    result: Monitored = {
        "looks": looks,
        **rollouts,
        "rolled_back": rolled_back,
        "probation": tried(lambda: _probation(settings), "the probation", None),
        "performance": figures,
        "retraining": None if wanted is None else wanted.run_id,
        "retraining_reason": None if wanted is None else wanted.reason,
        "retraining_form": {} if wanted is None else wanted.form,
        "alerts": tried(lambda: _alerts(settings), "alerts", []),
    }
    if errors:
        raise StageError(f"{'; '.join(errors)}; all else was done, and the next run tries again")
    return result


def _vintage(settings: Settings) -> Vintage | None:
    version = current_version(settings)
    return None if version is None else load_vintage(settings, version)


def _wanted(settings: Settings, vintage: Vintage) -> DriftRetraining | None:
    """Nothing is read of the vintage where drift may ask for nothing, as by default."""
    if not settings.drift.retraining.enabled:
        return None
    return wanted_retraining(settings, vintage.data_version, vintage.calendar())


def _probation(settings: Settings) -> str | None:
    """How the champion's probation stands; None where there is none, or its last look was taken."""
    found, plan = probation_of(settings, recorded_champion(settings)), LookPlan.of(settings.deployment)
    taken = [] if found is None else quality_looks(settings, found.subject)
    if found is None or (taken[-1].number if taken else 0) == len(plan.days):
        return None
    looks = taken[-1].said if taken else f"no look yet, the first one comes at {plan.days[0]} mature days"
    return f"{named(found.version)} replaced {named(found.replaced)} on {found.began_at:%F %R} UTC: {looks}"


def _alerts(settings: Settings) -> list[str]:
    """Judge the rules now, whoever does that besides; what is open afterwards."""
    look(settings, [], (), now(), last_session_of(settings.calendar.schedule))
    return [f"{each.key.kind}, {each.key.subject}: {each.message}" for each in open_episodes(settings)]
