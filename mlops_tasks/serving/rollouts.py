"""Evaluates rollouts and ends them: the record, the alerts and the deployment behind `rollout.py`.

An evaluation takes all steps that are due and waits for nothing, so it may be run by any process and as often as
needed, and may be killed at any point: the next one does what it has not recorded. Only one runs at a time.
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from mlops_tasks.config import Settings
from mlops_tasks.errors import DeploymentError
from mlops_tasks.serving.rollout import Deploy, Move, Situation, decide, failed
from mlops_tasks.state.alerts import raise_daily_alert
from mlops_tasks.state.rollouts import Rollout, record_rollout_step, undecided_rollouts
from mlops_tasks.states import RolloutState

log = logging.getLogger(__name__)

LEASE = "rollout"
WAIT_S = 10.0
"""How long to wait for an evaluation, which is brief; one that deploys takes longer than this."""
_MOST_STEPS = 1000
"""Most steps of one evaluation; more would be a programming error, and the next evaluation continues."""


class World(Protocol):
    """What an evaluation reads and does outside the record of rollouts."""

    def look(self, queue: Sequence[Rollout]) -> Situation:
        """The findings on which to decide.

        Raises
        ------
        DeploymentError
            A deployment outside the rollouts is running, so the champion is unknown.
        """

    def deploy(self, rollout: Rollout) -> None:
        """Deploy a candidate. DeploymentError: it was not deployed, and the champion serves as before."""

    def now(self) -> datetime:
        """The current time, aware."""


def evaluate(settings: Settings, world: World) -> list[Rollout]:
    """Take the steps that are due, as the holder of the lease; returns the rollouts after each of them."""
    taken: list[Rollout] = []
    deployed: set[str] = set()
    for _ in range(_MOST_STEPS):
        queue = undecided_rollouts(settings)
        step = decide(world.look(queue)) if queue else None
        if isinstance(step, Deploy) and step.rollout.rollout_id not in deployed:
            deployed.add(step.rollout.rollout_id)
            step = _deploy(world, step.rollout)
            if step is None:
                continue  # it is the champion: the next evaluation finds this
        if not isinstance(step, Move):
            break
        if record(settings, step):
            taken.append(step.after)
    return taken


def _deploy(world: World, rollout: Rollout) -> Move | None:
    try:
        world.deploy(rollout)
    except DeploymentError as error:
        return failed(rollout, str(error), world.now())
    return None


def record(settings: Settings, move: Move) -> bool:
    """Report a step to people, if they need to know it, and record it; False if another process was quicker.

    In this order, so that a kill in between cannot suppress the report of a failure.
    """
    after = move.after
    told = f"{after.strategy} of version {after.version}: {after.state}" + (f", {after.reason}" if after.reason else "")
    if move.alarming:
        cause = f"version {after.version} (rollout {after.rollout_id})"  # a second rollout of it is another episode
        raise_daily_alert(settings, kind=f"rollout_{after.state}", cause=cause, message=told)
    done = record_rollout_step(settings, move.before, after)
    if done:
        log.log(logging.WARNING if after.state == RolloutState.REJECTED else logging.INFO, "%s", told)
    return done
