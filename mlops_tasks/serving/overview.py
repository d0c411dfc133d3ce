"""Who serves now, and what is known of how well: read from the state database alone, so it is there when the scoring
service and MLflow are not."""

from dataclasses import dataclass
from datetime import timedelta

from mlops_tasks.config import Settings
from mlops_tasks.state.alerts.episodes import Episode
from mlops_tasks.state.alerts.handling import open_episodes
from mlops_tasks.state.deployments import last_step
from mlops_tasks.state.model_history import Tenure, live_at
from mlops_tasks.state.rollouts import Rollout, undecided_rollouts
from mlops_tasks.state.tables import Deployment, now
from mlops_tasks.state.traffic import Traffic, traffic_since
from mlops_tasks.states import Arm

TRAFFIC_OF = timedelta(hours=1)
"""How far back the traffic is counted."""
ABOUT_SERVING = (
    *("champion_", "service_", "scores_", "deployment_", "deployments_", "rollout_", "predictions_", "history_changed"),
)
"""How the kinds of alerts begin that are about what serves."""


@dataclass(frozen=True)
class Slot:
    """A version that the service has loaded, or is to load."""

    arm: Arm
    """Champion, canary or shadow."""
    version: int
    share: float
    """Of the clients, in [0, 1]."""


@dataclass(frozen=True)
class ServingOverview:
    """How the serving of models stands."""

    champion: Tenure | None
    slots: tuple[Slot, ...]
    queue: tuple[Rollout, ...]
    """Undecided rollouts, in the order in which they were asked for."""
    last: Deployment | None
    """The newest step of a deployment that has changed something, or begun to."""
    traffic: tuple[Traffic, ...]
    """Of the last hour (`TRAFFIC_OF`)."""
    alerts: tuple[Episode, ...]
    """Open ones that are about serving, the newest first."""


def serving_overview(settings: Settings) -> ServingOverview:
    """How it stands now.

    Raises
    ------
    StoreError
        The state database does not answer.
    """
    moment = now()
    champion, queue = live_at(settings, moment), tuple(undecided_rollouts(settings))
    return ServingOverview(
        champion=champion,
        slots=slots_of(champion, queue),
        queue=queue,
        last=last_step(settings),
        traffic=tuple(traffic_since(settings, moment - TRAFFIC_OF)),
        alerts=tuple(each for each in open_episodes(settings) if each.key.kind.startswith(ABOUT_SERVING)),
    )


def slots_of(champion: Tenure | None, queue: tuple[Rollout, ...]) -> tuple[Slot, ...]:
    """The champion's slot and the candidate's, with their shares of the clients."""
    at_work = next((each for each in queue if each.is_at_work), None)
    share = 0.0 if at_work is None else at_work.share
    slots = () if champion is None else (Slot(Arm.CHAMPION, champion.version, 1 - share),)
    return slots if at_work is None else (*slots, Slot(at_work.arm, at_work.version, share))
